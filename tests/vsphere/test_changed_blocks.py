"""Changed areas: complete and true, or a named reason to read the disk whole."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.changed_blocks import (
    ChangeBase,
    Changes,
    ChangeTrackingError,
    FullRead,
    areas_in_use,
    base_of,
    changes_since,
    doubt,
    enable,
)
from proxy_worker.vsphere.devices import Provisioning, VirtualDisk
from proxy_worker.vsphere.faults import MissingPrivilegeError
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, Snapshot, create, remove
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm, write
from tests.vsphere.test_snapshots import by_user

GRAIN = 64 << 10
INSTALLATION = "installation-1"
_runs = itertools.count(1)


@pytest.fixture
def vm(session: Session) -> Vm:
    """A VM whose changes are tracked, with a disk that takes three answers."""
    return make_vm(session, 160 * MIB, track_changes=True)


def snapshot(session: Session, vm: Vm) -> Snapshot:
    """A snapshot of the VM as it is now; it stays, as vCenter knows changes of snapshots that are there only."""
    return create(session, vm, Mark(INSTALLATION, f"cbt-{next(_runs)}"), Quiesce.NEVER, IMPATIENT)


def pairs(found: Changes) -> list[tuple[int, int]]:
    """Areas as (offset, length)."""
    assert found.areas is not None, found
    return [(area.offset, area.length) for area in found.areas]


def test_tracking_is_switched_on_once_and_counts_from_the_next_snapshot(session: Session) -> None:
    vm = make_vm(session, MIB)
    before = snapshot(session, vm)
    assert (base_of(before.disks[0]), doubt(None, before.disks[0])) == (None, FullRead.FIRST)
    remove(session, vm.ref, before.ref, INSTALLATION, IMPATIENT)
    assert enable(session, vm, IMPATIENT)
    assert not enable(session, read_vm(session, vm.ref), IMPATIENT)
    assert base_of(snapshot(session, vm).disks[0]) is not None


def test_tracking_is_not_switched_on_where_answers_would_be_wrong(session: Session) -> None:
    vm = make_vm(session, MIB)
    with pytest.raises(ChangeTrackingError, match="virtual hardware"):
        enable(session, dataclasses.replace(vm, can_track_changes=False), IMPATIENT)
    by_user(session, vm)
    with pytest.raises(ChangeTrackingError, match="before the upgrade"):
        enable(session, read_vm(session, vm.ref), IMPATIENT)


def test_areas_in_use_of_a_first_backup(vsphere: VsphereSimulator, session: Session, vm: Vm) -> None:
    path = vm.disks[0].path or ""
    write(vsphere, path, 0, b"a" * GRAIN)
    write(vsphere, path, 64 * MIB - GRAIN, b"b" * 2 * GRAIN)
    first = snapshot(session, vm)
    found = areas_in_use(session, vm.ref, first.ref, first.disks[0])
    assert pairs(found) == [(0, GRAIN), (64 * MIB - GRAIN, 2 * GRAIN)]


def test_changes_are_followed_piece_by_piece_to_the_end_of_the_disk(
    vsphere: VsphereSimulator, session: Session, vm: Vm
) -> None:
    path = vm.disks[0].path or ""
    write(vsphere, path, 5 * MIB, b"before")
    base = base_of(snapshot(session, vm).disks[0])
    write(vsphere, path, 70 * MIB, b"x")
    write(vsphere, path, 160 * MIB - 1, b"y")
    second = snapshot(session, vm)
    vsphere.reset()
    found = changes_since(session, vm.ref, second.ref, second.disks[0], base)
    assert pairs(found) == [(70 * MIB, GRAIN), (160 * MIB - GRAIN, GRAIN)]
    assert vsphere.calls()["QueryChangedDiskAreas"] == 3
    unchanged = snapshot(session, vm)
    assert pairs(changes_since(session, vm.ref, unchanged.ref, unchanged.disks[0], base_of(second.disks[0]))) == []


def test_a_session_that_expires_between_pieces_changes_nothing(
    vsphere: VsphereSimulator, session: Session, vm: Vm
) -> None:
    base = base_of(snapshot(session, vm).disks[0])
    write(vsphere, vm.disks[0].path or "", 70 * MIB, b"x")
    second = snapshot(session, vm)
    vsphere.go_wrong("QueryChangedDiskAreas", "refuse", "NotAuthenticated", skip=1)
    vsphere.go_wrong("QueryChangedDiskAreas", "drop", skip=1)
    assert pairs(changes_since(session, vm.ref, second.ref, second.disks[0], base)) == [(70 * MIB, GRAIN)]


def test_a_reset_is_noticed(vsphere: VsphereSimulator, session: Session, vm: Vm) -> None:
    base = base_of(snapshot(session, vm).disks[0])
    vsphere.reset_change_tracking(vm.ref)
    second = snapshot(session, vm)
    assert changes_since(session, vm.ref, second.ref, second.disks[0], base) == Changes(None, FullRead.RESET)


@pytest.mark.parametrize("fault", ["FileFault", "InvalidArgument"])
def test_a_stale_change_id_is_a_reason_not_an_error(
    vsphere: VsphereSimulator, session: Session, vm: Vm, fault: str
) -> None:
    base = base_of(snapshot(session, vm).disks[0])
    second = snapshot(session, vm)
    vsphere.go_wrong("QueryChangedDiskAreas", "refuse", fault)
    found = changes_since(session, vm.ref, second.ref, second.disks[0], base)
    assert found == Changes(None, FullRead.STALE, fault)


def test_a_foreign_change_id_is_refused_by_the_server_too(session: Session, vm: Vm) -> None:
    base, second = base_of(snapshot(session, vm).disks[0]), snapshot(session, vm)
    assert base is not None
    foreign = dataclasses.replace(base, change_id=base.change_id.rpartition("/")[0] + "/0")
    assert changes_since(session, vm.ref, second.ref, second.disks[0], foreign).full_read is FullRead.STALE


def test_a_missing_privilege_is_an_error(vsphere: VsphereSimulator, session: Session, vm: Vm) -> None:
    first = snapshot(session, vm)
    vsphere.revoke(["VirtualMachine.Provisioning.DiskRandomRead"])
    with pytest.raises(MissingPrivilegeError, match="DiskRandomRead"):
        areas_in_use(session, vm.ref, first.ref, first.disks[0])


DISK = VirtualDisk(
    key=2000,
    place="scsi0:0",
    controller="scsi",
    label="Hard disk 1",
    size_bytes=10 * MIB,
    provisioning=Provisioning.THIN,
    mode="persistent",
    path="[ds] a/a.vmdk",
    datastore="datastore-1",
    uuid="6000C29a",
    change_id="52 3c ec 11/7",
)
BASE = ChangeBase("52 3c ec 11/5", "6000C29a", 10 * MIB)


@pytest.mark.parametrize(
    ("base", "disk", "reason"),
    [
        (BASE, DISK, None),
        (None, DISK, FullRead.FIRST),
        (BASE, dataclasses.replace(DISK, change_id=None), FullRead.OFF),
        (BASE, dataclasses.replace(DISK, uuid="6000C29b"), FullRead.REPLACED),
        (BASE, dataclasses.replace(DISK, uuid=None), FullRead.REPLACED),
        (BASE, dataclasses.replace(DISK, size_bytes=11 * MIB), FullRead.RESIZED),
        (BASE, dataclasses.replace(DISK, change_id="52 3c ec 12/7"), FullRead.RESET),
        (BASE, dataclasses.replace(DISK, change_id="52 3c ec 11/4"), FullRead.REVERTED),
    ],
)
def test_every_doubt_has_a_name(base: ChangeBase | None, disk: VirtualDisk, reason: FullRead | None) -> None:
    assert doubt(base, disk) is reason


class Answers:
    """A session and a VM at once that answer with these pieces, whatever is asked."""

    stub = None

    def __init__(self, pieces: list[tuple[int, int, list[tuple[int, int]]]]) -> None:
        self.pieces = iter(pieces)

    def call(self, *_: object, **__: object) -> Any:
        start, length, areas = next(self.pieces)
        found = [SimpleNamespace(start=at, length=size) for at, size in areas]
        return SimpleNamespace(startOffset=start, length=length, changedArea=found)


def ask(pieces: list[tuple[int, int, list[tuple[int, int]]]], disk: VirtualDisk = DISK) -> Changes:
    """What becomes of these answers."""
    return areas_in_use(Answers(pieces), "vm-1", "snapshot-1", disk)


def test_a_disk_beyond_two_tebibytes_is_asked_about_to_its_end() -> None:
    tib = 1 << 40
    disk = dataclasses.replace(DISK, size_bytes=3 * tib)
    rest = [(2 * tib, tib, [(3 * tib - GRAIN, GRAIN)])]
    assert pairs(ask([(0, 2 * tib, [(0, GRAIN)]), *rest], disk)) == [(0, GRAIN), (3 * tib - GRAIN, GRAIN)]


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 5 * MIB, []), (4 * MIB, 6 * MIB, [])],
        [(0, 5 * MIB, []), (6 * MIB, 4 * MIB, [])],
        [(0, 0, [])],
        [(0, 11 * MIB, [])],
        [(0, 10 * MIB, [(MIB, 0)])],
        [(0, 10 * MIB, [(9 * MIB, 2 * MIB)])],
        [(0, 10 * MIB, [(MIB, MIB), (0, MIB)])],
        [(0, 10 * MIB, [(0, 2 * MIB), (MIB, 2 * MIB)])],
        [(0, 5 * MIB, [(6 * MIB, MIB)]), (5 * MIB, 5 * MIB, [])],
    ],
)
def test_answers_that_do_not_cover_the_disk_in_order_are_not_believed(
    pieces: list[tuple[int, int, list[tuple[int, int]]]],
) -> None:
    found = ask(pieces)
    assert (found.areas, found.full_read) == (None, FullRead.INCOMPLETE)
    assert found.detail


@settings(max_examples=50)
@given(cuts=st.sets(st.integers(1, 159)), changed=st.sets(st.integers(0, 159)))
def test_any_cutting_into_pieces_gives_the_same_areas(cuts: set[int], changed: set[int]) -> None:
    bounds = [0, *sorted(cuts), 160]
    pieces = [
        (a * GRAIN, (b - a) * GRAIN, [(at * GRAIN, GRAIN) for at in sorted(changed) if a <= at < b])
        for a, b in itertools.pairwise(bounds)
    ]
    found = pairs(ask(pieces))
    assert {at // GRAIN + i for at, length in found for i in range(length // GRAIN)} == changed
    assert all(a + length < b for (a, length), (b, _) in itertools.pairwise(found))
