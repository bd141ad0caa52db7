"""What a VMX says of a VM's hardware."""

from __future__ import annotations

import pytest

from proxy_worker.transport.vmx import VmxDamagedError
from proxy_worker.transport.vmx_hardware import parse_hardware
from proxy_worker.vsphere.guests import guest_id
from proxy_worker.vsphere.hardware import Controller, NetworkCard

VMX = """.encoding = "UTF-8"
virtualHW.version = "19"
displayName = "web01"
guestOS = "windows9srv-64"
numvcpus = "4"
cpuid.coresPerSocket = "2"
memSize = "8192"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
uuid.bios = "56 4d 12 34 00 00 11 11-22 22 33 33 44 44 55 55"
nvram = "web01.nvram"
annotation = "first line|0Asecond"
disk.EnableUUID = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi1.present = "FALSE"
sata0.present = "TRUE"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:aa:bb:cc"
ethernet1.present = "TRUE"
ethernet1.addressType = "static"
ethernet1.address = "00:50:56:00:00:01"
ethernet1.startConnected = "FALSE"
"""


def test_hardware_is_read() -> None:
    found = parse_hardware(VMX.encode(), "web01.vmx")

    assert (found.cpus, found.cores_per_socket, found.memory_mib) == (4, 2, 8192)
    assert (found.firmware, found.secure_boot, found.hardware_version) == ("efi", True, 19)
    assert found.bios_uuid == "564d1234-0000-1111-2222-333344445555"
    assert (found.annotation, found.nvram, found.shows_disk_uuids) == ("first line\nsecond", "web01.nvram", True)
    assert found.controllers == (Controller("sata", 0, ""), Controller("scsi", 0, "pvscsi"))
    assert found.cards == (
        NetworkCard(0, "vmxnet3", "VM Network", "00:0c:29:aa:bb:cc", mac_is_static=False, connected=True),
        NetworkCard(1, "e1000", None, "00:50:56:00:00:01", mac_is_static=True, connected=False),
    )


def test_what_a_vmx_leaves_out_is_what_esxi_assumes() -> None:
    found = parse_hardware(b'displayName = "tiny"\n', "tiny.vmx")
    assert (found.cpus, found.memory_mib, found.firmware, found.controllers, found.cards) == (1, 32, "bios", (), ())


@pytest.mark.parametrize("text", ['memSize = "8192"\n', 'displayName = "x"\nnumvcpus = "many"\n', "\0"])
def test_a_damaged_vmx_is_refused(text: str) -> None:
    with pytest.raises(VmxDamagedError):
        parse_hardware(text.encode(), "bad.vmx")


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("windows9srv-64", "windows9Server64Guest"),
        ("ubuntu-64", "ubuntu64Guest"),
        ("rhel7-64", "rhel7_64Guest"),
        ("other", "otherGuest"),
        ("otherGuest64", "otherGuest64"),
        ("plan9", None),
    ],
)
def test_guests_have_other_names_in_the_interface(name: str, identifier: str | None) -> None:
    assert guest_id(name) == identifier
