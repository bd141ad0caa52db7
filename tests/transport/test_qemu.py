"""VMDKs that are not flat: every kind that qemu-img makes, chains, and what is wrong with them."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.command import ServedSource, ServerFailedError, ToolMissingError
from proxy_worker.transport.datastore import Datastore, LinkOutsideError, OutsideDatastoreError
from proxy_worker.transport.image import open_image
from proxy_worker.transport.named import open_path
from proxy_worker.transport.qemu import open_qemu
from proxy_worker.transport.source import ConnectionLostError, DiskSource
from proxy_worker.transport.vmdk import (
    DiskCycleError,
    ExtentMissingError,
    ParentChangedError,
    ParentMissingError,
    VmdkDamagedError,
    VmdkError,
)

from .conftest import MIB, convert, read_all, tool, wait_for, write_flat

SPARSE_KINDS = ("monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized")


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "qemu-nbd"]


@pytest.mark.parametrize("subformat", SPARSE_KINDS)
def test_reads_what_the_raw_original_has(tmp_path: Path, raw_image: Path, content: bytes, subformat: str) -> None:
    convert(raw_image, tmp_path / "x.vmdk", subformat)
    with open_path(str(tmp_path / "x.vmdk")) as source:
        assert isinstance(source, ServedSource)
        assert isinstance(source, DiskSource)
        assert source.mode == TransportMode.DIRECT_STORAGE
        assert f"{subformat} disk through qemu-nbd" in source.mode_reason
        assert read_all(source) == content
        assert sum(extent.length for extent in source.allocated(0, source.size_bytes)) < len(content)
        assert len(servers()) == 1
    assert servers() == []


def overwrite(vmdk: Path, offset: int, length: int, pattern: int) -> None:
    command = f"write -P {pattern} {offset} {length}"
    subprocess.run([tool("qemu-io"), "-f", "vmdk", "-c", command, str(vmdk)], check=True, stdout=subprocess.DEVNULL)


def make_chain(folder: Path, base: Path, content: bytes, deltas: int = 2) -> bytes:
    """Deltas d1, d2 … on a base, each with a megabyte of its own; the content of the last."""
    changed = bytearray(content)
    below = base
    for number in range(1, deltas + 1):
        delta = folder / f"d{number}.vmdk"
        create = [
            tool("qemu-img"),
            "create",
            "-q",
            "-f",
            "vmdk",
            "-F",
            "vmdk",
            "-b",
            os.path.relpath(below, folder),
        ]
        subprocess.run([*create, str(delta)], check=True, cwd=folder)
        overwrite(delta, number * MIB, 2 * MIB, number)
        changed[number * MIB : (number + 2) * MIB] = bytes([number]) * (2 * MIB)
        below = delta
    return bytes(changed)


@pytest.mark.parametrize("base", [*SPARSE_KINDS, "monolithicFlat", "vmfs"])
def test_reads_a_chain_of_deltas(folder: Path, raw_image: Path, content: bytes, base: str) -> None:
    if base == "vmfs":
        write_flat(folder, "base", content)
    else:
        convert(raw_image, folder / "base.vmdk", base)
    expected = make_chain(folder, folder / "base.vmdk", content)
    with open_path(str(folder / "d2.vmdk")) as source:
        assert "with 2 deltas" in source.mode_reason
        assert read_all(source) == expected


def write_esx_delta(folder: Path, name: str, parent: str, *, parent_cid: int, sectors: int, grain: bytes) -> None:
    """A snapshot's delta as ESXi writes it (VMFSSPARSE): one grain, at the disk's sector 128."""
    tables = -(-sectors // 4096)
    directory_sector, table_sector = 4, 8
    grain_sector = table_sector + 32
    head = struct.pack("<4sIIIIII", b"COWD", 1, 3, sectors, 1, directory_sector, tables)
    data = bytearray(grain_sector * 512 + len(grain))
    data[: len(head)] = head
    struct.pack_into("<I", data, directory_sector * 512, table_sector)
    for index in range(len(grain) // 512):
        struct.pack_into("<I", data, table_sector * 512 + (128 + index) * 4, grain_sector + index)
    data[grain_sector * 512 :] = grain
    (folder / f"{name}-delta.vmdk").write_bytes(data)
    (folder / f"{name}.vmdk").write_text(
        f"""# Disk DescriptorFile
