"""A writer: one attempt at one disk."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.codec import Codec, Compressor
from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.delivery import PackDelivery
from proxy_worker.repository.index_run import IndexRun, group_digest
from proxy_worker.repository.keyring import ID_BYTES, OWNER_GROUP, ZERO_ID
from proxy_worker.repository.maps import DiskMap, is_zero_segment, load_map
from proxy_worker.repository.pack_layout import PACK_ID_BYTES, Chunk, ChunkKind, pack_name
from proxy_worker.repository.packs import BUFFER_BYTES, ClosedPack, PackWriter
from proxy_worker.repository.points import Point, StoredDisk, StoredFile, is_ended, load_outcome
from proxy_worker.repository.registration import Renewal, register_writer
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import Buffer, ObjectNotFoundError
from proxy_worker.repository.upkeep import keep_named, renew_packs

if TYPE_CHECKING:
    from proxy_worker.contract.figures import DiskReport

_REMEMBERED_IDS: Final = 1 << 16
"""Ids of published blocks that a writer keeps at hand; beyond, it finds its own in the index."""
_USABLE, _UNUSABLE = 1, 2
_MAP_COPIES: Final = 2


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How much a writer gathers; tests use small ones."""

    pack_bytes: int = 64 * 1024 * 1024
    pack_chunks: int = 4096
    packs_per_fragment: int = 8


@dataclass(frozen=True, slots=True)
class DiskAttempt:
    """Which run and disk a writer works for."""

    vm_id: str
    run: str
    disk_key: str
    fence: int

    def seal_name(self, what: str) -> str:
        """What checkpoints and results are bound to. Not to the fence: the next attempt takes up a checkpoint."""
        return f"{what}/{self.vm_id}/{self.run}/{self.disk_key}"


@dataclass(frozen=True, slots=True)
class ParentDisk:
    """The same disk in an earlier restore point, for comparing digests."""

    run: str
    size_bytes: int
    segments: tuple[bytes, ...]
    """Segment ids; 32 zero bytes stand for a segment of zeros."""


class _Checkpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    state: bytes
    packs: bytes


Sealed = TypeVar("Sealed", bound=msgspec.Struct)


