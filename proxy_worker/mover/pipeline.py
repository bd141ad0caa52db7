"""The threads between a source and the delivery: readers fill buffers, transformers make blocks of them.

    free buffers -> reader -> filled -> transformer -> done -> the caller, who gives the buffer back

A buffer belongs to one stage at a time and there is a fixed number of them, so every queue is bounded without
counting. The first error of any thread comes out where the caller takes results.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self

from proxy_worker.mover.buffers import Buffer, batch_blocks, buffer_count
from proxy_worker.mover.plan import ID_BYTES, Batch, Geometry, Plan, Segment
from proxy_worker.repository.codec import Codec
from proxy_worker.repository.store import Buffer as Bytes
from proxy_worker.repository.writer import DiskWriter
from proxy_worker.transport.source import DiskSource

JOIN_S: Final = 5.0
"""How long a reader may take to return before its source is closed under it."""


@dataclass(frozen=True, slots=True)
class NewBlock:
    """A block to store. `data` may lie in the batch's buffer: store it before the buffer is given back."""

    block_id: bytes
    codec: Codec
    data: Bytes
    plain_length: int


@dataclass(slots=True)
class Outcome:
    """What became of a batch, or a segment that needed no reading (`batch` None)."""

    segment: Segment
    buffer: Buffer
    batch: Batch | None = None
    blocks: int = 0
    new: list[NewBlock] = field(default_factory=list)
    zero_bytes: int = 0
    unchanged_bytes: int = 0
    duplicate_bytes: int = 0
    transform_s: float = 0.0


def transform_threads() -> int:
    """One for each core this process may use."""
    return len(os.sched_getaffinity(0))


class Pipeline:
    """Runs a plan. Take results with `take`, give each one's buffer back with `give_back`; close it when done."""

    def __init__(self, source: DiskSource, writer: DiskWriter, plan: Plan, geometry: Geometry) -> None:
        self._source = source
        self._writer = writer
        self._plan = iter(plan)
        self._plan_lock = threading.Lock()
        self._block_size = geometry.block_size
        self._stopping = False
        self._free: SimpleQueue[Buffer | None] = SimpleQueue()
        self._filled: SimpleQueue[tuple[Batch, Buffer] | None] = SimpleQueue()
        self._done: SimpleQueue[Outcome | BaseException] = SimpleQueue()
        size = batch_blocks(geometry.block_size) * geometry.block_size
        self.readers = max(1, source.parallel_reads)
        for _ in range(buffer_count(geometry.block_size, self.readers)):
            self._free.put(Buffer(size))
        self.transformers = transform_threads()
        self._threads = ThreadPoolExecutor(self.readers + self.transformers, thread_name_prefix="mover")
        self._reading: list[Future[None]] = []

    def take(self, timeout_s: float) -> Outcome | None:
        """The next result, in no particular order; None if none came in time. Raises a thread's error."""
        try:
            outcome = self._done.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def give_back(self, buffer: Buffer) -> None:
        """Let a buffer be filled again."""
        self._free.put(buffer)

    def close(self) -> None:
        """Stop the threads, wherever they are. Idempotent."""
        self._stopping = True
        for _ in range(self.readers):
            self._free.put(None)
        if wait(self._reading, JOIN_S).not_done:
            self._source.close()  # makes a call that hangs fail
        for _ in range(self.transformers):
            self._filled.put(None)
        self._threads.shutdown()

    def __enter__(self) -> Self:
        try:
            self._reading = [self._start(self._read) for _ in range(self.readers)]
            for _ in range(self.transformers):
                self._start(self._transform)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: Callable[[], None]) -> Future[None]:
        """Run `work` in a thread; what it raises comes out of `take`."""
        future = self._threads.submit(work)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._done.put(error)

    def _read(self) -> None:
        while not self._stopping:
            buffer = self._free.get()
            if buffer is None:
                return
            with self._plan_lock:
                piece = next(self._plan, None)
            if piece is None:
                self._free.put(buffer)
                return
            if isinstance(piece, Segment):
                self._done.put(Outcome(piece, buffer))
                continue
            started = time.monotonic()
            self._source.read_into(piece.offset, buffer.view[: piece.length])
            buffer.read_s = time.monotonic() - started
            self._filled.put((piece, buffer))

    def _transform(self) -> None:
        block_size = self._block_size
        zeros = bytes(block_size)
        writer = self._writer
        while (filled := self._filled.get()) is not None:
            if self._stopping:
                continue
            started = time.monotonic()
            batch, buffer = filled
            segment = batch.segment
            outcome = Outcome(segment, buffer, batch)
            known_ids = segment.parent_ids or b""
            at = batch.first * ID_BYTES
            for offset in range(0, batch.length, block_size):
                length = min(block_size, batch.length - offset)
                outcome.blocks += 1
                if buffer.begins_with(zeros if length == block_size else zeros[:length], offset):
                    outcome.zero_bytes += length
                    at += ID_BYTES
                    continue
                block = buffer.view[offset : offset + length]
                block_id = writer.identify(block)
                segment.ids[at : at + ID_BYTES] = block_id
                if known_ids[at : at + ID_BYTES] == block_id and block_id not in writer.lost:
                    outcome.unchanged_bytes += length
                elif writer.has(block_id):
                    outcome.duplicate_bytes += length
                else:
                    codec, data = writer.compress(block)
                    outcome.new.append(NewBlock(block_id, codec, data, length))
                at += ID_BYTES
            outcome.transform_s = time.monotonic() - started
            self._done.put(outcome)