version=1
CID=0badcafe
parentCID={parent_cid:08x}
createType="vmfsSparse"
parentFileNameHint="{parent}"
RW {sectors} VMFSSPARSE "{name}-delta.vmdk"
"""
    )


@pytest.mark.parametrize("hint", ["web01.vmdk", "/vmfs/volumes/5f1e-aa/web01.vmdk", "[ds1] web01.vmdk"])
def test_reads_a_snapshot_of_esxi(folder: Path, datastore: Datastore, content: bytes, hint: str) -> None:
    write_flat(folder, "web01", content, cid=0x1234ABCD)
    grain = b"changed since" * 315 + b"!"
    assert len(grain) == 8 * 512
    write_esx_delta(folder, "web01-000001", hint, parent_cid=0x1234ABCD, sectors=len(content) // 512, grain=grain)
    with open_qemu(open_image(datastore, "web01-000001.vmdk"), reason="test") as source:
        assert read_all(source) == content[: 128 * 512] + grain + content[136 * 512 :]


def test_zero_and_read_only_extents_are_part_of_the_disk(tmp_path: Path, raw_image: Path, content: bytes) -> None:
    """qemu-nbd by itself leaves both out, which would shift everything behind them."""
    convert(raw_image, tmp_path / "x.vmdk", "twoGbMaxExtentSparse")
    text = (tmp_path / "x.vmdk").read_bytes().rstrip(b"\0").decode()
    line = next(line for line in text.splitlines() if line.startswith("RW "))
    (tmp_path / "x.vmdk").write_text(text.replace(line, f"RW 128 ZERO\n{line.replace('RW', 'RDONLY')}\nRW 64 ZERO"))
    with open_path(str(tmp_path / "x.vmdk")) as source:
        padding = source.size_bytes - 128 * 512 - len(content) - 64 * 512
        assert 0 <= padding < 64 << 10
        assert read_all(source) == bytes(128 * 512) + content + bytes(padding + 64 * 512)


def test_a_parent_that_was_changed_is_named(folder: Path, datastore: Datastore, content: bytes) -> None:
    write_flat(folder, "web01", content, cid=0x1234ABCD)
    sectors = len(content) // 512
    write_esx_delta(folder, "web01-000001", "web01.vmdk", parent_cid=0x99999999, sectors=sectors, grain=bytes(512))
    with pytest.raises(ParentChangedError, match="expects content 99999999, the parent has 1234abcd"):
        open_image(datastore, "web01-000001.vmdk")


def test_missing_and_cyclic_parents_are_named(folder: Path, datastore: Datastore, content: bytes) -> None:
    sectors = len(content) // 512
    write_esx_delta(folder, "a", "b.vmdk", parent_cid=0x0BADCAFE, sectors=sectors, grain=bytes(512))
    with pytest.raises(ParentMissingError, match=r"the parent of a.vmdk is missing"):
        open_image(datastore, "a.vmdk")
    write_esx_delta(folder, "b", "a.vmdk", parent_cid=0x0BADCAFE, sectors=sectors, grain=bytes(512))
    with pytest.raises(DiskCycleError, match=r"a.vmdk -> b.vmdk -> a.vmdk"):
        open_image(datastore, "a.vmdk")
    write_esx_delta(folder, "b", "../outside.vmdk", parent_cid=0x0BADCAFE, sectors=sectors, grain=bytes(512))
    with pytest.raises(OutsideDatastoreError, match=r"'../outside.vmdk', which b.vmdk refers to"):
        open_image(datastore, "a.vmdk")
    (folder / "b.vmdk").unlink()
    (folder / "b.vmdk").symlink_to("/etc/hostname")
    with pytest.raises(LinkOutsideError):
        open_image(datastore, "a.vmdk")


def test_a_missing_part_of_a_split_disk_is_named(folder: Path, datastore: Datastore, raw_image: Path) -> None:
    convert(raw_image, folder / "x.vmdk", "twoGbMaxExtentSparse")
    (folder / "x-s001.vmdk").unlink()
    with pytest.raises(ExtentMissingError, match=r"x-s001.vmdk in datastore ds1 not found"):
        open_image(datastore, "x.vmdk")


@pytest.mark.parametrize("subformat", SPARSE_KINDS)
def test_no_truncation_reads_as_another_disk(
    tmp_path: Path, raw_image: Path, content: bytes, subformat: str
) -> None:
    """A cut file is an error, or all its data are there; never zeros where there were data."""
    convert(raw_image, tmp_path / "x.vmdk", subformat)
    victim = tmp_path / ("x-s001.vmdk" if subformat.startswith("twoGb") else "x.vmdk")
    whole = victim.read_bytes()
    size = len(whole)
    datastore = Datastore("ds1", tmp_path)
    for cut in (0, 1, 300, 511, 512, 1000, 65536, size // 2, size - 140000, size - 70000, size - 1025, size - 1):
        victim.write_bytes(whole[:cut])
        try:
            open_image(datastore, "x.vmdk").close()
        except VmdkError:
            continue
        with open_path(str(tmp_path / "x.vmdk")) as source:
            assert read_all(source) == content
    victim.write_bytes(whole)
    open_image(datastore, "x.vmdk").close()


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (4, struct.pack("<I", 9), "version 9"),
        (12, struct.pack("<Q", 0), "makes no sense"),
        (12, struct.pack("<Q", 1 << 50), "its header|claims"),
        (20, struct.pack("<Q", 0), "makes no sense"),
        (28, struct.pack("<Q", 0), "no descriptor of its own"),
        (36, struct.pack("<Q", 1 << 40), "its descriptor claims"),
        (56, struct.pack("<Q", 1 << 40), "its tables reach"),
    ],
)
def test_a_damaged_header_is_named(
    datastore: Datastore, raw_image: Path, offset: int, value: bytes, words: str
) -> None:
    folder = datastore.root
    convert(raw_image, folder / "x.vmdk", "monolithicSparse")
    with (folder / "x.vmdk").open("r+b") as file:
        file.seek(offset)
        file.write(value)
    with pytest.raises(VmdkError, match=words):
        open_image(datastore, "x.vmdk")


@given(magic=st.sampled_from([b"KDMV", b"COWD"]), rest=st.binary(max_size=600), padding=st.integers(0, 4096))
def test_a_forged_header_gives_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, rest: bytes, padding: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "forged"
    folder.mkdir(exist_ok=True)
    version = struct.pack("<I", 1)
    (folder / "x.vmdk").write_bytes(magic + version + rest + bytes(padding))
    with pytest.raises(VmdkError):
        open_image(Datastore("ds1", folder), "x.vmdk")


def test_an_embedded_descriptor_can_not_name_other_files(
    folder: Path, datastore: Datastore, raw_image: Path
) -> None:
    convert(raw_image, folder / "x.vmdk", "monolithicSparse")
    data = (folder / "x.vmdk").read_bytes()
    (folder / "x.vmdk").write_bytes(data.replace(b'SPARSE "x.vmdk"', b'FLAT "/x.v" 0  '))
    with pytest.raises(VmdkDamagedError, match="names other extents than itself"):
        open_image(datastore, "x.vmdk")


def test_a_missing_qemu_nbd_is_named_with_its_package(
    tmp_path: Path, raw_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(raw_image, tmp_path / "x.vmdk", "monolithicSparse")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"qemu-nbd isn't installed.*qemu-utils"):
        open_path(str(tmp_path / "x.vmdk"))


def test_a_qemu_nbd_that_fails_is_quoted(tmp_path: Path, raw_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(raw_image, tmp_path / "x.vmdk", "monolithicSparse")
    fake = tmp_path / "bin" / "qemu-nbd"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'no more loop devices' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(ServerFailedError, match=r"exit status 3.*no more loop devices"):
        open_path(str(tmp_path / "x.vmdk"))


def test_a_qemu_nbd_that_dies_in_mid_read_is_an_error_at_once(tmp_path: Path, raw_image: Path) -> None:
    convert(raw_image, tmp_path / "x.vmdk", "monolithicSparse")
    with open_path(str(tmp_path / "x.vmdk")) as source:
        source.read_into(0, memoryview(bytearray(512)))
        servers()[0].kill()
        with pytest.raises(ConnectionLostError, match="ended by signal 9"):
            source.read_into(0, memoryview(bytearray(MIB)))


def test_qemu_nbd_does_not_outlive_a_process_that_is_killed(tmp_path: Path, raw_image: Path) -> None:
    convert(raw_image, tmp_path / "x.vmdk", "monolithicSparse")
    program = (
        "import sys, threading\n"
        "from proxy_worker.transport.named import open_path\n"
        "sources = []\n"
        # The thread that opens the disk ends before the disk is closed: qemu-nbd must not end with it.
        "opening = threading.Thread(target=lambda: sources.append(open_path(sys.argv[1])))\n"
        "opening.start(); opening.join()\n"
        "sources[0].read_into(0, memoryview(bytearray(512)))\n"
        "print('reading', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "x.vmdk")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reading\n"
        (server,) = [process for process in psutil.Process(child.pid).children() if process.name() == "qemu-nbd"]
        child.send_signal(signal.SIGKILL)
        child.wait()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "qemu-nbd has gone")
