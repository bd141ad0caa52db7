"""Hot-add: attached to the proxy's own VM, detached again, and found after a crash."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim

from proxy_worker.vsphere.faults import DiskLockedError
from proxy_worker.vsphere.hot_add import (
    LARGEST_BYTES,
    NoFreeUnitError,
    ProxyVmNotFoundError,
    attach,
    attached,
    candidates,
    detach,
    free_unit,
    obstacle,
    own_vm,
)
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, controller, make_vm


@pytest.fixture
def proxy(session: Session) -> Vm:
    """The proxy's own VM."""
    return make_vm(session, MIB)


@pytest.fixture
def source(session: Session) -> Vm:
    """A VM to be backed up."""
    return make_vm(session, 3 * MIB, 5 * MIB)


def bios_uuid(session: Session, vm: Vm) -> uuid.UUID:
    """What the firmware of a VM says."""
    return uuid.UUID(read(session, [vim.VirtualMachine(vm.ref, session.stub)], ["config.uuid"])[0]["config.uuid"])


def test_the_proxy_finds_its_own_vm_in_either_byte_order(session: Session, proxy: Vm) -> None:
    bios = bios_uuid(session, proxy)
    assert own_vm(session, f"{bios}\n".upper()) == proxy.ref
    assert own_vm(session, str(uuid.UUID(bytes=bios.bytes_le))) == proxy.ref


@pytest.mark.parametrize("product_uuid", ["", "not a uuid", str(uuid.UUID(int=1))])
def test_a_proxy_that_is_no_vm_is_told_so(session: Session, product_uuid: str) -> None:
    with pytest.raises(ProxyVmNotFoundError, match="leave out virtual_appliance"):
        own_vm(session, product_uuid)


@given(st.uuids())
def test_both_byte_orders_are_tried(shown: uuid.UUID) -> None:
    assert str(shown) in candidates(str(shown))
    assert str(shown) in {found for other in candidates(str(shown)) for found in candidates(other)}


def test_disks_are_attached_and_detached_and_their_files_stay(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, source: Vm
) -> None:
    own = attached(session, proxy.ref)
    hot = [attach(session, proxy.ref, disk, IMPATIENT) for disk in source.disks]
    assert [one.path for one in hot] == [disk.path for disk in source.disks]
    assert [one.uuid for one in hot] == [disk.uuid for disk in source.disks]
    assert len({one.place for one in hot} | {one.place for one in own}) == 3
    modes = {disk.path: disk.mode for disk in read_vm(session, proxy.ref).disks}
    assert {modes[one.path] for one in hot} == {"independent_nonpersistent"}

    paths = [one.path for one in hot]
    assert sorted(detach(session, proxy.ref, [*paths, "[ds] never/was.vmdk"], IMPATIENT)) == sorted(paths)
    assert detach(session, proxy.ref, paths, IMPATIENT) == ()
    assert attached(session, proxy.ref) == own
    assert read_vm(session, source.ref).disks == source.disks
    for path in paths:
        assert (vsphere.datastores["LocalDS_0"] / path.removeprefix("[LocalDS_0] ")).exists()


def test_a_locked_disk_is_named(vsphere: VsphereSimulator, session: Session, proxy: Vm, source: Vm) -> None:
    vsphere.go_wrong("ReconfigVM_Task", "fail", "FileLocked", file=source.disks[0].path)
    with pytest.raises(DiskLockedError, match=r"hot-adding \[LocalDS_0\].*d0\.vmdk") as caught:
        attach(session, proxy.ref, source.disks[0], IMPATIENT)
    assert caught.value.retryable


def test_units_are_filled_without_the_controllers_own() -> None:
    first = controller("scsi", 1000).device
    second = vim.vm.device.VirtualLsiLogicController(key=1001, busNumber=1, sharedBus="noSharing")
    devices, found = [first, second], []
    while len(found) < 30:
        key, unit = free_unit(devices)
        devices.append(vim.vm.device.VirtualDisk(key=len(found), controllerKey=key, unitNumber=unit))
        found.append((key, unit))
    assert len(set(found)) == 30
    assert found[0] == (1001, 0)
    assert 7 not in {unit for _, unit in found}
    with pytest.raises(NoFreeUnitError, match="no SCSI unit is free"):
        free_unit(devices)
    with pytest.raises(NoFreeUnitError, match="no SCSI controller"):
        free_unit([controller("ide", 200).device])


def test_what_cannot_be_hot_added_has_a_reason(session: Session, proxy: Vm, source: Vm) -> None:
    inventory, disk = read_inventory(session), source.disks[0]
    assert obstacle(inventory, proxy, source, disk) is None
    ide, huge = dataclasses.replace(disk, controller="ide"), dataclasses.replace(disk, size_bytes=LARGEST_BYTES + 1)
    assert obstacle(inventory, proxy, source, ide) == "IDE disks can't be hot-added"
    assert obstacle(inventory, proxy, source, huge) == "the disk is larger than 62 TB"
    elsewhere = dataclasses.replace(proxy, folder=None)
    assert obstacle(inventory, elsewhere, source, disk) == "the proxy is in another datacentre"
    far = dataclasses.replace(proxy, host="host-0")
    assert obstacle(inventory, far, source, disk) == "the proxy's host doesn't reach datastore LocalDS_0"
