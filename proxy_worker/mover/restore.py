"""Write one disk of a restore point to a file, a block device or a VM's disk, every block verified."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.contract.disks import DiskRestore, DiskRestoreResult
from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.mover.buffers import Buffer
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.mover.pacing import Pacing
from proxy_worker.mover.pipeline import transform_threads
from proxy_worker.mover.plan import ID_BYTES, ZERO_ID, Geometry
from proxy_worker.mover.statistics import Counters, RateMeter, name_bottleneck
from proxy_worker.mover.target import RestoreTarget, Target, TargetFullError
from proxy_worker.mover.vm_disk import AreaMap, DiskTarget, target_name
from proxy_worker.repository.errors import RepositoryDamageError
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.tally import RequestMeter
from proxy_worker.transport.writing import DiskSink, NoRoomError

POLL_S: Final = 0.2
REPORT_EVERY_S: Final = 1.0
RUN_BYTES: Final = 4 << 20
"""Neighbouring blocks that are read from the repository at once, unless one block is larger."""
WRITERS_WAITING: Final = 2
"""Threads beyond one for each core: as many may wait for the target's disk while the cores work."""
ZEROS_BYTES: Final = 64 << 20
"""Zeros of a device that are written in one go."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring blocks to write: their ids, or none for zeros."""

    offset: int
    length: int
    ids: tuple[bytes, ...]


def restore_disk(
    repository: Repository,
    request: DiskRestore,
    control: Control,
    sink: DiskSink | None = None,
    pacing: Pacing | None = None,
) -> DiskRestoreResult:
    """Restore a disk of a point to `request.target_path`, or to `sink`, which is open, for `request.target`.

    A file appears under its name only when it is complete. What is read of the repository keeps to `pacing`.
    Raises `PointNotFoundError`, `DamageError`, `StoreError`, `TargetError`, `ConflictError`, `CredentialError`
    with a write key, and `CancelledError` when the control says stop.
    """
    meter = RequestMeter(repository.access.store)
    point = repository.point(request.vm.vm_id, request.run)
    stored = point.disk(request.disk_key)
    with repository.reader(point) as reader:
        if sink is not None:
            disk = DiskTarget(sink, target_name(request), stored.size_bytes, blank=request.target_is_blank)
            report = _Restore(reader, request, disk, control, pacing).run()
            return DiskRestoreResult(report=_with_requests(report, meter), target_path=disk.name)
        path = Path(request.target_path or "")
        with Target(path, stored.size_bytes, overwrite=request.overwrite) as target:
            report = _Restore(reader, request, target, control, pacing).run()
    return DiskRestoreResult(report=_with_requests(report, meter), target_path=str(path))


def _with_requests(report: DiskReport, meter: RequestMeter) -> DiskReport:
    return report.model_copy(update={"requests": meter.read()})


