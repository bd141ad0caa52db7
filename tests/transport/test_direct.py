"""Direct storage: raw and flat disks in place, and disks that go wrong under the reader."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport import direct
from proxy_worker.transport.datastore import Datastore, DiskNotFoundError, LinkOutsideError
from proxy_worker.transport.direct import DirectSource
from proxy_worker.transport.image import open_image
from proxy_worker.transport.named import open_path
from proxy_worker.transport.source import DiskShrunkError, DiskSource, DiskUnreadableError
from proxy_worker.transport.vmdk import ExtentMissingError, VmdkDamagedError

from .conftest import MIB, convert, read_all, tool, write_flat


def test_reads_a_raw_disk(raw_image: Path, content: bytes) -> None:
    with open_path(str(raw_image)) as source:
        assert isinstance(source, DiskSource)
        assert source.mode == TransportMode.DIRECT_STORAGE
        assert "raw disk" in source.mode_reason
        assert read_all(source) == content
        assert sum(extent.length for extent in source.allocated(0, source.size_bytes)) < len(content)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4097])
def test_reads_disks_of_any_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.img").write_bytes(os.urandom(size))
    with open_path(str(tmp_path / "x.img")) as source:
        assert source.size_bytes == size
        assert read_all(source) == (tmp_path / "x.img").read_bytes()


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentFlat"])
def test_reads_flat_vmdks(tmp_path: Path, raw_image: Path, content: bytes, subformat: str) -> None:
    convert(raw_image, tmp_path / "x.vmdk", subformat)
    with open_path(str(tmp_path / "x.vmdk")) as source:
        assert isinstance(source, DirectSource)
        assert read_all(source) == content


def write_split(folder: Path, content: bytes, *, sectors: int = 700) -> Path:
    """A flat disk in many extents, with offsets in their files and a piece of zeros at the end."""
    lines = []
    for number, at in enumerate(range(0, len(content), sectors * 512)):
        piece = content[at : at + sectors * 512]
        (folder / f"s{number:03}.vmdk").write_bytes(bytes(512 * number) + piece + b"not of the disk")
        lines.append(f'RW {len(piece) // 512} FLAT "s{number:03}.vmdk" {number}')
    head = '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="custom"\n'
    (folder / "split.vmdk").write_text("\n".join((head, *lines, "RW 3000 ZERO", 'ddb.adapterType = "ide"\n')))
    return folder / "split.vmdk"


def test_reads_across_extents(tmp_path: Path, content: bytes) -> None:
    whole = content + bytes(3000 * 512)
    with open_path(str(write_split(tmp_path, content))) as source:
        assert source.size_bytes == len(whole)
        assert read_all(source) == whole
        for offset, length in (
            (0, len(whole)),
            (700 * 512 - 1, 2),
            (699 * 512, 3 * 700 * 512),
            (len(whole) - 1, 1),
        ):
            data = bytearray(b"x" * length)
            source.read_into(offset, memoryview(data))
            assert data == whole[offset : offset + length]
        assert list(source.allocated(len(content), 3000 * 512)) == []


@given(data=st.data())
def test_allocated_covers_all_data_of_any_range(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("holes") / "x.img"
    size = data.draw(st.integers(1, 1 << 20))
    writes = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, 5000)), max_size=5))
    with path.open("wb") as file:
        file.truncate(size)
        for at, length in writes:
            file.seek(at)
            file.write(b"x" * min(length, size - at))
    start = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - start))
    with open_path(str(path)) as source:
        found = list(source.allocated(start, length))
        covered = bytearray(size)
        for extent in found:
            assert start <= extent.offset
            assert extent.offset + extent.length <= start + length
            covered[extent.offset : extent.offset + extent.length] = b"x" * extent.length
        content = path.read_bytes()
        assert all(covered[at] or not content[at] for at in range(start, start + length, 97))


def test_a_disk_that_shrinks_is_named_with_the_offset(raw_image: Path, content: bytes) -> None:
    with open_path(str(raw_image)) as source:
        os.truncate(raw_image, 2 * MIB)
        with pytest.raises(DiskShrunkError, match="shrank while it was read") as failure:
            source.read_into(MIB, memoryview(bytearray(2 * MIB)))
        assert failure.value.offset == 2 * MIB
        with pytest.raises(DiskShrunkError):
            list(source.allocated(0, source.size_bytes))


def test_a_read_error_is_named_with_the_offset(raw_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_path(str(raw_image)) as source:

        def broken(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(DiskUnreadableError, match="Input/output error") as failure:
            source.read_into(MIB, memoryview(bytearray(MIB)))
        assert failure.value.offset == MIB


def test_missing_and_short_extents_are_named(folder: Path, datastore: Datastore, content: bytes) -> None:
    write_flat(folder, "web01", content)
    os.truncate(folder / "web01-flat.vmdk", len(content) - 1)
    with pytest.raises(VmdkDamagedError, match=r"web01-flat.vmdk is truncated"):
        open_image(datastore, "web01.vmdk")
    (folder / "web01-flat.vmdk").unlink()
    with pytest.raises(ExtentMissingError, match=r"an extent of web01.vmdk is missing"):
        open_image(datastore, "web01.vmdk")
    (folder / "web01-flat.vmdk").symlink_to("/etc/passwd")
    with pytest.raises(LinkOutsideError):
        open_image(datastore, "web01.vmdk")
    with pytest.raises(DiskNotFoundError):
        open_path(str(folder / "none.img"))


def test_a_raw_disk_is_never_taken_for_a_descriptor(folder: Path) -> None:
    """A guest that writes a descriptor to its disk must not be given the file it names."""
    forged = write_flat(folder, "forged", bytes(512)).read_bytes().ljust(1024, b"\0")
    (folder / "guest.img").write_bytes(forged)
    (folder / "guest-flat.vmdk").write_bytes(forged)
    for name in ("guest.img", "guest-flat.vmdk"):
        with open_path(str(folder / name)) as source:
            assert read_all(source) == forged


def cached_bytes(path: Path) -> int:
    found = subprocess.run([tool("fincore"), "-nbo", "RES", str(path)], check=True, capture_output=True, text=True)
    return int(found.stdout)


def drop_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_bytes(path) == 0


def test_reading_leaves_the_page_cache_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "big.img"
    path.write_bytes(os.urandom(8 * MIB))
    expected = path.read_bytes()
    drop_cache(path)
    with open_path(str(path)) as source:
        assert read_all(source) == expected
    if page_cache_can_be_spared(path):
        assert cached_bytes(path) <= 2 * MIB, "what was read must not stay"
    assert path.read_bytes() == expected
    with open_path(str(path)) as source:
        assert read_all(source) == expected
    assert cached_bytes(path) >= 7 * MIB, "what others had cached must stay"


def page_cache_can_be_spared(path: Path) -> bool:
    """Whether the kernel and the file system know uncached reading."""
    with path.open("rb") as file:
        return direct._reading_flags(file.fileno()) != 0


def test_where_the_page_cache_can_not_be_spared_reading_works_all_the_same(
    raw_image: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_DONT_CACHE", 1 << 30)  # a flag that no kernel knows
    with open_path(str(raw_image)) as source:
        assert read_all(source) == content


def test_next_to_no_python_per_mebibyte(tmp_path: Path) -> None:
    """A megabyte from the page cache costs what the kernel needs to copy it, about 0.1 ms."""
    path = tmp_path / "big.img"
    path.write_bytes(os.urandom(MIB) * 64)
    with open_path(str(path)) as source:
        buffer = memoryview(mmap.mmap(-1, MIB))

        def seconds() -> float:
            began = time.thread_time()
            for at in range(0, 64 * MIB, MIB):
                source.read_into(at, buffer)
            return time.thread_time() - began

        assert min(seconds() for _ in range(8)) < 64 * 0.0004


def test_many_threads_read_at_once(raw_image: Path, content: bytes) -> None:
    with open_path(str(raw_image)) as source, ThreadPoolExecutor(4) as threads:

        def check(start: int) -> bool:
            data = bytearray(min(100_000, len(content) - start))
            source.read_into(start, memoryview(data))
            return data == content[start : start + len(data)]

        assert all(threads.map(check, range(0, len(content), 50_000)))
        source.close()
        source.close()
