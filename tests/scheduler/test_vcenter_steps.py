"""What the steps of a backup do with a VM that isn't what the plan saw any more."""

from __future__ import annotations

import pytest
from pyVmomi import vim

from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.changed_blocks import FullRead
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Endpoint, Session
from proxy_worker.vsphere.snapshots import Mark, create, tree
from proxy_worker.vsphere.tasks import finish
from scheduler.vcenters.account import Account
from scheduler.vcenters.freezing import NoDiskLeftError, SnapshotRequest, freeze
from scheduler.vcenters.removal import RemoveRequest, remove
from scheduler.vcenters.steps import Access
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm
from tests.vsphere.test_snapshots import by_user


@pytest.fixture
def access(session: Session, endpoint: Endpoint) -> Access:
    """What the executor gives to a step."""
    account = Account("vc1", endpoint.host, endpoint.user, "vc1", endpoint.port)
    return Access(account, endpoint, session, PASSWORD, "installation-9", IMPATIENT)


def request_for(vm: Vm, **changes: object) -> SnapshotRequest:
    """A first backup of a VM."""
    settings: dict[str, object] = {
        "vm_ref": vm.ref,
        "vm_id": (vm.instance_uuid or "").lower(),
        "vm_name": vm.name,
        "journal": f"entry-{vm.ref}",
    }
    return SnapshotRequest.model_validate(settings | changes)


def removal_of(vm: Vm) -> RemoveRequest:
    """The removal of what `request_for` makes."""
    made = request_for(vm)
    return RemoveRequest(vm_ref=vm.ref, vm_id=made.vm_id, vm_name=vm.name, journal=made.journal)


def test_freezing_twice_adopts_the_snapshot_and_removing_twice_is_no_error(
    vsphere: VsphereSimulator, access: Access
) -> None:
    vm = make_vm(access.session, MIB, MIB)
    first, second = freeze(access, request_for(vm)), freeze(access, request_for(vm))
    assert first.snapshot == second.snapshot
    assert [disk.address for disk in first.disks] == [disk.address for disk in second.disks]
    assert vsphere.calls()["CreateSnapshot_Task"] == 1
    assert [remove(access, removal_of(vm)).clean for _ in range(2)] == [True, True]
    assert tree(access.session, vm.ref) == ()


def test_a_vm_that_was_deleted_is_named(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    machine = vim.VirtualMachine(vm.ref, access.session.stub)
    finish(access.session, "deleting", machine.Destroy_Task, IMPATIENT)
    with pytest.raises(VsphereObjectGoneError, match=f"VM {vm.name}: vCenter vc1 has no VM {vm.ref}"):
        freeze(access, request_for(vm))
    assert remove(access, removal_of(vm)).clean


def test_a_vm_that_was_registered_anew_is_found_by_its_instance_uuid(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    made = freeze(access, request_for(vm, vm_ref="vm-that-was"))
    assert made.vm_ref == vm.ref
    assert remove(access, removal_of(vm)).clean


def test_another_vm_that_has_the_old_id_is_not_taken_for_it(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    with pytest.raises(VsphereObjectGoneError):
        freeze(access, request_for(vm, vm_id="00000000-0000-0000-0000-000000000000"))
    assert tree(access.session, vm.ref) == ()


def test_a_users_snapshot_keeps_tracking_off_with_the_reason_and_stays(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    by_user(access.session, vm)
    made = freeze(access, request_for(vm, quiesce=Quiesce.NEVER))
    (disk,) = made.disks
    assert "it has the snapshot 'before the upgrade'" in (disk.full_read_reason or "")
    assert disk.address.vsphere is not None
    assert disk.address.vsphere.earlier_snapshots
    assert remove(access, removal_of(vm)).clean
    assert [node.name for node in tree(access.session, vm.ref)] == ["before the upgrade"]


def test_a_first_backup_says_so_and_keeps_where_tracking_stands(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    (disk,) = freeze(access, request_for(vm)).disks
    assert (disk.full_read_reason, disk.parent) == (FullRead.FIRST, None)
    assert disk.changed_areas == (), "nothing of it has ever been written"
    assert disk.tracking is not None
    assert disk.tracking.size_bytes == MIB
    assert remove(access, removal_of(vm)).clean


def test_a_vm_whose_wanted_disks_are_all_gone_is_named(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    with pytest.raises(NoDiskLeftError, match="no disk any more"):
        freeze(access, request_for(vm, excluded_disks=("scsi0:0",)))
    assert remove(access, removal_of(vm)).clean


def test_a_privilege_that_is_missing_for_change_tracking_costs_time_but_no_backup(
    vsphere: VsphereSimulator, access: Access
) -> None:
    vm = make_vm(access.session, MIB)
    vsphere.revoke(["VirtualMachine.Config.ChangeTracking"])
    (disk,) = freeze(access, request_for(vm)).disks
    assert "VirtualMachine.Config.ChangeTracking" in (disk.full_read_reason or "")
    assert remove(access, removal_of(vm)).clean


def test_removing_one_backups_snapshot_leaves_anothers(access: Access) -> None:
    vm = make_vm(access.session, MIB)
    freeze(access, request_for(vm))
    other = create(access.session, vm, Mark(access.installation, "of-another"), Quiesce.NEVER, IMPATIENT)
    assert remove(access, removal_of(vm)).clean
    assert [node.ref for node in tree(access.session, vm.ref)] == [other.ref]
