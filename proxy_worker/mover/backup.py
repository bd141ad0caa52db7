"""Back up one disk: choose what to compare it with, run the pipeline, store what comes out, checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final

from proxy_worker.contract.disks import DiskBackup, DiskBackupResult
from proxy_worker.contract.errors import DamageError, SourceError, StoreError
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.mover.buffers import batch_blocks
from proxy_worker.mover.checkpoint import SegmentTrack, resume
from proxy_worker.mover.configuration import ConfigurationFile, store_configuration
from proxy_worker.mover.control import Control, Verdict, stopped
from proxy_worker.mover.effort import Effort
from proxy_worker.mover.pacing import Pacing, left_to_mover
from proxy_worker.mover.parent import Comparison, choose_comparison
from proxy_worker.mover.pipeline import Outcome, Pipeline
from proxy_worker.mover.plan import Geometry, Plan, Segment, within
from proxy_worker.mover.statistics import Counters, RateMeter, name_bottleneck
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.tally import RequestMeter
from proxy_worker.repository.writer import DiskWriter
from proxy_worker.transport.source import DiskSource

POLL_S: Final = 0.2
"""How long a silent pipeline or a pause keeps the control unasked."""
REPORT_EVERY_S: Final = 1.0
SETTLE_S: Final = 10.0
"""How long a stop waits for stored data to become durable."""


def back_up_disk(
    source: DiskSource,
    repository: Repository,
    request: DiskBackup,
    *,
    fence: int,
    checkpoint: str | None = None,
    control: Control,
    configuration: Sequence[ConfigurationFile] = (),
    pacing: Pacing | None = None,
) -> DiskBackupResult:
    """Store what the repository lacks of `source` and return the sealed result that a commit takes.

    `checkpoint` continues an earlier attempt of the same run. `configuration` are the VM's files to keep beside
    this disk. What is stored keeps to `pacing`.

    Raises `SourceError`, `StoreError`, `DamageError`, and `CancelledError` when the control says stop.
    """
    started_s = time.monotonic()
    meter = RequestMeter(repository.access.store)
    with repository.begin_disk(
        vm_id=request.vm.vm_id, run=request.run, disk_key=request.disk.key, fence=fence, level=request.level
    ) as writer:
        geometry = Geometry(source.size_bytes, writer.block_size, writer.blocks_per_segment)
        resumed = resume(writer, geometry, checkpoint)
        comparison = choose_comparison(repository, writer, source, request, geometry, control=control)
        in_use = comparison.in_use
        plan = Plan(
            geometry,
            source.allocated if in_use is None else within(source.allocated, in_use, geometry.block_size),
            batch_blocks=batch_blocks(writer.block_size),
            parent=comparison.parent,
            changed=comparison.changed,
            first_segment=len(resumed),
        )
        with Pipeline(source, writer, plan, geometry) as pipeline:
            delivery = _Delivery(
                source=source,
                writer=writer,
                pipeline=pipeline,
                geometry=geometry,
                control=control,
                pacing=left_to_mover(pacing or Pacing(), repository.access.store),
                effort=Effort(writer.compressor, request.level, pipeline.transformers, now_s=time.monotonic()),
                comparison=comparison,
                resumed=resumed,
                meter=meter,
            )
            delivery.run()
        files = store_configuration(writer, configuration)
        result = writer.finish(
            size_bytes=geometry.size_bytes,
            segments=delivery.track.ids,
            report=delivery.report(time.monotonic() - started_s),
            source=request.disk.address.model_dump_json(
                exclude_none=True, exclude={"vsphere": {"vcenter": {"authorities"}}}
            ),
            configuration=files,
            go_on=delivery.go_on,
        )
        return DiskBackupResult(report=delivery.report(time.monotonic() - started_s), sealed_result=result)


class _Delivery:
    """The end of the pipeline, in the caller's thread: the only one that stores."""

    def __init__(
        self,
        *,
        source: DiskSource,
        writer: DiskWriter,
        pipeline: Pipeline,
        geometry: Geometry,
        control: Control,
        pacing: Pacing,
        effort: Effort,
        comparison: Comparison,
        resumed: list[bytes],
        meter: RequestMeter,
    ) -> None:
        self._source = source
        self._writer = writer
        self._pipeline = pipeline
        self._geometry = geometry
        self._control = control
        self._pacing = pacing
        self._effort = effort
        self._comparison = comparison
        self._meter = meter
        now_s = time.monotonic()
        self.track = SegmentTrack(geometry, writer, resumed, now_s=now_s)
        self._counters = Counters(resumed_bytes=sum(map(geometry.segment_length, range(len(resumed)))))
        self._counters.processed_bytes = self._counters.resumed_bytes
        self._counters.read_bytes = comparison.sampled_bytes
        self._rate = RateMeter()
        self._reported_s = now_s

    def run(self) -> None:
        """Deliver until every segment has its id."""
        try:
            while not self.track.complete:
                self._obey()
                outcome = self._pipeline.take(POLL_S)
                if outcome is not None:
                    started_s = time.monotonic()
                    stored_bytes = self._writer.stored_bytes
                    self._deliver(outcome)
                    self._counters.deliver_s += time.monotonic() - started_s
                    self._pacing.spend(self._writer.stored_bytes - stored_bytes)
                    waiting = self._writer.delivery.waiting
                    self._effort.look(time.monotonic(), self._counters.transform_s, waiting)
                self._tell()
            while not self._writer.delivery.caught_up(POLL_S):
                self._obey()
                self._tell()
        except (SourceError, DamageError):
            with contextlib.suppress(StoreError):  # what ended the reading is the error to show
                self._settle()  # so that the next attempt goes on from here
            raise

    def report(self, duration_s: float) -> DiskReport:
        """The task in figures, so far."""
        counters = self._counters
        stages = counters.stages()
        mode = self._source.mode
        return DiskReport(
            size_bytes=self._geometry.size_bytes,
            read_bytes=counters.read_bytes,
            zero_bytes=counters.zero_bytes,
            unchanged_bytes=counters.unchanged_bytes,
            duplicate_bytes=counters.duplicate_bytes,
            stored_bytes=self._writer.stored_bytes,
            duration_seconds=round(duration_s, 3),
            mode=mode,
            mode_reason=self._source.mode_reason,
            parent=self._comparison.run,
            full_read_reason=self._full_read_reason(),
            alarm=self._comparison.alarm,
            bottleneck=name_bottleneck(
                stages, readers=self._pipeline.readers, transformers=self._pipeline.transformers, mode=mode
            ),
            stages=stages,
            resumed_bytes=counters.resumed_bytes,
            requests=self._meter.read(),
        )

    def _full_read_reason(self) -> str | None:
        parent = self._comparison.parent
        if parent is not None and parent.damage:
            return (
                f"{len(parent.damage)} segments of the parent can't be read, the first because: {parent.damage[0]}"
            )
        return self._comparison.full_read_reason

    def _deliver(self, outcome: Outcome) -> None:
        counters, segment = self._counters, outcome.segment
        for block in outcome.new:
            if not self._writer.store_block(block.block_id, block.codec, block.data, block.plain_length):
                counters.duplicate_bytes += block.plain_length
        if outcome.batch is not None:
            counters.processed_bytes += outcome.batch.length
            counters.read_bytes += outcome.batch.length
            counters.zero_bytes += outcome.zero_bytes
            counters.unchanged_bytes += outcome.unchanged_bytes
            counters.duplicate_bytes += outcome.duplicate_bytes
            counters.read_s += outcome.buffer.read_s
            counters.transform_s += outcome.transform_s
            segment.unread_blocks -= outcome.blocks
        outcome.new.clear()  # its blocks may lie in the buffer, which is about to be filled again
        self._pipeline.give_back(outcome.buffer)
        if segment.unread_blocks == 0:
            self._complete(segment)

    def _complete(self, segment: Segment) -> None:
        counters = self._counters
        counters.processed_bytes += segment.zero_bytes + segment.unchanged_bytes
        counters.zero_bytes += segment.zero_bytes
        counters.unchanged_bytes += segment.unchanged_bytes
        segment_id = segment.known_id
        if segment_id is None:
            ids, parent = bytes(segment.ids), self._comparison.parent
            if parent is not None and ids == segment.parent_ids:
                segment_id = parent.segments[segment.index]
            else:
                segment_id = self._writer.store_segment(ids)
        self.track.settle(segment.index, segment_id)

    def _obey(self) -> None:
        """Wait as long as anything says so; over a slow link that may be for minutes."""
        while (
            (verdict := self._control.verdict()) is not Verdict.RUN
            or not self._pacing.ready()
            or self._writer.delivery.is_behind
        ):
            if verdict is Verdict.STOP:
                self._settle()
                raise stopped()
            self._tell(paused=verdict is Verdict.PAUSE)
            time.sleep(POLL_S)
            if verdict is Verdict.RUN:
                self._counters.deliver_s += POLL_S  # whatever limits the way there makes the target slow

    def go_on(self) -> None:
        """What is left is the store's to do, which may be slow: stop waiting for it when the control says so."""
        if self._control.verdict() is Verdict.STOP:
            self._settle()
            raise stopped()
        self._report(time.monotonic())

    def _settle(self) -> None:
        sealed = self.track.settle_all(SETTLE_S, now_s=time.monotonic())
        if sealed is not None:
            self._control.checkpoint(sealed)

    def _tell(self, *, paused: bool = False) -> None:
        now_s = time.monotonic()
        if not paused:
            sealed = self.track.due(now_s)
            if sealed is not None:
                self._control.checkpoint(sealed)
        self._report(now_s, paused=paused)

    def _report(self, now_s: float, *, paused: bool = False) -> None:
        if now_s - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            self._control.report(
                DiskProgress(
                    size_bytes=self._geometry.size_bytes,
                    processed_bytes=self._counters.processed_bytes,
                    read_bytes=self._counters.read_bytes,
                    stored_bytes=self._writer.stored_bytes,
                    rate=round(self._rate.rate(now_s, self._counters.processed_bytes), 1),
                    mode=self._source.mode,
                    paused=paused,
                )
            )
