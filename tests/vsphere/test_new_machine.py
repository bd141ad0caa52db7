"""VMs made anew: hardware, disks and cards as they were, found again by their mark, deleted only with it."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from pyVmomi import vim

from proxy_worker.contract.names import DiskFormat
from proxy_worker.vsphere.devices import Provisioning
from proxy_worker.vsphere.faults import DatastoreFullError, HostUnavailableError
from proxy_worker.vsphere.hardware import Controller, Hardware, NetworkCard
from proxy_worker.vsphere.hardware_reading import read_hardware
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make
from proxy_worker.vsphere.placing import NameTakenError, NoSuchPlaceError, Wanted, find_spot
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.restored import ForeignVmError, clear, destroy, find, mark_of
from proxy_worker.vsphere.session import Session
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm

HARDWARE = Hardware(
    name="web",
    guest_os="debian10-64",
    cpus=4,
    cores_per_socket=2,
    memory_mib=2048,
    firmware="efi",
    secure_boot=False,
    hardware_version=None,
    bios_uuid="564d1234-0000-1111-2222-333344445555",
    annotation="what it is for",
    shows_disk_uuids=True,
    nvram="web.nvram",
    controllers=(Controller("scsi", 0, "pvscsi"), Controller("sata", 0, "")),
    cards=(NetworkCard(0, "vmxnet3", "VM Network", "00:50:56:aa:bb:cc", mac_is_static=False, connected=True),),
    has_vtpm=False,
)
ORIGINAL = Wanted("web", datastore="LocalDS_0")


def machine(session: Session, name: str, **changes: object) -> NewMachine:
    spot = find_spot(read_inventory(session), replace(ORIGINAL, name=name), ORIGINAL)
    made = NewMachine(
        name=name,
        hardware=HARDWARE,
        disks=(NewDisk("scsi0:0", 4 * MIB, "LocalDS_0"), NewDisk("sata0:1", 2 * MIB, "LocalDS_1")),
        instance_uuid=str(uuid.uuid4()),
        mark="installation-1/restore-1",
        same_machine=True,
        folder=spot.folder,
        pool=spot.pool,
        host=spot.host,
        datastore=spot.datastore,
    )
    return replace(made, **changes)


def test_a_machine_is_made_as_it_was(session: Session) -> None:
    asked = machine(session, "made-1", disk_format=DiskFormat.EAGER)

    made = make(session, asked, IMPATIENT)

    disks = {disk.place: disk for disk in made.disks}
    assert {place: disk.size_bytes for place, disk in disks.items()} == {"scsi0:0": 4 * MIB, "sata0:1": 2 * MIB}
    assert disks["sata0:1"].path is not None
    assert disks["sata0:1"].path.startswith("[LocalDS_1]")
    assert {disk.provisioning for disk in disks.values()} == {Provisioning.EAGER_ZEROED}
    seen = read(session, [vim.VirtualMachine(made.ref, session.stub)], ["config", "name"])[0]["config"]
    assert (seen.hardware.numCPU, seen.hardware.memoryMB, seen.firmware) == (4, 2048, "efi")
    assert (seen.guestId, seen.uuid, seen.instanceUuid) == (
        "debian10_64Guest",
        HARDWARE.bios_uuid,
        asked.instance_uuid,
    )
    cards = [one for one in seen.hardware.device if isinstance(one, vim.vm.device.VirtualVmxnet3)]
    assert [card.macAddress for card in cards] == ["00:50:56:aa:bb:cc"]
    assert find(session, asked.instance_uuid) == made.ref


def test_what_a_machine_is_made_of_is_read_as_it_was_made(session: Session) -> None:
    made = make(session, machine(session, "made-9"), IMPATIENT)

    found = read_hardware(session, made.ref)

    assert (set(found.controllers), found.cards) == (set(HARDWARE.controllers), HARDWARE.cards)
    assert (found.cpus, found.cores_per_socket, found.memory_mib, found.firmware) == (4, 2, 2048, "efi")
    assert (found.guest_os, found.annotation) == ("debian10_64Guest", HARDWARE.annotation)
    assert (found.bios_uuid, found.name, found.has_vtpm) == (HARDWARE.bios_uuid, "made-9", False)


def test_done_again_it_is_adopted_by_its_mark(session: Session) -> None:
    asked = machine(session, "made-2")
    first, second = make(session, asked, IMPATIENT), make(session, asked, IMPATIENT)

    assert (first.ref, first.disks) == (second.ref, second.disks)


def test_another_vm_of_that_uuid_is_left_alone(session: Session) -> None:
    asked = machine(session, "made-3")
    made = make(session, replace(asked, mark="installation-1/other"), IMPATIENT)

    with pytest.raises(ForeignVmError, match="already has a VM"):
        make(session, asked, IMPATIENT)
    assert not destroy(session, asked.instance_uuid, asked.mark, IMPATIENT)
    assert mark_of(session, made.ref) == "installation-1/other"


def test_only_a_marked_vm_is_deleted_with_its_files(session: Session, vsphere: object) -> None:
    asked = machine(session, "made-4")
    made = make(session, asked, IMPATIENT)

    assert destroy(session, asked.instance_uuid, asked.mark, IMPATIENT)
    assert find(session, asked.instance_uuid) is None
    assert not destroy(session, asked.instance_uuid, asked.mark, IMPATIENT)
    again = make(session, asked, IMPATIENT)
    assert again.ref != made.ref
    assert clear(session, again.ref, asked.mark, IMPATIENT)
    assert not destroy(session, asked.instance_uuid, asked.mark, IMPATIENT)
    assert mark_of(session, again.ref) is None


def test_networks_are_mapped_by_name_or_refused(session: Session) -> None:
    mapped = machine(session, "made-5", networks={"VM Network": "DC0_DVPG0"})
    made = make(session, mapped, IMPATIENT)
    seen = read(session, [vim.VirtualMachine(made.ref, session.stub)], ["config.hardware.device"])[0]
    cards = [one for one in seen["config.hardware.device"] if isinstance(one, vim.vm.device.VirtualVmxnet3)]
    assert isinstance(cards[0].backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo)

    with pytest.raises(NoSuchPlaceError, match="no network of that name"):
        make(session, machine(session, "made-6", networks={"VM Network": "nowhere"}), IMPATIENT)
    with pytest.raises(NoSuchPlaceError, match="the VM in the restore point has VM Network"):
        make(session, machine(session, "made-6", networks={"LAN": "VM Network"}), IMPATIENT)


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ({"host": "DC0_H9"}, NoSuchPlaceError, "Did you mean"),
        ({"datastore": "nowhere"}, NoSuchPlaceError, "datastore 'nowhere'"),
        ({"folder": "no/such"}, NoSuchPlaceError, "folder 'no/such'"),
        ({"pool": "nowhere"}, NoSuchPlaceError, "resource pool 'nowhere'"),
        ({"disk_datastores": {"scsi0:0": "nowhere"}}, NoSuchPlaceError, "datastore 'nowhere'"),
        ({"allocated_bytes": {"scsi0:0": 1 << 60}}, DatastoreFullError, "bytes free"),
    ],
)
def test_places_that_are_not_there_are_refused_by_name(
    session: Session, wanted: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_spot(read_inventory(session), replace(ORIGINAL, **wanted), ORIGINAL)


def test_a_place_is_found_by_host_and_pool_and_folder(session: Session) -> None:
    inventory = read_inventory(session)
    wanted = Wanted("new", folder="DC0/vm", pool="DC0_C0", datastore="LocalDS_1")

    spot = find_spot(inventory, wanted, ORIGINAL)

    assert inventory.places[spot.pool].name == "Resources"
    assert inventory.hosts[spot.host].name.startswith("DC0_C0")
    assert (spot.datacenter, inventory.places[spot.folder].name) == ("DC0", "vm")


def test_a_name_that_is_taken_is_refused(session: Session) -> None:
    vm = make_vm(session, MIB)
    with pytest.raises(NameTakenError, match=vm.name):
        find_spot(read_inventory(session), replace(ORIGINAL, name=vm.name), ORIGINAL)


def test_a_host_in_maintenance_is_refused(session: Session) -> None:
    inventory = read_inventory(session)
    host = next(iter(inventory.hosts.values()))
    resting = replace(inventory, hosts={**inventory.hosts, host.ref: replace(host, in_maintenance=True)})
    with pytest.raises(HostUnavailableError, match="maintenance"):
        find_spot(resting, replace(ORIGINAL, host=host.name), ORIGINAL)


def test_read_vm_of_a_made_machine_shows_it_off(session: Session) -> None:
    made = make(session, machine(session, "made-7"), IMPATIENT)
    assert not read_vm(session, made.ref).powered_on
