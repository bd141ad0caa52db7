"""The VMs of a datastore, and those among them that can't be protected as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import DiskAddress, InventoryVm
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.inventory import DatastoreUnreadableError, read_configuration, scan_datastore

from .conftest import write_flat

SECTORS = bytes(1024)


def make_vm(folder: Path, name: str, *lines: str, uuid: str | None = "564d00000000000000000000000000aa") -> Path:
    """A VM with one flat disk, and whatever `lines` add to its VMX."""
    (folder / name).mkdir()
    write_flat(folder / name, name, SECTORS)
    vmx = folder / name / f"{name}.vmx"
    head = [f'displayName = "{name}"', f'scsi0:0.fileName = "{name}.vmdk"']
    if uuid is not None:
        head.append(f'uuid.bios = "{uuid}"')
    vmx.write_text("\n".join([*head, *lines]) + "\n")
    return vmx


def scan_one(folder: Path) -> InventoryVm:
    (vm,) = scan_datastore("ds1", folder)
    return vm


def test_a_vm_with_its_disks_and_configuration(folder: Path) -> None:
    make_vm(
        folder,
        "web01",
        'nvram = "web01.nvram"',
        'sata0:1.fileName = "raw.img"',
        'ide0:0.fileName = "nbd://array/x"',
    )
    (folder / "web01" / "raw.img").write_bytes(bytes(1234))
    (folder / "web01" / "web01.nvram").write_bytes(b"nvram")
    (folder / ".snapshot").mkdir()
    (folder / "empty").mkdir()
    vm = scan_one(folder)
    assert (vm.identity.name, vm.identity.vm_id) == ("web01", "564d0000-0000-0000-0000-0000000000aa")
    assert vm.problem is None
    assert [(disk.key, disk.address, disk.size_bytes) for disk in vm.disks] == [
        ("scsi0:0", DiskAddress(datastore="ds1", path="web01/web01.vmdk"), 1024),
        ("sata0:1", DiskAddress(datastore="ds1", path="web01/raw.img"), 1234),
        ("ide0:0", DiskAddress(nbd_uri="nbd://array/x"), None),
    ]
    assert [address.path for address in vm.configuration] == ["web01/web01.vmx", "web01/web01.nvram"]


def test_a_vm_without_a_uuid_is_known_by_its_name(folder: Path) -> None:
    make_vm(folder, "web01", uuid=None)
    assert scan_one(folder).identity.vm_id.startswith("name-")


def test_a_vm_with_a_truncated_vmx_is_listed_with_its_problem(folder: Path) -> None:
    vmx = make_vm(folder, "web01")
    vmx.write_bytes(vmx.read_bytes()[:40])
    vm = scan_one(folder)
    assert vm.identity.name == "web01"
    assert vm.problem is not None
    assert "web01/web01.vmx can't be read as a VMX" in vm.problem


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('scsi0:1.fileName = "gone.vmdk"', "scsi0:1: web01/gone.vmdk in datastore ds1 not found"),
        ('scsi0:1.fileName = "/etc/passwd"', "lies outside datastore ds1"),
        ('scsi0:1.fileName = "../../x.vmdk"', "lies outside datastore ds1"),
        ('scsi0:1.fileName = "nbd://h:x/"', "isn't an NBD URI"),
    ],
)
def test_a_disk_that_can_not_be_read_is_the_vms_problem(folder: Path, line: str, words: str) -> None:
    make_vm(folder, "web01", line)
    vm = scan_one(folder)
    assert vm.problem is not None
    assert words in vm.problem
    assert "scsi0:0" in [disk.key for disk in vm.disks]


def test_two_vms_of_one_uuid_are_both_reported(folder: Path) -> None:
    make_vm(folder, "web01")
    make_vm(folder, "web02")
    make_vm(folder, "db", uuid="564d00000000000000000000000000bb")
    first, second, third = sorted(scan_datastore("ds1", folder), key=lambda vm: vm.identity.name, reverse=True)
    assert "web01/web01.vmx" in (first.problem or "")
    assert "web02/web02.vmx" in (second.problem or "")
    assert third.problem is None


def test_a_vm_without_disks_has_a_problem(folder: Path) -> None:
    make_vm(folder, "web01", 'scsi0.present = "FALSE"')
    assert scan_one(folder).problem == "it has no disks"


def test_a_vmx_that_is_a_link_out_of_the_datastore_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.vmx").write_text('displayName = "secret"\n')
    (folder / "web01").mkdir()
    (folder / "web01" / "web01.vmx").symlink_to(tmp_path / "secret.vmx")
    assert "a link leads outside" in (scan_one(folder).problem or "")


def test_names_that_are_not_utf8_are_listed_with_their_problem(folder: Path) -> None:
    strange = os.fsencode(folder) + b"/b\xfcro"
    Path(os.fsdecode(strange)).mkdir()
    Path(os.fsdecode(strange), "x.vmx").write_bytes(b'displayName = "x"\n')
    vm = scan_one(folder)
    assert "isn't printable UTF-8" in (vm.problem or "")
    assert vm.model_dump_json()


def test_a_datastore_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatastoreUnreadableError, match=r"can't list datastore ds1 at .*Is it mounted"):
        scan_datastore("ds1", tmp_path / "unmounted")


def test_an_empty_folder_is_taken_for_a_datastore_that_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(DatastoreUnreadableError, match=r"datastore ds1 at .*its folder is empty.*Is it mounted"):
        scan_datastore("ds1", tmp_path)
    (tmp_path / "lost+found").mkdir()
    assert scan_datastore("ds1", tmp_path) == ()


def test_configuration_is_read_within_the_datastore(folder: Path) -> None:
    vmx = make_vm(folder, "web01")
    connections = Connections(datastores={"ds1": DatastoreConnection(path=folder)})
    address = DiskAddress(datastore="ds1", path="web01/web01.vmx")
    assert read_configuration(address, connections) == vmx.read_bytes()
    with pytest.raises(DatastoreUnreadableError, match="no path"):
        read_configuration(address, Connections())
