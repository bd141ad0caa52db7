"""Disks with real filesystems, made without mounting anything: programs fill images, a table puts them together."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.system.commands import run_forked

MIB: Final = 1 << 20
_SECTOR: Final = 512
_EXTENT: Final = 4 * MIB
_FIRST_EXTENT: Final = MIB
_METADATA_AT: Final = 4096
_METADATA_SIZE: Final = _FIRST_EXTENT - _METADATA_AT


def run(*words: str | Path, given: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run a program that has to succeed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        words, input=given, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PATH": path, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def proxy_worker(*words: str, cwd: Path) -> str:
    """Run `proxy-worker` in a folder."""
    done = run_forked(["proxy-worker", *words], {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache")}, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_ext4(image: Path, size: int, content: Path) -> Path:
    """An ext4 with a folder's content."""
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", content, image, f"{size // MIB}M")
    return image


def make_ntfs(image: Path, size: int, files: Mapping[str, Path]) -> Path:
    """An NTFS with these files in its root folder."""
    _sized(image, size)
    run("mkntfs", "-q", "-F", "-f", "-L", "Windows", image)
    for name, source in files.items():
        run("ntfscp", "-f", image, source, name)
    return image


def make_xfs(image: Path, size: int, files: Mapping[str, Path]) -> Path:
    """An XFS with these files in its root folder. So small a one is made for tests of XFS only."""
    _sized(image, size)
    lines = ["/dev/null", "0 0", "d--755 0 0"]
    lines += [f"{name} ---640 7 8 {source}" for name, source in files.items()]
    proto = image.with_suffix(".proto")
    proto.write_text("\n".join([*lines, "$"]) + "\n")
    small = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
    run("mkfs.xfs", "-q", "-p", proto, image, environment=small)
    return image


def leave_unreplayed(image: Path, name: str, content: bytes) -> Path:
    """Write a file to an XFS, so that it is in the log and nowhere else, as if its power had gone. Needs root."""
    with tempfile.TemporaryDirectory() as point:
        run("mount", "-o", "loop", image, point)
        try:
            with (Path(point) / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            run("xfs_io", "-x", "-c", "shutdown -f", point)
        finally:
            run("umount", point)
    return image


def partitioned(image: Path, parts: Sequence[Path]) -> Path:
    """A disk with a GPT whose partitions have the content of these images."""
    sizes = [part.stat().st_size for part in parts]
    _sized(image, sum(sizes) + 2 * MIB)
    table = "label: gpt\n" + "".join(f"size={size // _SECTOR}\n" for size in sizes)
    run("sfdisk", "-q", image, given=table)
    at = MIB
    for part, size in zip(parts, sizes, strict=True):
        with image.open("r+b") as file:
            file.seek(at)
            file.write(part.read_bytes())
        at += size
    return image


def spread_over(images: Sequence[Path], group: str, volume: str, content: Path) -> None:
    """Disks that are LVM's physical volumes, one after the other, of a logical volume with this content.

    Written by hand, since LVM's own tools want block devices. The format: lvm2's lib/format_text/layout.h.
    """
    data = content.read_bytes()
    share = -(-len(data) // len(images) // _EXTENT) * _EXTENT
    text = _lvm_metadata(group, volume, [share // _EXTENT] * len(images))
    for number, image in enumerate(images):
        label = _label(_uuid(number).replace("-", ""), share + 2 * _EXTENT)
        with image.open("wb") as file:
            file.seek(_SECTOR)
            file.write(label)
            file.seek(_METADATA_AT)
            file.write(_metadata_area(text))
            file.seek(_FIRST_EXTENT)
            file.write(data[number * share : (number + 1) * share])
            file.truncate(share + 2 * _EXTENT)


def _label(uuid: str, size: int) -> bytes:
    areas = struct.pack("<QQQQ", _FIRST_EXTENT, 0, 0, 0) + struct.pack("<QQQQ", _METADATA_AT, _METADATA_SIZE, 0, 0)
    rest = struct.pack("<I8s", 32, b"LVM2 001") + uuid.encode() + struct.pack("<Q", size) + areas
    rest = rest.ljust(_SECTOR - 20, b"\0")
    return b"LABELONE" + struct.pack("<QI", 1, _crc(rest)) + rest


def _metadata_area(text: bytes) -> bytes:
    where = struct.pack("<QQII", _SECTOR, len(text), _crc(text), 0)
    rest = b" LVM2 x[5A%r0N*>" + struct.pack("<IQQ", 1, _METADATA_AT, _METADATA_SIZE) + where
    rest = rest.ljust(_SECTOR - 4, b"\0")
    return struct.pack("<I", _crc(rest)) + rest + text


def _crc(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _uuid(number: int) -> str:
    plain = f"{number:x}" * 32
    return "-".join((plain[:6], plain[6:10], plain[10:14], plain[14:18], plain[18:22], plain[22:26], plain[26:]))


def _lvm_metadata(group: str, volume: str, extents: Sequence[int]) -> bytes:
    physical, segments, at = "", "", 0
    for number, count in enumerate(extents):
        size = (count * _EXTENT + 2 * _EXTENT) // _SECTOR
        physical += (
            f'pv{number} {{ id = "{_uuid(number)}" device = "/dev/sdz" status = ["ALLOCATABLE"] flags = []\n'
            f"dev_size = {size} pe_start = {_FIRST_EXTENT // _SECTOR} pe_count = {count} }}\n"
        )
        segments += (
            f"segment{number + 1} {{ start_extent = {at} extent_count = {count}\n"
            f'type = "striped" stripe_count = 1 stripes = [ "pv{number}", 0 ] }}\n'
        )
        at += count
    return (
        f'{group} {{ id = "{_uuid(14)}" seqno = 1 format = "lvm2"\n'
        'status = ["RESIZEABLE", "READ", "WRITE"] flags = []\n'
        f"extent_size = {_EXTENT // _SECTOR} max_lv = 0 max_pv = 0 metadata_copies = 0\n"
        f"physical_volumes {{\n{physical}}}\n"
        f'logical_volumes {{ {volume} {{ id = "{_uuid(15)}"\n'
        'status = ["READ", "WRITE", "VISIBLE"] flags = []\n'
        f"segment_count = {len(extents)}\n{segments}}} }}\n}}\n"
        'contents = "Text Format Volume Group"\nversion = 1\ndescription = ""\n'
        'creation_host = "guest"\ncreation_time = 1700000000\n'
    ).encode() + b"\0"


def _sized(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
