"""Which machine a VM becomes, and which firmware of this machine it starts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.boot.firmware import FirmwareMissingError, find_uefi
from proxy_worker.boot.machine import DiskBus, Firmware, MachineDisk, arguments, machine_for
from proxy_worker.transport.vmx_hardware import parse_hardware

VMX = b"""\
displayName = "web01"
uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"
memSize = "65536"
numvcpus = "8"
firmware = "efi"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi1.present = "TRUE"
"""


def test_a_vm_keeps_what_its_guest_needs_and_no_more() -> None:
    machine = machine_for(parse_hardware(VMX, "a VMX"), ["scsi0:0", "scsi1:0", "scsi9:0", "sata0:1"], most_cpus=2)
    assert (machine.firmware, machine.memory_mib, machine.cpus) == (Firmware.UEFI, 2048, 2)
    assert machine.bios_uuid == "564d1122-3344-5566-7788-99aabbccddee"
    assert [disk.bus for disk in machine.disks] == [DiskBus.SATA] * 4, "no UEFI that we have sees pvscsi"


def test_from_a_bios_a_vm_has_its_own_controllers_where_qemu_has_them() -> None:
    vmx = VMX.replace(b"efi", b"bios") + b'scsi2.present = "TRUE"\nscsi2.virtualDev = "lsisas1068"\n'
    machine = machine_for(parse_hardware(vmx, "a VMX"), ["scsi0:0", "scsi1:0", "scsi2:0", "ide1:0"], most_cpus=2)
    assert [disk.bus for disk in machine.disks] == ["pvscsi", "sata", "lsisas1068", "ide"]


def test_of_a_vm_without_a_configuration_the_least_is_assumed() -> None:
    machine = machine_for(None, ["nvme0:0", "scsi0:0", "vda"], most_cpus=2)
    assert (machine.firmware, machine.memory_mib, machine.cpus) == (Firmware.BIOS, 1024, 1)
    assert [disk.bus for disk in machine.disks] == [DiskBus.NVME, DiskBus.SATA, DiskBus.SATA]


def test_what_is_asked_for_overrides_what_the_vm_has() -> None:
    machine = machine_for(
        parse_hardware(VMX, "a VMX"),
        ["scsi0:0"],
        most_cpus=2,
        firmware=Firmware.BIOS,
        memory_mib=512,
        bus=DiskBus.VIRTIO,
    )
    assert (machine.firmware, machine.memory_mib) == (Firmware.BIOS, 512)
    assert machine.disks == (MachineDisk("scsi0:0", DiskBus.VIRTIO),)


@pytest.mark.parametrize(
    ("bus", "controllers"),
    [(DiskBus.PVSCSI, 2), (DiskBus.LSISAS1068, 3), (DiskBus.SATA, 3), (DiskBus.NVME, 0), (DiskBus.VIRTIO, 0)],
)
def test_a_vm_has_as_many_controllers_as_its_disks_need(bus: DiskBus, controllers: int) -> None:
    machine = machine_for(None, [f"scsi0:{number}" for number in range(17)], most_cpus=1, bus=bus)
    words = arguments(machine, nbd=Path("/s"), monitor=Path("/m"), kvm=False)
    devices = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-device"]
    disks = [device for device in devices if "drive" in device]
    assert len(devices) - len(disks) == controllers
    assert [disk["bootindex"] for disk in disks] == list(range(17))
    places = {(disk.get("bus"), disk.get("scsi-id"), disk.get("serial"), disk["drive"]) for disk in disks}
    assert len(places) == 17


def description(**changes: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "{folder}/code", "format": "raw"},
            "nvram-template": {"filename": "{folder}/variables", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["acpi-s3"],
    }
    return {**described, **changes}


def put(folder: Path, name: str, described: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(described).replace("{folder}", str(folder)))


def test_uefi_is_the_first_that_suits_such_vms(tmp_path: Path) -> None:
    for name in ("code", "variables"):
        (tmp_path / name).touch()
    put(tmp_path, "10-arm.json", description(targets=[{"architecture": "aarch64", "machines": ["virt-*"]}]))
    put(tmp_path, "20-secure.json", description(features=["requires-smm", "secure-boot"]))
    put(tmp_path, "30-bios.json", description(**{"interface-types": ["bios"]}))
    put(tmp_path, "40-memory.json", description(mapping={"device": "memory", "filename": "{folder}/code"}))
    (tmp_path / "50-broken.json").write_text("{")
    with pytest.raises(FirmwareMissingError, match="Install the package ovmf"):
        find_uefi((tmp_path,))
    put(tmp_path, "60-usual.json", description())
    assert find_uefi((tmp_path / "none", tmp_path)) == (tmp_path / "code", tmp_path / "variables")


def test_an_administrators_description_hides_that_of_a_package(tmp_path: Path) -> None:
    own, packaged = tmp_path / "own", tmp_path / "packaged"
    for folder in (own, packaged):
        folder.mkdir()
        for name in ("code", "variables"):
            (folder / name).touch()
        put(folder, "60-usual.json", description())
    assert find_uefi((own, packaged)) == (own / "code", own / "variables")
