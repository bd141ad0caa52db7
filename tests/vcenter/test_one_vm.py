"""Snapshots and changed blocks of one VM, the one of VCENTER_TEST_VM; it ends as it was, but with tracking on."""

from __future__ import annotations

import pytest

from proxy_worker.contract.subjects import Extent
from proxy_worker.vsphere.changed_blocks import (
    FullRead,
    areas_in_use,
    base_of,
    changes_since,
    enable,
)
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, Quiesce, create, left_behind, remove, tree

pytestmark = pytest.mark.touches_vm
INSTALLATION = "proxyfleet-tests"


def in_order_within(areas: tuple[Extent, ...], size_bytes: int) -> bool:
    at = 0
    for area in areas:
        if area.offset < at:
            return False
        at = area.offset + area.length
    return at <= size_bytes


def test_a_snapshot_is_made_found_by_its_mark_and_removed(session: Session, test_vm: Vm) -> None:
    made = create(session, test_vm, Mark(INSTALLATION, "snapshot"), Quiesce.PREFER)
    try:
        assert [node.ref for _, node in left_behind(read_inventory(session), INSTALLATION)] == [made.ref]
        covered = {disk.place for disk in test_vm.disks if disk.obstacle is None}
        assert {disk.place for disk in made.disks if disk.obstacle is None} == covered
    finally:
        assert remove(session, test_vm.ref, made.ref, INSTALLATION)
    assert tree(session, test_vm.ref) == ()
    assert [disk.path for disk in read_vm(session, test_vm.ref).disks] == [disk.path for disk in test_vm.disks]


def test_changed_areas_follow_from_one_snapshot_to_the_next(session: Session, test_vm: Vm) -> None:
    enable(session, test_vm)
    bases = {}
    for number in range(2):
        made = create(session, read_vm(session, test_vm.ref), Mark(INSTALLATION, f"cbt-{number}"), Quiesce.NEVER)
        try:
            for disk in made.disks:
                if disk.obstacle is not None:
                    continue
                found = changes_since(session, test_vm.ref, made.ref, disk, bases.get(disk.place))
                if number == 0:
                    assert found.full_read is FullRead.FIRST
                    found = areas_in_use(session, test_vm.ref, made.ref, disk)
                assert found.areas is not None, found
                assert in_order_within(found.areas, disk.size_bytes)
                bases[disk.place] = base_of(disk)
        finally:
            assert remove(session, test_vm.ref, made.ref, INSTALLATION)
    assert all(bases.values())
    assert tree(session, test_vm.ref) == ()
