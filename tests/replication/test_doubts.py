"""Areas that can't be trusted: half a run that is in the replica, and changes that they miss."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from proxy_worker.contract.replication import DiskReplicate
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, Extent, VcenterReference, VsphereDisk
from proxy_worker.replication.blocks import BLOCK_BYTES, digest_of
from proxy_worker.replication.messages import Open
from tests.mover.disks import make_disk
from tests.replication.sites import KEY, Target, replicate_here, request

BLOCKS = 8
VCENTER = VcenterReference(name="vc1", host="vc1.example", user="backup", credential="vc1")
TRACKED = DiskAddress(
    path="disk.raw",
    vsphere=VsphereDisk(
        vcenter=VCENTER, vm="vm-1", key=2000, path="[ds] web01.vmdk", controller="scsi", datastore_type="VMFS"
    ),
)
"""A disk whose areas vSphere tells."""


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(BLOCK_BYTES)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target.made(tmp_path / "dr")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Data but for the last block, which is a hole."""
    data = [(block * BLOCK_BYTES, noise(block)) for block in range(BLOCKS - 1)]
    return make_disk(tmp_path / "disk.raw", BLOCKS * BLOCK_BYTES, data)


def rewrite(disk: Path, block: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(block * BLOCK_BYTES)
        file.write(data)


def tracked(
    run: str, *, changed: Iterable[int] | None = None, in_use: Iterable[int] | None = None
) -> DiskReplicate:
    """A run of a disk of a vCenter: what it is told changed since `run-1`, or is in use."""
    areas = None if changed is None else [(block * BLOCK_BYTES, 512) for block in changed]
    asked = request(run, areas=areas, parent=None if changed is None else "run-1")
    used = None if in_use is None else tuple(Extent(offset=at * BLOCK_BYTES, length=BLOCK_BYTES) for at in in_use)
    return asked.model_copy(update={"disk": DiskIdentity(key=KEY, address=TRACKED), "areas_in_use": used})


@pytest.mark.parametrize("wrote", [True, False])
def test_areas_since_the_run_before_are_not_used_once_half_a_run_is_in_the_replica(
    disk: Path, target: Target, wrote: bool
) -> None:
    replicate_here(disk, target, request("run-1"))
    with target.reception() as (reception, key):  # run-2, which loses its source
        reception.open(Open("session", BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES, "run-1"))
        if wrote:
            reception.write(1, digest_of(key, noise(100)), memoryview(noise(100)))

    # Meanwhile the original went back to what it was: nothing has changed since run-1.
    report = replicate_here(disk, target, request("run-3", areas=[], parent="run-1")).report

    assert target.flat.read_bytes() == disk.read_bytes()
    assert report.parent == (None if wrote else "run-1")
    assert (report.full_read_reason is not None) is wrote
    assert report.stored_bytes == (BLOCK_BYTES if wrote else 0)


def test_a_change_that_the_areas_miss_is_noticed_and_all_is_compared(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(disk, 3, noise(101))
    rewrite(disk, 5, noise(102))

    report = replicate_here(disk, target, tracked("run-2", changed=[3])).report

    assert target.flat.read_bytes() == disk.read_bytes()
    alarm = f"the block at {5 * BLOCK_BYTES} has changed although no changed area names it"
    assert (report.parent, report.alarm) == (None, alarm)
    assert alarm in (report.full_read_reason or "")


def test_areas_that_are_right_are_used_and_a_sample_is_read_beside_them(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(disk, 3, noise(101))

    report = replicate_here(disk, target, tracked("run-2", changed=[3])).report

    assert target.flat.read_bytes() == disk.read_bytes()
    assert (report.parent, report.alarm, report.full_read_reason) == ("run-1", None, None)
    assert report.read_bytes == (BLOCKS - 1) * BLOCK_BYTES, "a small disk is its own sample, but for its hole"
    assert report.stored_bytes == BLOCK_BYTES


def test_data_outside_of_the_areas_in_use_is_noticed_and_replicated(disk: Path, target: Target) -> None:
    report = replicate_here(disk, target, tracked("run-1", in_use=[0, 1, 2, 3, 5, 6])).report

    assert target.flat.read_bytes() == disk.read_bytes()
    assert report.alarm == f"the block at {4 * BLOCK_BYTES} isn't zeros although no area in use names it"
    assert report.full_read_reason == report.alarm
