"""vSphere's VMs in the contract's words, or with the problem that keeps them from being protected."""

from __future__ import annotations

import dataclasses

import pytest

from proxy_worker.vsphere.devices import Provisioning, VirtualDisk
from proxy_worker.vsphere.identity import problem_of, split_path, vm_identity
from proxy_worker.vsphere.model import Datastore, Host, Inventory, Vm

DISK = VirtualDisk(
    key=2000,
    place="scsi0:0",
    controller="scsi",
    label="Hard disk 1",
    size_bytes=1 << 40,
    provisioning=Provisioning.THIN,
    mode="persistent",
    path="[ds1] web 01/web 01.vmdk",
    datastore="datastore-1",
    uuid="6000C29a",
    change_id=None,
)
VM = Vm(
    ref="vm-1",
    name="web 01",
    instance_uuid="5034A4E8-0000-0000-0000-00000000BEEF",
    template=False,
    powered_on=True,
    connection="connected",
    host="host-1",
    folder="group-1",
    pool="resgroup-1",
    datastores=("datastore-1",),
    configuration_path="[ds1] web 01/web 01.vmx",
    disks=(DISK, dataclasses.replace(DISK, key=2001, place="scsi0:1", mode="independent_persistent")),
    tracks_changes=True,
    can_track_changes=True,
    tools_running=True,
    encrypted=False,
    shows_disk_uuids=True,
    attributes={},
)
HOST = Host("host-1", "esx1", "domain-1", connected=True, in_maintenance=False)
STORE = Datastore("datastore-1", "ds1", "VMFS", None, (), accessible=True, capacity_bytes=1, free_bytes=1)


def inventory(host: Host = HOST, store: Datastore = STORE) -> Inventory:
    """One host and one datastore."""
    return Inventory("VirtualCenter", "vc-uuid", {}, {host.ref: host}, {store.ref: store}, {})


def test_a_vm_is_filed_under_its_instance_uuid() -> None:
    assert vm_identity(VM).vm_id == "5034a4e8-0000-0000-0000-00000000beef"
    assert problem_of(inventory(), VM) is None


def test_a_path_is_a_datastore_and_what_lies_there() -> None:
    assert split_path("[my store] web 01/web 01.vmdk") == ("my store", "web 01/web 01.vmdk")
    with pytest.raises(ValueError, match="no path on a datastore"):
        split_path("web.vmdk")


def test_a_vm_without_an_instance_uuid_is_filed_under_its_name() -> None:
    assert vm_identity(dataclasses.replace(VM, instance_uuid=None)).vm_id.startswith("name-")


@pytest.mark.parametrize(
    ("vm", "where", "problem"),
    [
        (dataclasses.replace(VM, connection="orphaned"), inventory(), "shows it as orphaned"),
        (dataclasses.replace(VM, disks=()), inventory(), "no disks"),
        (VM, inventory(dataclasses.replace(HOST, in_maintenance=True)), "esx1 is in maintenance"),
        (VM, inventory(dataclasses.replace(HOST, connected=False)), "esx1 is not connected"),
        (VM, inventory(store=dataclasses.replace(STORE, accessible=False)), "ds1 is inaccessible"),
        (dataclasses.replace(VM, unreadable={"config": "NoPermission"}), inventory(), "can't read its config"),
    ],
)
def test_each_problem_is_named_for_that_vm_alone(vm: Vm, where: Inventory, problem: str) -> None:
    assert problem in (problem_of(where, vm) or "")
