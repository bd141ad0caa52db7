"""Inventory: everything, in pages, with a number of calls that doesn't depend on the number of VMs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pyVmomi import vim

from proxy_worker.vsphere.devices import Provisioning, disks
from proxy_worker.vsphere.inventory import read_inventory, unescaped
from proxy_worker.vsphere.model import NfsExport, PlaceKind, VmfsVolume
from proxy_worker.vsphere.session import Session
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator, running
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import MIB, controller, disk, make_vm


def test_a_thousand_vms_take_as_many_calls_as_four(vsphere_program: Path, tmp_path: Path) -> None:
    calls = {}
    for vms in (2, 500):
        with (
            running(vsphere_program, tmp_path / str(vms), "-vms", str(vms)) as server,
            Session(endpoint_of(server), PASSWORD) as session,
        ):
            server.reset()
            inventory = read_inventory(session, page=2000)
            calls[len(inventory.vms)] = dict(server.calls())
            assert all(vm.disks and vm.instance_uuid for vm in inventory.vms.values())
    assert calls[4] == calls[1000]
    assert sum(calls[1000].values()) <= 4


def test_an_inventory_is_read_in_pages(vsphere: VsphereSimulator, session: Session) -> None:
    whole = read_inventory(session)
    objects = sum(len(found) for found in (whole.places, whole.hosts, whole.datastores, whole.vms))
    vsphere.reset()
    assert read_inventory(session, page=7) == whole
    assert vsphere.calls()["ContinueRetrievePropertiesEx"] == math.ceil(objects / 7) - 1


def test_datastores_say_what_they_lie_on_and_who_mounts_them(vsphere: VsphereSimulator, session: Session) -> None:
    inventory = read_inventory(session)
    stores = {store.name: store for store in inventory.datastores.values()}
    assert stores["LocalDS_0"].type == "VMFS"
    assert isinstance(stores["LocalDS_0"].backing, VmfsVolume)
    assert stores["LocalDS_1"].backing == NfsExport(("filer.example",), str(vsphere.datastores["LocalDS_1"]))
    for store in stores.values():
        assert {mount.host for mount in store.mounts} == set(inventory.hosts)
        assert store.accessible


def test_places_lead_from_a_vm_to_its_datacenter_and_cluster(session: Session) -> None:
    vm = make_vm(session, MIB)
    inventory = read_inventory(session)
    folders = [(place.kind, place.name) for place in inventory.ancestors(vm.folder)]
    assert folders == [(PlaceKind.FOLDER, "vm"), (PlaceKind.DATACENTER, "DC0")]
    pools = [(place.kind, place.name) for place in inventory.ancestors(vm.pool)][:2]
    assert pools == [(PlaceKind.POOL, "Resources"), (PlaceKind.CLUSTER, "DC0_C0")]
    assert inventory.hosts[vm.host or ""].name.startswith("DC0_C0_H")


def test_disks_have_place_size_provisioning_and_mode(session: Session) -> None:
    more = [
        controller("sata", 15000),
        controller("nvme", 31000),
        disk((1000, 9), 3 * MIB, "[LocalDS_0] kinds/thin.vmdk", thinProvisioned=True),
        disk((15000, 2), 4 * MIB, "[LocalDS_0] kinds/eager.vmdk", eagerlyScrub=True),
        disk((31000, 0), 5 * MIB, "[LocalDS_0] kinds/own.vmdk", diskMode="independent_persistent"),
    ]
    vm = make_vm(session, 2 * MIB, name="kinds", devices=more)
    found = {found.place: found for found in vm.disks}
    assert list(found) == ["nvme0:0", "sata0:2", "scsi0:0", "scsi0:9"]
    assert {place: found[place].size_bytes // MIB for place in found} == {
        "nvme0:0": 5,
        "sata0:2": 4,
        "scsi0:0": 2,
        "scsi0:9": 3,
    }
    assert found["scsi0:0"].provisioning is Provisioning.LAZY_ZEROED
    assert found["scsi0:9"].provisioning is Provisioning.THIN
    assert found["sata0:2"].provisioning is Provisioning.EAGER_ZEROED
    assert found["nvme0:0"].independent
    assert "snapshots don't cover it" in (found["nvme0:0"].obstacle or "")
    assert found["scsi0:0"].path == "[LocalDS_0] kinds/d0.vmdk"
    assert len({one.uuid for one in vm.disks}) == 4
    assert len({one.key for one in vm.disks}) == 4


def test_raw_devices_say_whether_snapshots_cover_them() -> None:
    def raw(key: int, mode: str) -> object:
        backing = vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo(
            fileName="[ds] a/raw.vmdk", compatibilityMode=mode, diskMode="persistent", lunUuid="02"
        )
        return vim.vm.device.VirtualDisk(
            key=key, controllerKey=1000, unitNumber=key - 2000, backing=backing, capacityInKB=1024
        )

    scsi = vim.vm.device.VirtualLsiLogicController(key=1000, busNumber=1, sharedBus="noSharing")
    physical, virtual = disks([raw(2001, "physicalMode"), scsi, raw(2002, "virtualMode")])
    assert (physical.place, physical.provisioning) == ("scsi1:1", Provisioning.RAW_PHYSICAL)
    assert "physical mode" in (physical.obstacle or "")
    assert (virtual.provisioning, virtual.obstacle) == (Provisioning.RAW_VIRTUAL, None)


def test_custom_attributes_are_read_by_name(session: Session) -> None:
    vm = make_vm(session, MIB, name="with-attribute")
    fields = session.content.customFieldsManager
    key = fields.AddCustomFieldDef("backup-plan", vim.VirtualMachine, None, None).key
    fields.SetField(vim.VirtualMachine(vm.ref, session.stub), key, "gold")
    assert read_inventory(session).vms[vm.ref].attributes == {"backup-plan": "gold"}


def test_an_esxi_host_is_read_as_well(vsphere_program: Path, tmp_path: Path) -> None:
    with (
        running(vsphere_program, tmp_path, "-esx") as server,
        Session(endpoint_of(server), PASSWORD) as session,
    ):
        inventory = read_inventory(session)
    assert (inventory.api, inventory.instance_uuid) == ("HostAgent", None)
    assert (len(inventory.hosts), len(inventory.vms)) == (1, 2)


@pytest.mark.parametrize(("stored", "shown"), [("a%2fb", "a/b"), ("a%252fb", "a%2fb"), ("a%5cb", "a\\b")])
def test_names_are_shown_as_people_wrote_them(stored: str, shown: str) -> None:
    assert unescaped(stored) == shown
