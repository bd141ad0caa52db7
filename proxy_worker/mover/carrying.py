"""Copying a disk to a twin of its repository: what the twin lacks goes over as it is stored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.errors import CancelledError, DamageError, StoreError
from proxy_worker.contract.figures import DiskProgress, DiskReport
from proxy_worker.contract.names import TransportMode
from proxy_worker.mover.backup import SETTLE_S
from proxy_worker.mover.control import Control, Verdict, stopped
from proxy_worker.mover.pacing import Pacing, left_to_mover
from proxy_worker.mover.plan import ID_BYTES, ZERO_ID
from proxy_worker.mover.point_source import damaged_original
from proxy_worker.mover.statistics import RateMeter
from proxy_worker.repository.carrying import Carrier
from proxy_worker.repository.maps import DiskMap
from proxy_worker.repository.points import StoredDisk
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.writer import DiskWriter

_POLL_S: Final = 0.2
_REPORT_EVERY_S: Final = 1.0
_BLOCKS_AT_ONCE: Final = 64
"""Between two looks at the control."""


@dataclass
class _Figures:
    zero_bytes: int = 0
    known_bytes: int = 0
    processed_bytes: int = 0
    rate: RateMeter = field(default_factory=RateMeter)
    reported_s: float = field(default_factory=time.monotonic)


def carry_disk(
    source: Repository,
    target: Repository,
    reader: PointReader,
    disk: StoredDisk,
    *,
    run: str,
    fence: int,
    described: str,
    control: Control,
    pacing: Pacing,
) -> DiskBackupResult:
    """Carry over what `target` lacks of a disk of the reader's point; `described` says for people what this is.

    Raises `DamagedOriginalError`, `CannotReadError`, `StoreError`, and `CancelledError` when the control says stop.
    """
    started_s = time.monotonic()
    with target.begin_disk(vm_id=reader.point.vm_id, run=run, disk_key=disk.key, fence=fence) as writer:
        carrier = Carrier(source, target, writer)
        work = _Carrying(
            reader, writer, carrier, disk, control=control, pacing=left_to_mover(pacing, target.access.store)
        )
        try:
            segments = work.run()
        except (DamageError, CancelledError):
            with contextlib.suppress(StoreError):  # what ended the copy is the error to show
                writer.wait_durable(writer.mark(), SETTLE_S)  # so that the next one finds what this one stored
            raise
        report = DiskReport(
            size_bytes=disk.size_bytes,
            read_bytes=carrier.read_bytes,
            zero_bytes=work.figures.zero_bytes,
            unchanged_bytes=0,
            duplicate_bytes=work.figures.known_bytes,
            stored_bytes=writer.stored_bytes,
            duration_seconds=round(time.monotonic() - started_s, 3),
            mode=TransportMode.DIRECT_STORAGE,
            mode_reason=described,
        )
        result = writer.finish(
            size_bytes=disk.size_bytes,
            segments=segments,
            report=report,
            source=disk.source,
            configuration=disk.configuration,
            go_on=work.go_on,
        )
        report = report.model_copy(update={"stored_bytes": writer.stored_bytes})
        return DiskBackupResult(report=report, sealed_result=result)


class _Carrying:
    def __init__(
        self,
        reader: PointReader,
        writer: DiskWriter,
        carrier: Carrier,
        disk: StoredDisk,
        *,
        control: Control,
        pacing: Pacing,
    ) -> None:
        self.figures = _Figures()
        self._reader = reader
        self._writer = writer
        self._carrier = carrier
        self._disk = disk
        self._control = control
        self._pacing = pacing

    def run(self) -> list[bytes]:
        """Carry everything over; the segments' ids, which are the same in both."""
        disk_map = self._reader.map(self._disk.key)
        for file in self._disk.configuration:
            self._carry_all(file.block_ids, disk_map, f"file {file.name}")
        return [self._carry_segment(disk_map, number, known) for number, known in enumerate(disk_map.segments)]

    def _carry_segment(self, disk_map: DiskMap, number: int, segment_id: bytes) -> bytes:
        first = number * disk_map.blocks_per_segment * disk_map.block_size
        length = min(disk_map.blocks_per_segment * disk_map.block_size, disk_map.size_bytes - first)
        if segment_id == ZERO_ID:
            self.figures.zero_bytes += length
        else:
            ids = self._reader.segment_ids(segment_id)
            blocks = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
            if len(blocks) != disk_map.block_count(number):
                raise damaged_original(self._reader.point, self._disk.key, f"segment {number}", "it isn't whole")
            for at in range(0, len(blocks), _BLOCKS_AT_ONCE):
                self._obey()
                piece = blocks[at : at + _BLOCKS_AT_ONCE]
                stored_bytes = self._writer.stored_bytes
                self._carry_all(piece, disk_map, f"{first + at * disk_map.block_size}")
                self._pacing.spend(self._writer.stored_bytes - stored_bytes)
                done = min(length, (at + len(piece)) * disk_map.block_size)
                self._tell(self.figures.processed_bytes + done)
            if self._writer.store_segment(ids) != segment_id:
                raise damaged_original(self._reader.point, self._disk.key, f"segment {number}", "it is another one")
        self.figures.processed_bytes += length
        return segment_id

    def _carry_all(self, blocks: Iterable[bytes], disk_map: DiskMap, where: str) -> None:
        for block_id in blocks:
            if block_id == ZERO_ID:
                self.figures.zero_bytes += disk_map.block_size
            elif self._writer.has(block_id):
                self.figures.known_bytes += disk_map.block_size
            else:
                try:
                    self._carrier.carry(block_id)
                except DamageError as error:
                    raise damaged_original(self._reader.point, self._disk.key, where, str(error)) from error

    def go_on(self) -> None:
        """What is left is the store's to do, which may be slow: stop waiting for it when the control says so."""
        if self._control.verdict() is Verdict.STOP:
            raise stopped()
        self._tell(self.figures.processed_bytes)

    def _obey(self) -> None:
        while (
            (verdict := self._control.verdict()) is not Verdict.RUN
            or not self._pacing.ready()
            or self._writer.delivery.is_behind
        ):
            if verdict is Verdict.STOP:
                raise stopped()
            time.sleep(_POLL_S)

    def _tell(self, processed_bytes: int) -> None:
        now_s = time.monotonic()
        if now_s - self.figures.reported_s < _REPORT_EVERY_S:
            return
        self.figures.reported_s = now_s
        self._control.report(
            DiskProgress(
                size_bytes=self._disk.size_bytes,
                processed_bytes=processed_bytes,
                read_bytes=self._carrier.read_bytes,
                stored_bytes=self._writer.stored_bytes,
                rate=round(self.figures.rate.rate(now_s, processed_bytes), 1),
                mode=TransportMode.DIRECT_STORAGE,
            )
        )
