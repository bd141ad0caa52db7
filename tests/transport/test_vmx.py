"""VMX files: which disks a VM has, and everything that isn't a VMX."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.transport.vmdk import VmdkError, parse_descriptor
from proxy_worker.transport.vmx import Vmx, VmxDamagedError, VmxDisk, parse_vmx

VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web01"
uuid.bios = "56 4d 3a 0f 11 22 33 44-55 66 77 88 99 aa bb CC"
nvram = "web01.nvram"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:1.present = "FALSE"
scsi0:1.fileName = "old.vmdk"
sata0.present = "TRUE"
sata0:0.present = "TRUE"
sata0:0.deviceType = "cdrom-image"
sata0:0.fileName = "/usr/lib/vmware/isoimages/linux.iso"
"""


def parse(text: str) -> Vmx:
    return parse_vmx(text.encode(), "web01/web01.vmx")


def test_a_vm_with_one_disk_a_removed_one_and_a_cdrom() -> None:
    assert parse(VMX) == Vmx(
        name="web01",
        uuid="564d3a0f-1122-3344-5566-778899aabbcc",
        disks=(VmxDisk("scsi0:0", "web01.vmdk"),),
        nvram="web01.nvram",
    )


def test_disks_of_every_bus_in_their_order() -> None:
    places = ("ide1:0", "nvme0:1", "scsi0:10", "scsi0:2", "sata0:3", "scsi1:0")
    text = "displayName=x\n" + "".join(f'{place}.fileName = "{place}.vmdk"\n' for place in places)
    found = [disk.key for disk in parse(text).disks]
    assert found == ["scsi0:2", "scsi0:10", "scsi1:0", "sata0:3", "nvme0:1", "ide1:0"]


def test_disks_of_a_controller_that_is_switched_off_are_absent() -> None:
    assert parse(VMX.replace('scsi0.present = "TRUE"', 'scsi0.present = "FALSE"')).disks == ()


def test_a_disk_behind_an_nbd_server() -> None:
    text = VMX.replace('"web01.vmdk"', '"nbd://array:10809/web01"')
    assert parse(text).disks == (VmxDisk("scsi0:0", "nbd://array:10809/web01"),)


def test_character_sets_and_escapes() -> None:
    assert parse(VMX.replace('"web01"', '"say |22hi|22 |7C ok"')).name == 'say "hi" | ok'
    latin = VMX.replace("UTF-8", "windows-1252").replace('displayName = "web01"', 'displayName = "Büro"')
    assert parse_vmx(latin.encode("cp1252"), "x.vmx").name == "Büro"
    chinese = VMX.replace("UTF-8", "GBK").replace('displayName = "web01"', 'displayName = "服务器"')
    assert parse_vmx(chinese.encode("gbk"), "x.vmx").name == "服务器"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('displayName = "web01"', "", "displayName is missing"),
        ('fileName = "web01.vmdk"', 'fileName = "web01.vm', "line 9 isn't of the form"),
        ('scsi0:0.fileName = "web01.vmdk"', "", "fileName is missing"),
        ("56 4d 3a", "56 4d", "isn't a UUID"),
        ("scsi-hardDisk", "scsi-passthru", "passed through"),
        ("web01.nvram", "web\0nvram", "zero bytes"),
        ('displayName = "web01"', 'displayName = "\udcff"', "isn't UTF-8"),
    ],
)
def test_damaged_vmx_files_are_named(old: str, new: str, words: str) -> None:
    assert old in VMX
    with pytest.raises(VmxDamagedError, match=words):
        parse_vmx(VMX.replace(old, new, 1).encode("utf-8", "surrogateescape"), "web01/web01.vmx")


@given(st.integers(min_value=0, max_value=len(VMX)))
def test_every_truncation_is_an_error_or_ends_after_a_line(length: int) -> None:
    try:
        found = parse(VMX[:length])
    except VmxDamagedError:
        return
    assert found.disks in {(), (VmxDisk("scsi0:0", "web01.vmdk"),)}


@given(st.lists(st.one_of(st.sampled_from(VMX.splitlines()), st.text(max_size=40)), max_size=20))
def test_foreign_lines_never_give_anything_but_a_named_error(lines: list[str]) -> None:
    try:
        found = parse_vmx("\n".join(lines).encode("utf-8", "surrogatepass"), "x.vmx")
    except VmxDamagedError:
        return
    assert found.name


@given(st.binary(max_size=400))
def test_garbage_is_a_named_error(data: bytes) -> None:
    with pytest.raises(VmxDamagedError):
        parse_vmx(data, "x.vmx")


@pytest.mark.parametrize("filler", [" ", "\n", "\t\n", "a", '"', "|", "a = b ", "\\"])
def test_a_forged_file_takes_no_longer_than_an_honest_one(filler: str) -> None:
    """Nested repetitions in a pattern would take hours for a megabyte of these."""
    for begin, end in (("", ""), ("a = b", '"'), ('a = "', ""), (".encoding = ", "!"), ('RW 1 FLAT "x" 0', "\x01")):
        data = (begin + filler * ((1 << 20) // len(filler)) + end).encode()
        began_s = time.process_time()
        with pytest.raises(VmxDamagedError):
            parse_vmx(data, "x.vmx")
        with pytest.raises(VmdkError):
            parse_descriptor(b"# Disk DescriptorFile\n" + data, "x.vmdk")
        assert time.process_time() - began_s < 5
