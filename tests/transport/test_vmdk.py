"""VMDK descriptors: those of every product, and everything that isn't one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.transport.vmdk import (
    Descriptor,
    ExtentKind,
    VmdkDamagedError,
    VmdkError,
    VmdkUnsupportedError,
    parse_descriptor,
)

DESCRIPTOR = """# Disk DescriptorFile
version=4
encoding="windows-1252"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW 20971520 VMFS "web01-flat.vmdk"

# Change Tracking File
changeTrackPath="web01-ctk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.uuid = "60 00 C2 9f 1b 5a"
"""


def parse(text: str) -> Descriptor:
    return parse_descriptor(text.encode(), "web01.vmdk")


def test_a_descriptor_of_esxi() -> None:
    found = parse(DESCRIPTOR)
    assert (found.create_type, found.cid, found.has_parent) == ("vmfs", 0xFFFFFFFE, False)
    assert found.size_bytes == 20971520 * 512
    (extent,) = found.extents
    assert (extent.kind, extent.file_name, extent.offset_sectors) == (ExtentKind.VMFS, "web01-flat.vmdk", 0)


def test_line_ends_and_a_mark_of_utf8_make_no_difference() -> None:
    assert parse_descriptor(b"\xef\xbb\xbf" + DESCRIPTOR.replace("\n", "\r\n").encode(), "x") == parse(DESCRIPTOR)


def test_a_delta_says_where_its_parent_is() -> None:
    text = DESCRIPTOR.replace("parentCID=ffffffff", 'parentCID=12ab34cd\nparentFileNameHint="../base/base.vmdk"')
    found = parse(text)
    assert (found.has_parent, found.parent_cid, found.parent_hint) == (True, 0x12AB34CD, "../base/base.vmdk")


def test_several_extents_of_different_kinds() -> None:
    lines = 'RW 100 FLAT "a b.vmdk" 63\nRDONLY 50 ZERO\nRW 8 SPARSE "c.vmdk"\nRW 8 VMFSSPARSE "d.vmdk"'
    found = parse(DESCRIPTOR.replace('RW 20971520 VMFS "web01-flat.vmdk"', lines))
    assert [extent.kind for extent in found.extents] == ["FLAT", "ZERO", "SPARSE", "VMFSSPARSE"]
    assert found.extents[0].offset_sectors == 63
    assert found.size_bytes == 166 * 512


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# Disk DescriptorFile", "# Something", "doesn't begin with"),
        ('RW 20971520 VMFS "web01-flat.vmdk"', "", "names no extents, so it is truncated"),
        ('RW 20971520 VMFS "web01-flat.vmdk"', 'RW 20971520 VMFS "web01-fl', "neither a key nor an extent"),
        ('RW 20971520 VMFS "web01-flat.vmdk"', "RW 20971520 VMFS", "names no file"),
        ("RW 20971520", "RW 0", "0 sectors"),
        ("RW 20971520", "RW 99999999999999999", "sectors"),
        ("CID=fffffffe", "", "CID is missing"),
        ("CID=fffffffe", "CID=xyz", "isn't a content id"),
        ('createType="vmfs"', "", "createType is missing"),
        ("parentCID=ffffffff", "parentCID=00000001", "doesn't say where"),
        ("windows-1252", "rot13", "isn't one that VMware writes"),
        ("windows-1252", "klingon", "is unknown"),
        ("web01-ctk", "web\0ctk", "zero bytes"),
    ],
)
def test_damaged_descriptors_are_named(old: str, new: str, words: str) -> None:
    assert old in DESCRIPTOR
    with pytest.raises(VmdkDamagedError, match=words):
        parse(DESCRIPTOR.replace(old, new, 1))


@pytest.mark.parametrize("line", ["RW 8 SESPARSE", "RW 8 VMFSRDM", "RW 8 VMFSRAW", "NOACCESS 8 FLAT"])
def test_kinds_that_direct_storage_can_not_read_are_named(line: str) -> None:
    with pytest.raises(VmdkUnsupportedError):
        parse(DESCRIPTOR.replace("RW 20971520 VMFS", line))


def test_a_split_disk_that_ends_between_two_extents_is_truncated() -> None:
    text = '# Disk DescriptorFile\nCID=1\ncreateType="twoGbMaxExtentFlat"\nRW 8 FLAT "a-f001.vmdk" 0\n'
    with pytest.raises(VmdkDamagedError, match="disk data base after the extents is missing"):
        parse(text)


def test_an_empty_file_is_no_descriptor() -> None:
    with pytest.raises(VmdkDamagedError, match="it is empty"):
        parse("")


@given(st.integers(min_value=0, max_value=len(DESCRIPTOR)))
def test_every_truncation_gives_the_whole_disk_or_a_named_error(length: int) -> None:
    try:
        found = parse(DESCRIPTOR[:length])
    except VmdkError:
        return
    assert found.size_bytes == 20971520 * 512
    assert found.extents == parse(DESCRIPTOR).extents


_LINES = [*DESCRIPTOR.splitlines(), 'RW 8 FLAT "a" 0', "RW 8 ZERO", 'encoding="', "RW -1 FLAT", "a=b=c", '"']


@given(st.lists(st.one_of(st.sampled_from(_LINES), st.text(max_size=30)), max_size=20))
def test_shuffled_and_foreign_lines_never_give_anything_else(lines: list[str]) -> None:
    text = "\n".join(["# Disk DescriptorFile", *lines])
    try:
        found = parse_descriptor(text.encode("utf-8", "surrogatepass"), "x.vmdk")
    except VmdkError:
        return
    assert found.size_bytes > 0


@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_a_named_error(data: bytes, marked: bool) -> None:
    mark = b"# Disk DescriptorFile\n" if marked else b""
    try:
        found = parse_descriptor(mark + data, "x.vmdk")
    except VmdkError:
        return
    assert found.extents
