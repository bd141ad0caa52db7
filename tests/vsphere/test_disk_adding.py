"""Disks that are added to a VM for a restore, and taken away again wherever they have gone to."""

from __future__ import annotations

from pyVmomi import vim

from proxy_worker.contract.names import DiskFormat
from proxy_worker.vsphere.disk_adding import add_disk, remove_disks
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import finish
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm


def test_a_disk_is_taken_away_again_though_its_storage_was_migrated(session: Session) -> None:
    vm = make_vm(session, MIB)
    path = f"[LocalDS_0] {vm.name}/restored-1-scsi0-1.vmdk"
    added = add_disk(session, vm.ref, path, MIB, place="scsi0:1", how=DiskFormat.THIN, waiting=IMPATIENT)
    store = next(one for one in session.content.rootFolder.childEntity[0].datastore if one.name == "LocalDS_1")
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "test", lambda: machine.RelocateVM_Task(vim.vm.RelocateSpec(datastore=store)))
    assert {disk.path for disk in read_vm(session, vm.ref).disks}.isdisjoint({path})

    remove_disks(session, vm.ref, [path], IMPATIENT, uuids=[added.uuid or ""])

    (own,) = read_vm(session, vm.ref).disks
    assert (own.place, own.uuid) == ("scsi0:0", vm.disks[0].uuid)
