"""Repositories with very many restore points, made once: what a collection of ours and a prune of restic's work on.

1,000 disks of 100 GiB in 100 VMs; of each VM 10 restore points, so 1,000 in all, made by the product's own writers
and commits. Each backup changed one block of each disk: every one has its own block, segment, map, pack and
fragment of the index. The blocks are almost empty, so that it is the metadata that counts. restic gets as many
snapshots, of folders with a file for each disk, of which each has new content every time.
"""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from unittest.mock import patch

from benchmarks.peers import Restic
from benchmarks.standalone import Repository
from proxy_worker.contract.figures import DiskReport
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import segment_count
from proxy_worker.repository.repository import Repository as OpenRepository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point

VMS: Final = 100
POINTS_OF_EACH: Final = 10
DISKS_OF_EACH: Final = 10
POINTS: Final = VMS * POINTS_OF_EACH
KEPT_OF_EACH: Final = POINTS_OF_EACH // 2
DISK_BYTES: Final = 100 << 30
FILE_BYTES: Final = 4096
_FENCE: Final = 1


def make_ours(repository: Repository) -> None:
    """The repository, with half of each VM's restore points removed. Nothing here is measured or synced."""
    repository.init()
    credential = Credential(passphrase=repository.passphrase_file.read_bytes().strip())
    with (
        patch("os.fsync", lambda _: None),
        OpenRepository.open(LocalStore(repository.folder), credential, cache_dir=repository.cache) as opened,
    ):
        for number in range(VMS):
            _back_up_vm(opened, number)
        for number in range(VMS):
            for run in _runs()[: POINTS_OF_EACH - KEPT_OF_EACH]:
                end_point(opened.access, vm_id=_vm(number).vm_id, run=run)


def make_restics(restic: Restic) -> None:
    """restic's, with half of the snapshots forgotten."""
    restic.init()

    def back_up(number: int) -> None:
        folder, chance = restic.work / _vm(number).name, random.Random(number)
        folder.mkdir()
        for _ in range(POINTS_OF_EACH):
            for disk in range(DISKS_OF_EACH):
                (folder / f"disk{disk}").write_bytes(chance.randbytes(FILE_BYTES))
            restic.snapshot(folder)
        shutil.rmtree(folder)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(back_up, range(VMS)))
    restic.forget(keep_last=KEPT_OF_EACH)


def remember_yesterday(repository: Repository) -> None:
    """Leave in the repository's cache what a collection before the newest backup of each VM has left there.

    restic's cache has all that restic wrote.
    """
    points, aside = repository.folder / "points", repository.work / "newest"
    newest = [max(vm.iterdir()) for vm in points.iterdir()]
    for point in newest:
        (aside / point.parent.name).mkdir(parents=True)
        point.rename(aside / point.parent.name / point.name)
    repository.collect("--dry-run")
    for point in newest:
        (aside / point.parent.name / point.name).rename(point)
    shutil.rmtree(aside)


def _back_up_vm(opened: OpenRepository, number: int) -> None:
    """All runs of a VM."""
    vm, chance = _vm(number), random.Random(number)
    zero_segments = [bytes(ID_BYTES * opened.access.config.blocks_per_segment)] * segment_count(
        DISK_BYTES, opened.block_size, opened.access.config.blocks_per_segment
    )
    disks = [list(zero_segments) for _ in range(DISKS_OF_EACH)]
    stored = [[ZERO_ID] * len(zero_segments) for _ in disks]
    for run in _runs():
        results = []
        for place, segments in enumerate(disks):
            disk = DiskIdentity(key=f"scsi0:{place}", address=DiskAddress(path=f"{place}.vmdk"))
            with opened.begin_disk(vm_id=vm.vm_id, run=run, disk_key=disk.key, fence=_FENCE) as writer:
                block = chance.randbytes(FILE_BYTES).ljust(writer.block_size, b"\0")
                block_id = writer.identify(block)
                writer.store_block(block_id, *writer.compress(block), len(block))
                changed = chance.randrange(len(segments))
                ids = bytearray(segments[changed])
                at = chance.randrange(writer.blocks_per_segment) * ID_BYTES
                ids[at : at + ID_BYTES] = block_id
                segments[changed] = bytes(ids)
                stored[place][changed] = writer.store_segment(segments[changed])
                report = _report(writer.stored_bytes)
                sealed = writer.finish(size_bytes=DISK_BYTES, segments=stored[place], report=report)
            results.append((disk, _FENCE, sealed))
        opened.commit(vm=vm, run=run, job="nightly", disks=results, started_at=0.0)


def _runs() -> list[str]:
    return [f"202611{day:02d}T220000Z-{day:08x}" for day in range(1, POINTS_OF_EACH + 1)]


def _vm(number: int) -> VmIdentity:
    return VmIdentity(vm_id=f"vm-{number:03d}", name=f"vm-{number:03d}")


def _report(stored_bytes: int) -> DiskReport:
    return DiskReport(
        size_bytes=DISK_BYTES,
        read_bytes=stored_bytes,
        zero_bytes=0,
        unchanged_bytes=DISK_BYTES,
        duplicate_bytes=0,
        stored_bytes=stored_bytes,
        duration_seconds=1.0,
        mode=TransportMode.NETWORK,
        mode_reason="a benchmark",
    )