class _Restore:
    """The runs of a disk, written by a thread for each core; the caller's thread watches them."""

    def __init__(
        self,
        reader: PointReader,
        request: DiskRestore,
        target: RestoreTarget,
        control: Control,
        pacing: Pacing | None,
    ) -> None:
        self._reader = reader
        self._request = request
        self._target = target
        self._control = control
        self._pacing = pacing or Pacing()
        disk_map = reader.map(request.disk_key)
        self._map = disk_map
        self._geometry = Geometry(disk_map.size_bytes, disk_map.block_size, disk_map.blocks_per_segment)
        self._segments = disk_map.segments
        self._wanted = AreaMap(request.changed_areas)
        self._runs = iter(self._plan())
        self._lock = threading.Lock()
        self._counters = Counters()
        self._verdict = Verdict.RUN
        self._released = threading.Event()
        self._released.set()
        self._rate = RateMeter()

    def run(self) -> DiskReport:
        """Write everything, then make it durable and give it its name."""
        started_s = time.monotonic()
        threads = transform_threads() + WRITERS_WAITING
        executor = ThreadPoolExecutor(threads, thread_name_prefix="restore")
        workers = [executor.submit(self._work) for _ in range(threads)]
        try:
            self._watch(workers)
        finally:
            self._verdict = Verdict.STOP
            self._released.set()
            executor.shutdown()
        synced_s = time.monotonic()
        self._target.finish()
        self._counters.deliver_s += time.monotonic() - synced_s
        return self._report(threads, time.monotonic() - started_s)

    def _watch(self, workers: list[Future[None]]) -> None:
        reported_s = time.monotonic()
        waiting = set(workers)
        while waiting:
            self._obey()
            done, waiting = wait(waiting, POLL_S, return_when=FIRST_EXCEPTION)
            try:
                for worker in done:
                    worker.result()
            except (TargetFullError, NoRoomError) as error:
                raise self._target.full(self._missing_bytes()) from error
            if time.monotonic() - reported_s >= REPORT_EVERY_S:
                reported_s = time.monotonic()
                self._tell(reported_s)

    def _obey(self) -> None:
        self._verdict = self._control.verdict()
        if self._verdict is Verdict.STOP:
            raise self._stopped()
        if self._verdict is Verdict.PAUSE:
            self._released.clear()
        else:
            self._released.set()

    def _tell(self, now_s: float) -> None:
        counters = self._counters
        self._control.report(
            DiskProgress(
                size_bytes=self._geometry.size_bytes,
                processed_bytes=counters.processed_bytes,
                read_bytes=counters.read_bytes,
                stored_bytes=counters.stored_bytes,
                rate=round(self._rate.rate(now_s, counters.processed_bytes), 1),
                paused=self._verdict is Verdict.PAUSE,
            )
        )

    def _work(self) -> None:
        """Take runs and write them, until there are none left or another thread has failed."""
        buffer = Buffer(max(RUN_BYTES, self._geometry.block_size)).view
        while True:
            self._released.wait()
            if self._verdict is Verdict.STOP:
                return
            with self._lock:
                run = next(self._runs, None)
            if run is None:
                return
            started_s = time.monotonic()
            if run.ids:
                view = buffer[: run.length]
                read_bytes = self._reader.read_blocks_into(run.ids, view)
                self._pacing.spend(read_bytes)
                read_s = time.monotonic() - started_s
                self._await_leave()
                self._target.write(run.offset, view)
                self._count(run, read_bytes, read_s, time.monotonic() - started_s - read_s)
                continue
            self._await_leave()
            self._target.zero(run.offset, run.length)
            self._count(run, 0, 0.0, time.monotonic() - started_s)

    def _await_leave(self) -> None:
        """Wait until control and pacing let it write; raises `CancelledError` when it says stop.

        Asked again right before each write: a machine that was suspended may wake up here without its lease. An
        error, so that a run that was left out is never taken for one that is written.
        """
        while (verdict := self._control.verdict()) is not Verdict.RUN or not self._pacing.ready():
            if verdict is Verdict.STOP or self._verdict is Verdict.STOP:
                raise self._stopped()
            time.sleep(POLL_S)

    def _stopped(self) -> CancelledError:
        return CancelledError(f"the restore to {self._target.name} was stopped", why="its run was cancelled")

    def _count(self, run: _Run, read_bytes: int, read_s: float, write_s: float) -> None:
        with self._lock:
            counters = self._counters
            counters.processed_bytes += run.length
            counters.read_bytes += read_bytes
            counters.read_s += read_s
            counters.deliver_s += write_s
            if run.ids:
                counters.stored_bytes += run.length
            else:
                counters.zero_bytes += run.length
                counters.stored_bytes += run.length if self._target.writes_zeros else 0

    def _plan(self) -> Iterator[_Run]:
        """The runs of data and of zeros that are to be written, in order."""
        for run in self._all_runs():
            if self._wanted.everything:
                yield run
            else:
                yield from self._wanted_of(run)

    def _wanted_of(self, run: _Run) -> Iterator[_Run]:
        """The blocks of a run that changed areas touch, neighbours together."""
        size = self._geometry.block_size
        blocks = -(-run.length // size)
        at = 0
        while at < blocks:
            end = at
            while end < blocks and self._wanted.touches(run.offset + end * size, size):
                end += 1
            if end > at:
                length = min(end * size, run.length) - at * size
                yield _Run(run.offset + at * size, length, run.ids[at:end])
            at = end + 1

    def _all_runs(self) -> Iterator[_Run]:
        """The disk's runs of data and of zeros, in order."""
        geometry = self._geometry
        longest = max(1, RUN_BYTES // geometry.block_size)
        longest_zeros = max(1, ZEROS_BYTES // geometry.block_size)
        for index, segment_id in enumerate(self._segments):
            first = index * geometry.blocks_per_segment
            if segment_id == ZERO_ID:
                blocks = -(-geometry.segment_length(index) // geometry.block_size)
                for at in range(0, blocks, longest_zeros):
                    length = geometry.span(first + at, min(longest_zeros, blocks - at))
                    yield _Run((first + at) * geometry.block_size, length, ())
                continue
            ids = self._reader.segment_ids(segment_id)
            blocks = self._map.block_count(index)
            if len(ids) != blocks * ID_BYTES:
                raise RepositoryDamageError(
                    f"segment {segment_id.hex()}",
                    why=f"it has {len(ids) // ID_BYTES} blocks, the disk {blocks} there",
                )
            at = 0
            while at < blocks:
                is_zero = ids[at * ID_BYTES : (at + 1) * ID_BYTES] == ZERO_ID
                limit = min(blocks, at + (longest_zeros if is_zero else longest))
                end = at + 1
                while end < limit and (ids[end * ID_BYTES : (end + 1) * ID_BYTES] == ZERO_ID) == is_zero:
                    end += 1
                span = geometry.span(first + at, end - at)
                named = () if is_zero else tuple(ids[i * ID_BYTES : (i + 1) * ID_BYTES] for i in range(at, end))
                yield _Run((first + at) * geometry.block_size, span, named)
                at = end

    def _missing_bytes(self) -> int:
        """What is still to be written, after the target has refused to take more."""
        written = self._counters.stored_bytes
        total = sum(run.length for run in self._plan() if run.ids or self._target.writes_zeros)
        return total - written

    def _report(self, threads: int, duration_s: float) -> DiskReport:
        stages = self._counters.stages()
        mode = self._target.mode
        return DiskReport(
            size_bytes=self._geometry.size_bytes,
            read_bytes=self._counters.read_bytes,
            zero_bytes=self._counters.zero_bytes,
            unchanged_bytes=self._geometry.size_bytes - self._counters.processed_bytes,
            duplicate_bytes=0,
            stored_bytes=self._counters.stored_bytes,
            duration_seconds=round(duration_s, 3),
            mode=mode,
            mode_reason=self._target.mode_reason,
            parent=self._request.run,
            full_read_reason=self._request.full_write_reason,
            bottleneck=name_bottleneck(stages, readers=threads, transformers=threads, mode=mode),
            stages=stages,
        )
