"""Which segments of a disk are stored, which of them are durable, and the state to resume from.

A checkpoint covers the segments from the disk's start whose packs and index fragments are durable. It is lazy:
packs become durable by themselves as they fill up, and are closed early only when the last checkpoint is old.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.mover.plan import ID_BYTES, Geometry
from proxy_worker.repository.writer import DiskWriter

FORCED_AFTER_S: Final = 60.0
"""The longest that stored segments wait for a checkpoint before the open pack is closed for their sake."""

_LOG = logging.getLogger(__name__)


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size_bytes: int
    block_size: int
    segments: bytes
    """The ids of the first segments, one after the other."""


class SegmentTrack:
    """The segment ids of one disk as they become known and durable."""

    def __init__(self, geometry: Geometry, writer: DiskWriter, resumed: list[bytes], *, now_s: float) -> None:
        self._geometry = geometry
        self._writer = writer
        self._ids: list[bytes | None] = [*resumed, *[None] * (geometry.segments - len(resumed))]
        self._marks: dict[int, int] = {}
        self._stored = len(resumed)
        self._durable = len(resumed)
        self._missing = geometry.segments - len(resumed)
        self._last_s = now_s
        self._forced = False

    @property
    def complete(self) -> bool:
        """Whether every segment has its id."""
        return self._missing == 0

    @property
    def ids(self) -> list[bytes]:
        """The ids of all segments; only when complete."""
        return [segment_id for segment_id in self._ids if segment_id is not None]

    def settle(self, index: int, segment_id: bytes) -> None:
        """A segment's id is known and everything it needs has been given to the writer."""
        self._ids[index] = segment_id
        self._marks[index] = self._writer.mark()
        self._missing -= 1
        while self._stored < len(self._ids) and self._ids[self._stored] is not None:
            self._stored += 1

    def due(self, now_s: float) -> str | None:
        """A sealed checkpoint, if there is more to say than in the last; closes the open pack when that is old."""
        durable_mark = self._writer.durable_mark
        durable = self._durable
        while durable < self._stored and self._marks.get(durable, 0) <= durable_mark:
            self._marks.pop(durable, None)
            durable += 1
        if durable > self._durable:
            self._durable = durable
            self._last_s = now_s
            self._forced = False
            return self._sealed()
        if self._stored > self._durable and not self._forced and now_s - self._last_s > FORCED_AFTER_S:
            self._writer.flush()
            self._forced = True
        return None

    def settle_all(self, timeout_s: float, *, now_s: float) -> str | None:
        """Wait at most that long for all stored to be durable; a checkpoint, if it says more than the last."""
        if self._stored > self._durable:
            self._writer.wait_durable(self._writer.mark(), timeout_s)
        return self.due(now_s)

    def _sealed(self) -> str:
        prefix = b"".join(segment_id for segment_id in self._ids[: self._durable] if segment_id is not None)
        state = _State(self._geometry.size_bytes, self._geometry.block_size, prefix)
        return self._writer.seal_checkpoint(msgspec.msgpack.encode(state))


def resume(writer: DiskWriter, geometry: Geometry, checkpoint: str | None) -> list[bytes]:
    """The ids of the segments that an earlier attempt has made durable.

    Empty, which means to start over, without a checkpoint, or when it is of a disk of another size or is damaged,
    or when some of what was durable has been found damaged since: the source still has it.
    """
    if checkpoint is None:
        return []
    try:
        state = msgspec.msgpack.decode(writer.open_checkpoint(checkpoint), type=_State)
    except (DamageError, msgspec.MsgspecError) as error:
        _LOG.warning("starting the disk over: its checkpoint can't be used: %s", error)
        return []
    if (state.size_bytes, state.block_size) != (geometry.size_bytes, geometry.block_size):
        _LOG.warning("starting the disk over: its size has changed since the checkpoint")
        return []
    ids = [state.segments[at : at + ID_BYTES] for at in range(0, len(state.segments), ID_BYTES)]
    if writer.misses(ids):
        _LOG.warning("starting the disk over: some of what its checkpoint relies on is damaged in the repository")
        return []
    return ids[: geometry.segments]
