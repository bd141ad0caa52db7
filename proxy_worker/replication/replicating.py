"""A disk brought to its replica: read, compared by digests, and what differs sent.

Threads take pieces of the disk; each reads one, compares it, and sends what the replica doesn't have, before it
takes the next: what isn't taken off its hands isn't read, and memory is a piece or two for each thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.contract.replication import DiskReplicate
from proxy_worker.contract.replication_outcome import DiskReplicateResult
from proxy_worker.mover.buffers import Buffer
from proxy_worker.mover.configuration import ConfigurationFile
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.mover.effort import Effort
from proxy_worker.mover.pacing import Pacing
from proxy_worker.mover.statistics import Counters, RateMeter, name_bottleneck
from proxy_worker.replication.blocks import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    PIECE_BLOCKS,
    ZERO,
    ZEROS,
    Piece,
    Stretch,
    block_length,
    digest_of,
    moved_root,
    root_bytes,
    share,
    stretches,
)
from proxy_worker.replication.far_end import FarEnd, Packed
from proxy_worker.replication.messages import BLOCKS_AT_ONCE, Open, Opened, Seal
from proxy_worker.replication.reading import PieceReader
from proxy_worker.replication.sampling import check_areas
from proxy_worker.transport.source import DiskSource

POLL_S: Final = 0.2
REPORT_EVERY_S: Final = 1.0
SEND_BYTES: Final = 1 << 20
"""What is collected before it is sent, so that small changes don't cost a round trip each."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A piece, and the digests that the replica has of it."""

    piece: Piece
    haves: bytes


def replicate_disk(
    source: DiskSource,
    end: FarEnd,
    request: DiskReplicate,
    control: Control,
    *,
    pacing: Pacing,
    given_up: threading.Event,
    configuration: Sequence[ConfigurationFile] = (),
    effort: Effort | None = None,
) -> DiskReplicateResult:
    """Bring a replica's disk up to date, and seal it; closes the end, and sets `given_up` then, or to end early.

    `effort` decides how hard the end compresses, where that is left to this proxy.

    Raises SourceError, TargetError, ConflictError, `ReplicaDiffersError`, what a link raises, and `CancelledError`
    when the control says stop.
    """
    moved = _Replication(source, end, request, control, pacing=pacing, given_up=given_up, effort=effort)
    return moved.run(configuration)