class DiskWriter:
    """Stores one disk. `identify`, `has`, `compress`, `segment_ids` and `durable_mark` may be used from any number
    of threads at once; everything else from one thread at a time (the writer thread)."""

    def __init__(
        self,
        access: Access,
        chunks: ChunkReader,
        attempt: DiskAttempt,
        *,
        level: CompressionLevel,
        condemned: frozenset[bytes],
        lost: frozenset[bytes],
        limits: WriterLimits,
    ) -> None:
        """Packs that are `condemned`, or known to be damaged, are not named; what is `lost` has no other copy."""
        self.block_size = access.block_size
        self.blocks_per_segment = access.config.blocks_per_segment
        self.identify = access.keyring.block_id
        """`identify(block)`: its id, 32 bytes. Zero blocks are the caller's to spot: their id is `ZERO_ID`."""
        self.compressor = Compressor(level)
        self.compress = self.compressor.compress
        """`compress(block)`: (codec, data) as it will be stored, before sealing. Slow; releases the GIL."""
        self._store = access.store
        self._keyring = access.keyring
        self._sealer = access.sealer
        self._index = access.index
        self._encrypted = access.encrypted
        self._parity = access.parity
        self._chunks = chunks
        self._attempt = attempt
        mark = partial(register_writer, access.store, access.sealer, **asdict(attempt), renewed=True)
        self._at_work = Renewal(mark)
        self._metadata_compressor = Compressor(CompressionLevel.OPTIMAL)
        self._condemned = condemned
        self.lost = lost
        """Ids that a parent may name and that have to be stored anew all the same."""
        self._limits = limits
        group = access.keyring.identity.body.group
        self._groups = frozenset({group_digest(group), group_digest(OWNER_GROUP)})
        self._usable_packs: dict[IndexRun, bytearray] = {}
        self._used_packs: set[bytes] = set()
        self._resumed_packs: set[bytes] = set()
        self._inherited_packs: set[bytes] = set()
        self._unpublished: set[bytes] = set()
        self._published: set[bytes] = set()
        self._buffer = bytearray(max(BUFFER_BYTES, 2 * self.block_size))
        self._pack: PackWriter | None = None
        self._mark = 0
        self._delivered_bytes = 0
        self._fragment_bytes = 0
        self._delivery = PackDelivery(
            access.store,
            access.sealer,
            group=group,
            packs_per_fragment=limits.packs_per_fragment,
            published=self._note_published,
        )

    @property
    def stored_bytes(self) -> int:
        """Bytes added to the repository so far."""
        return self._delivered_bytes + self._fragment_bytes + (self._pack.size_bytes if self._pack else 0)

    def has(self, block_id: bytes) -> bool:
        """Whether the repository holds the block (or segment, or map), so that it may be named without being
        stored."""
        if block_id in self._unpublished or block_id in self._published:
            return True
        return any(self._may_use(run, number) for run in self._index.runs for number in run.pack_numbers(block_id))

    def store_block(self, block_id: bytes, codec: Codec, data: Buffer, plain_length: int) -> int:
        """Seal and append to the open pack; the bytes added, 0 if this writer has stored it before."""
        if block_id in self._unpublished or block_id in self._published:
            return 0
        stored = self._open_pack().add_block(block_id, codec, data, plain_length)
        self._enter(block_id)
        return stored

    def store_chunk(self, chunk: Chunk, key: SealedDataKey | None, stored: Buffer) -> None:
        """Append a block as another repository of the same keys has stored it, with its data key."""
        self._open_pack().add_stored(chunk, key, stored)
        self._enter(chunk.ids)

    def store_segment(self, ids: bytes) -> bytes:
        """Store the ids of consecutive blocks (32 bytes each, at most `blocks_per_segment`), return the
        segment's id."""
        if is_zero_segment(ids):
            return ZERO_ID
        if len(ids) % ID_BYTES or len(ids) > self.blocks_per_segment * ID_BYTES:
            raise ValueError("a segment is a list of at most blocks_per_segment ids")
        segment_id = self._keyring.segment_id(ids)
        self._store_metadata(ChunkKind.SEGMENT, segment_id, ids)
        return segment_id

    def parent(self, point: Point, disk_key: str) -> ParentDisk | None:
        """The disk in `point`, if that point still counts; None if it is gone, damaged, or has no such disk.

        The point is read again: only one that is there after this writer has registered is safe from collection.
        """
        try:
            current = load_outcome(self._store, self._sealer, point.vm_id, point.run)
            if not isinstance(current, Point) or is_ended(self._store, point.vm_id, point.run):
                return None
            disk = next((disk for disk in current.disks if disk.key == disk_key), None)
            disk_map = load_map(self._chunks, disk.map_id) if disk else None
        except DamageError:
            return None
        if disk_map is None or (disk_map.block_size, disk_map.blocks_per_segment) != (
            self.block_size,
            self.blocks_per_segment,
        ):
            return None
        self._inherited_packs.update(disk_map.packs)
        return ParentDisk(point.run, disk_map.size_bytes, disk_map.segments)

    def misses(self, segments: Sequence[bytes]) -> bool:
        """Whether segments of a parent, or blocks in them, are lost, so that all of the disk has to be read."""
        if not self.lost:
            return False
        for segment_id in segments:
            if segment_id == ZERO_ID:
                continue
            try:
                ids = self.segment_ids(segment_id)
            except DamageError:
                return True
            if any(ids[at : at + ID_BYTES] in self.lost for at in range(0, len(ids), ID_BYTES)):
                return True
        return False

    def segment_ids(self, segment_id: bytes) -> bytes:
        """The ids that a stored segment holds, e.g. a parent's."""
        return self._chunks.read_metadata(ChunkKind.SEGMENT, segment_id)

    def flush(self) -> None:
        """Close the open pack and publish everything stored, without waiting. Use it sparingly: packs get small."""
        self._close_pack()
        self._delivery.publish()

    def mark(self) -> int:
        """A number for everything stored so far; compare with `durable_mark`."""
        return self._mark

    @property
    def durable_mark(self) -> int:
        """Everything up to this mark is in durable packs and published fragments."""
        return self._delivery.durable_mark

    @property
    def delivery(self) -> PackDelivery:
        """What is on its way to the store."""
        return self._delivery

    def wait_durable(self, mark: int, timeout_s: float | None = None) -> bool:
        """Flush, and wait until `mark` is durable; False on timeout. Raises what went wrong in the background."""
        if self._delivery.durable_mark < mark and not (timeout_s and self._delivery.is_behind):
            self.flush()
        return self._delivery.wait(mark, timeout_s)

    def seal_checkpoint(self, state: bytes) -> str:
        """Seal the caller's resume state for the ledger, bound to repository, run and disk."""
        self._at_work.if_due()
        checkpoint = _Checkpoint(state, b"".join(sorted(self._used_packs | self._inherited_packs)))
        return self._seal("checkpoint", msgspec.msgpack.encode(checkpoint))

    def open_checkpoint(self, sealed: str) -> bytes:
        """The reverse, in a later attempt; raises `RepositoryDamageError` if it isn't this run's and disk's."""
        checkpoint = open_sealed(self._sealer, self._attempt.seal_name("checkpoint"), sealed, _Checkpoint)
        packs = checkpoint.packs
        self._resumed_packs.update(packs[at : at + PACK_ID_BYTES] for at in range(0, len(packs), PACK_ID_BYTES))
        self._inherited_packs |= self._resumed_packs
        return checkpoint.state

    def finish(
        self,
        *,
        size_bytes: int,
        segments: Sequence[bytes],
        report: DiskReport,
        source: str = "",
        configuration: Sequence[StoredFile] = (),
        go_on: Callable[[], None] = lambda: None,
    ) -> str:
        """Store the map, ask `go_on` until all is durable, and return the sealed result that a commit takes."""
        inherited = {pack for pack in self._inherited_packs if self._store.exists(pack_name(pack))}
        disk_map = DiskMap(
            size_bytes=size_bytes,
            block_size=self.block_size,
            blocks_per_segment=self.blocks_per_segment,
            segment_ids=b"".join(segments),
            pack_ids=b"".join(sorted(inherited | self._used_packs)),
        )
        encoded = msgspec.msgpack.encode(disk_map)
        map_id = self._keyring.map_id(encoded)
        self._store_metadata(ChunkKind.MAP, map_id, encoded)
        self.flush()
        self._delivery.outlast(self._mark, go_on)
        self._delivery.stop(abort=False)
        used = map(pack_name, sorted(self._used_packs | self._resumed_packs))
        renew_packs(self._store, used, self._parity)
        disk = StoredDisk(
            key=self._attempt.disk_key,
            size_bytes=size_bytes,
            map_id=map_id,
            fence=self._attempt.fence,
            stored_bytes=self.stored_bytes,
            parent=report.parent,
            source=source,
            report=report.model_dump_json(exclude_none=True),
            configuration=tuple(configuration),
        )
        return self._seal("result", msgspec.msgpack.encode(disk))

    def abort(self) -> None:
        """Drop the open pack and stop the background work. Idempotent; harmless after `finish`."""
        if self._pack:
            self._pack.discard()
            self._pack = None
        self._delivery.stop(abort=True)

    def __enter__(self) -> DiskWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _store_metadata(self, kind: ChunkKind, content_id: bytes, plain: bytes) -> None:
        if not self.has(content_id):
            # A map has no like elsewhere, since nobody else stores the same: a flipped bit would cost the point.
            for _ in range(_MAP_COPIES if kind == ChunkKind.MAP else 1):
                self._open_pack().add_metadata(kind, content_id, plain, self._metadata_compressor)
            self._enter(content_id)

    def _enter(self, content_id: bytes) -> None:
        self._unpublished.add(content_id)
        self._mark += 1
        pack = self._pack
        if pack and (pack.size_bytes >= self._limits.pack_bytes or pack.chunk_count >= self._limits.pack_chunks):
            self._close_pack()

    def _open_pack(self) -> PackWriter:
        if self._pack is None:
            self._delivery.raise_error()
            self._at_work.if_due()
            if len(self._published) > _REMEMBERED_IDS:
                self._index.refresh()
                self._published.clear()
                self._forget_replaced_runs()
            self._pack = PackWriter(
                self._store,
                self._keyring,
                self._sealer,
                encrypted=self._encrypted,
                parity=self._parity,
                buffer=self._buffer,
            )
            self._used_packs.add(self._pack.pack_id)
        return self._pack

    def _close_pack(self) -> None:
        if self._pack:
            closed = self._pack.close()
            self._pack = None
            self._delivered_bytes += closed.size_bytes
            self._delivery.submit(closed, self._mark)

    def _note_published(self, packs: list[ClosedPack], fragment_bytes: int) -> None:
        """Called by the delivery's thread. An id enters one set before it leaves the other."""
        for pack in packs:
            ids = [chunk.ids for chunk in pack.chunks]
            self._published.update(ids)
            self._unpublished.difference_update(ids)
        self._fragment_bytes += fragment_bytes

    def _may_use(self, run: IndexRun, number: int) -> bool:
        """Whether a pack is of a trusted group and, since this writer has registered, there and not condemned.

        What is named anew is locked for as long as a point will need that, at the least half a period.
        """
        known = self._usable_packs.get(run)
        if known is None:
            known = self._usable_packs.setdefault(run, bytearray(run.pack_count))
        if not known[number]:
            pack = run.pack(number)
            usable = (
                pack.group in self._groups
                and pack.pack_id not in self._condemned
                and self._whole(pack.name, pack.size_bytes)
            )
            known[number] = _USABLE if usable else _UNUSABLE
            if usable:
                keep_named(self._store, pack.name, self._parity)
                self._used_packs.add(pack.pack_id)
        return known[number] == _USABLE

    def _forget_replaced_runs(self) -> None:
        """Let go of runs that the index has merged away: each holds its file open, and the room it takes."""
        runs = self._index.runs
        self._usable_packs = {run: known for run, known in list(self._usable_packs.items()) if run in runs}

    def _whole(self, name: str, size_bytes: int) -> bool:
        try:
            return self._store.size(name) == size_bytes
        except ObjectNotFoundError:
            return False

    def _seal(self, what: str, plain: bytes) -> str:
        return base64.b64encode(self._sealer.seal(self._attempt.seal_name(what), plain)).decode()


def open_sealed(sealer: MetadataSealer, name: str, sealed: str, kind: type[Sealed]) -> Sealed:
    """The reverse of what checkpoints and results are sealed with; raises `RepositoryDamageError`."""
    try:
        data = base64.b64decode(sealed, validate=True)
    except ValueError as error:
        raise sealer.damage(name, "it is not base64") from error
    if base64.b64encode(data).decode() != sealed:
        raise sealer.damage(name, "it is not in the form it was written in")
    try:
        return msgspec.msgpack.decode(sealer.open(name, data), type=kind)
    except msgspec.MsgspecError as error:
        raise sealer.damage(name, f"this version can't read it: {error}") from error
