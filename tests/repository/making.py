"""Small repositories and disks for the tests, and the steps of a backup without a data mover."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import CompressionLevel, TransportMode
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.passphrases import KdfCost
from proxy_worker.repository.points import Point, StoredFile
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.writer import DiskWriter, WriterLimits

PASSPHRASE = b"a passphrase of some length"
CREDENTIAL = Credential(passphrase=PASSPHRASE)
CHEAP = KdfCost(iterations=1, memory_kib=64, lanes=1)
BLOCK = 64 * 1024
BLOCKS_PER_SEGMENT = 4
KEY = "scsi0:0"
VM = VmIdentity(vm_id="vm-1", name="web01")
OTHER = VmIdentity(vm_id="vm-2", name="db01")
SMALL = WriterLimits(pack_bytes=3 * BLOCK, pack_chunks=8, packs_per_fragment=2)
"""Limits that make a small disk come to several packs and fragments."""


def make_repository(
    place: Path | Store, *, encrypted: bool = True, blocks_per_segment: int = BLOCKS_PER_SEGMENT
) -> Repository:
    """A new repository with small blocks and cheap passphrases."""
    store = LocalStore(place) if isinstance(place, Path) else place
    if isinstance(store, LocalStore):
        store.prepare()
    return Repository.create(
        store,
        passphrase=PASSPHRASE if encrypted else None,
        block_size=BLOCK,
        blocks_per_segment=blocks_per_segment,
        kdf_cost=CHEAP,
    )


def noise(blocks: int, seed: int = 1) -> bytes:
    """Blocks that don't compress."""
    return random.Random(seed).randbytes(blocks * BLOCK)


def text(blocks: int, seed: int = 1) -> bytes:
    """Blocks that compress to almost nothing, each different."""
    return b"".join((b"%d-%d " % (seed, number)).ljust(64, b".") * (BLOCK // 64) for number in range(blocks))


def identity_of(key: str = KEY) -> DiskIdentity:
    """A disk of no particular place."""
    return DiskIdentity(key=key, address=DiskAddress(path="web01.vmdk"))


def report_of(writer: DiskWriter, size_bytes: int) -> DiskReport:
    """Figures that nobody looks at."""
    return DiskReport(
        size_bytes=size_bytes,
        read_bytes=size_bytes,
        zero_bytes=0,
        unchanged_bytes=0,
        duplicate_bytes=0,
        stored_bytes=writer.stored_bytes,
        duration_seconds=1.0,
        mode=TransportMode.NETWORK,
        mode_reason="a test",
    )


def store_content(writer: DiskWriter, content: bytes) -> list[bytes]:
    """Store a disk's blocks, and return its segments."""
    ids = [store_one(writer, content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]
    step = writer.blocks_per_segment
    return [writer.store_segment(b"".join(ids[at : at + step])) for at in range(0, len(ids), step)]


def store_one(writer: DiskWriter, block: bytes) -> bytes:
    """Store a block unless it is zeros or known; its id."""
    if not block.count(0) < len(block):
        return ZERO_ID
    block_id = writer.identify(block)
    if not writer.has(block_id):
        codec, data = writer.compress(block)
        writer.store_block(block_id, codec, data, len(block))
    return block_id


def write_disk(
    repository: Repository,
    content: bytes,
    *,
    run: str,
    vm: VmIdentity = VM,
    key: str = KEY,
    fence: int = 1,
    limits: WriterLimits = SMALL,
    level: CompressionLevel = CompressionLevel.OPTIMAL,
    configuration: Sequence[StoredFile] = (),
) -> str:
    """One attempt at one disk; the sealed result."""
    with repository.begin_disk(
        vm_id=vm.vm_id, run=run, disk_key=key, fence=fence, level=level, limits=limits
    ) as writer:
        segments = store_content(writer, content)
        return writer.finish(
            size_bytes=len(content),
            segments=segments,
            report=report_of(writer, len(content)),
            configuration=configuration,
        )


def commit(
    repository: Repository, result: str, *, run: str, vm: VmIdentity = VM, key: str = KEY, fence: int = 1
) -> Point:
    """Commit a run of one disk."""
    return repository.commit(
        vm=vm, run=run, job="nightly", disks=[(identity_of(key), fence, result)], started_at=1.0
    )


def back_up(repository: Repository, content: bytes, *, run: str, vm: VmIdentity = VM, key: str = KEY) -> Point:
    """Write and commit a disk."""
    return commit(repository, write_disk(repository, content, run=run, vm=vm, key=key), run=run, vm=vm, key=key)


def restore(repository: Repository, point: Point, key: str = KEY) -> bytes:
    """A disk of a point, read back whole."""
    with repository.reader(point) as reader:
        disk_map = reader.map(key)
        content = bytearray(disk_map.size_bytes)
        view = memoryview(content)
        span = disk_map.blocks_per_segment * disk_map.block_size
        for number, segment_id in enumerate(disk_map.segments):
            if segment_id == ZERO_ID:
                continue
            ids = reader.segment_ids(segment_id)
            reader.read_blocks_into(
                [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)],
                view[number * span : (number + 1) * span],
            )
        return bytes(content)