class _Replication:
    def __init__(
        self,
        source: DiskSource,
        end: FarEnd,
        request: DiskReplicate,
        control: Control,
        *,
        pacing: Pacing,
        given_up: threading.Event,
        effort: Effort | None,
    ) -> None:
        self._source = source
        self._end = end
        self._request = request
        self._control = control
        self._pacing = pacing
        self._given_up = given_up
        self._effort = effort
        self._reader = PieceReader(source, request.areas_in_use)
        self._taking = threading.Lock()
        self._leaving = threading.Lock()
        self._lock = threading.Lock()
        self._sending = 0
        self._counters = Counters()
        self._root = 0
        self._opened = Opened(b"", None)
        self._alarm: str | None = None
        self._verdict = Verdict.RUN
        self._rate = RateMeter()
        self._reported_s = time.monotonic()
        self._name = f"disk {request.disk.key} of {request.vm.name}"

    def run(self, configuration: Sequence[ConfigurationFile]) -> DiskReplicateResult:
        """All of it; the caller's thread watches those that work."""
        started_s = time.monotonic()
        threads = self._request.streams + self._source.parallel_reads
        executor = ThreadPoolExecutor(threads + 1, thread_name_prefix="replicate")  # one asks for digests
        try:
            self._watch([executor.submit(self._begin)])
            tasks = self._tasks(executor)
            self._watch([executor.submit(self._work, tasks) for _ in range(threads)])
            self._watch([executor.submit(self._finish, configuration)])
        finally:
            self._verdict = Verdict.STOP
            self._given_up.set()
            self._end.close()
            executor.shutdown(cancel_futures=True)
        report = self._report(threads, time.monotonic() - started_s)
        return DiskReplicateResult(report=report, root=root_bytes(self._root).hex())

    @property
    def _known(self) -> bool:
        """Whether the replica is what the changed areas are relative to."""
        return self._opened.root is not None

    @property
    def _waiting(self) -> int:
        """How many sendings wait for a stream to be free."""
        return max(0, self._sending - self._request.streams)

    def _begin(self) -> None:
        request, size = self._request, self._source.size_bytes
        in_use = request.areas_in_use
        needed = sum(area.length for area in (self._source.allocated(0, size) if in_use is None else in_use))
        parent = request.parent if request.changed_areas is not None else None
        self._opened = self._end.open(Open(request.session, size, needed, parent))
        self._look_beyond()
        if self._known:
            self._root = int.from_bytes(self._opened.root or b"")
            self._counters.processed_bytes = self._counters.unchanged_bytes = size - self._considered_bytes()

    def _look_beyond(self) -> None:
        """Rely on areas only where what they leave out is as they say."""
        request, known = self._request, self._known
        areas = request.changed_areas if known else request.areas_in_use
        if areas is None:
            return
        sample = check_areas(
            self._source,
            areas,
            (lambda block: self._end.haves(block, 1)) if known else (lambda _: ZERO),
            self._opened.key,
            self._control,
            tracked=request.disk.address.vsphere is not None,
        )
        self._counters.read_bytes += sample.read_bytes
        if sample.changed_at is None:
            return
        if known:
            self._alarm = f"the block at {sample.changed_at} has changed although no changed area names it"
            self._opened = Opened(self._opened.key, None, f"{self._alarm}, so the areas can't be trusted")
        else:
            self._alarm = f"the block at {sample.changed_at} isn't zeros although no area in use names it"
            self._reader = PieceReader(self._source, None)

    def _stretches(self) -> Iterator[Stretch]:
        areas = sorted(self._request.changed_areas or (), key=lambda area: area.offset) if self._known else None
        return stretches(self._source.size_bytes, areas)

    def _considered_bytes(self) -> int:
        return sum(self._span(piece)[1] for stretch in self._stretches() for piece in stretch.pieces)

    def _tasks(self, executor: ThreadPoolExecutor) -> Iterator[_Task]:
        """The pieces in order, the next stretch's digests being asked for meanwhile."""
        ahead: deque[tuple[Stretch, Future[bytes]]] = deque()
        for stretch in self._stretches():
            ahead.append((stretch, executor.submit(self._end.haves, stretch.first, stretch.count)))
            if len(ahead) > 1:
                yield from _pieces(*ahead.popleft())
        for stretch, haves in ahead:
            yield from _pieces(stretch, haves)

    def _work(self, tasks: Iterator[_Task]) -> None:
        """Take pieces until there are none left or another thread has failed, and send what differs."""
        buffer = Buffer(PIECE_BLOCKS * BLOCK_BYTES)
        outbox: list[Packed] = []
        while True:
            self._await_run()
            with self._taking:
                task = next(tasks, None)
            if task is not None:
                outbox += self._compared(task, buffer)
            full = len(outbox) > BLOCKS_AT_ONCE - PIECE_BLOCKS or sum(len(one.data) for one in outbox) >= SEND_BYTES
            if outbox and (full or task is None):
                self._send(outbox)
                outbox = []
            if task is None:
                return

    def _compared(self, task: _Task, buffer: Buffer) -> list[Packed]:
        """The blocks of a piece that differ, ready to be sent."""
        started_s = time.monotonic()
        offset, length = self._span(task.piece)
        read_bytes = self._reader.read(offset, buffer.view[:length])
        read_s = time.monotonic() - started_s
        changed: list[Packed] = []
        zeros = equal = root = 0
        for number in range(task.piece.count):
            index, at = task.piece.first + number, number * BLOCK_BYTES
            block = buffer.view[at : at + block_length(self._source.size_bytes, index)]
            zero = read_bytes == 0 or buffer.begins_with(ZEROS[: len(block)], at)
            digest = ZERO if zero else digest_of(self._opened.key, block)
            have = task.haves[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
            root += share(index, digest) - (share(index, have) if self._known else 0)
            zeros += len(block) if zero else 0
            if digest == have:
                equal += 0 if zero else len(block)
            else:
                changed.append(self._end.packed(index, digest, block))
        with self._lock:
            self._root = moved_root(self._root, root)
            counters = self._counters
            counters.processed_bytes += length
            counters.read_bytes += read_bytes
            counters.zero_bytes += zeros
            counters.unchanged_bytes += equal
            counters.read_s += read_s
            counters.transform_s += time.monotonic() - started_s - read_s
        return changed

    def _send(self, blocks: Sequence[Packed]) -> None:
        sent = sum(len(block.data) for block in blocks)
        with self._leaving:  # each counts before the next asks: many at once would overdraw much
            self._await_leave()
            self._pacing.spend(sent)
        started_s = time.monotonic()
        with self._lock:
            self._sending += 1
        self._end.write(blocks)
        with self._lock:
            self._sending -= 1
            self._counters.stored_bytes += sent
            self._counters.deliver_s += time.monotonic() - started_s

    def _finish(self, configuration: Sequence[ConfigurationFile]) -> None:
        for file in configuration:
            self._end.keep_file(file.name, file.content)
        self._end.seal(Seal(self._request.session, self._request.run, root_bytes(self._root)))

    def _span(self, piece: Piece) -> tuple[int, int]:
        """Offset and length of a piece, in bytes."""
        offset = piece.first * BLOCK_BYTES
        return offset, min(piece.count * BLOCK_BYTES, self._source.size_bytes - offset)

    def _watch(self, futures: Sequence[Future[None]]) -> None:
        """Wait for threads, obey the control, and tell how far it is; raises what a thread raised."""
        waiting = set(futures)
        while waiting:
            self._verdict = self._control.verdict()
            if self._verdict is Verdict.STOP:
                raise self._stopped()
            done, waiting = wait(waiting, POLL_S, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            if self._effort is not None:
                self._effort.look(time.monotonic(), self._counters.transform_s, self._waiting)
            if time.monotonic() - self._reported_s >= REPORT_EVERY_S:
                self._reported_s = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        counters = self._counters
        self._control.report(
            DiskProgress(
                size_bytes=self._source.size_bytes,
                processed_bytes=counters.processed_bytes,
                read_bytes=counters.read_bytes,
                stored_bytes=counters.stored_bytes,
                rate=round(self._rate.rate(self._reported_s, counters.processed_bytes), 1),
                mode=self._source.mode,
                paused=self._verdict is Verdict.PAUSE,
            )
        )

    def _await_leave(self) -> None:
        """Wait until control and pacing let it send; raises `CancelledError` when they never will."""
        self._await_run()
        while not self._pacing.ready():
            time.sleep(POLL_S / 10)
            self._await_run()

    def _await_run(self) -> None:
        """Wait until the control lets it go on; raises `CancelledError` when that never will."""
        while (verdict := self._control.verdict()) is Verdict.PAUSE and self._verdict is not Verdict.STOP:
            time.sleep(POLL_S)
        if Verdict.STOP in {verdict, self._verdict}:
            raise self._stopped()

    def _stopped(self) -> CancelledError:
        return CancelledError(
            f"the replication of {self._name} was stopped",
            why="its run was cancelled, or its proxy hands its tasks back",
        )

    def _report(self, threads: int, duration_s: float) -> DiskReport:
        counters, request = self._counters, self._request
        stages = counters.stages()
        expected = request.changed_areas is not None
        return DiskReport(
            size_bytes=self._source.size_bytes,
            read_bytes=counters.read_bytes,
            zero_bytes=counters.zero_bytes,
            unchanged_bytes=counters.unchanged_bytes,
            duplicate_bytes=0,
            stored_bytes=counters.stored_bytes,
            duration_seconds=round(duration_s, 3),
            mode=self._source.mode,
            mode_reason=self._source.mode_reason,
            parent=request.parent if self._known else None,
            full_read_reason=(
                f"changed areas weren't used: {self._opened.why}"
                if expected and not self._known
                else "; ".join(filter(None, (request.full_read_reason, self._alarm))) or None
            ),
            alarm=self._alarm,
            bottleneck=name_bottleneck(stages, readers=threads, transformers=threads, mode=self._source.mode),
            stages=stages,
        )


def _pieces(stretch: Stretch, haves: Future[bytes]) -> Iterator[_Task]:
    digests = haves.result()
    for piece in stretch.pieces:
        at = (piece.first - stretch.first) * DIGEST_BYTES
        yield _Task(piece, digests[at : at + piece.count * DIGEST_BYTES])
