"""Disks in every format, and NBD servers that misbehave on request."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.source import DiskSource

DEADLINE_S = 120.0
KIB = 1 << 10
MIB = 1 << 20


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} isn't installed; ops/system-packages.txt says where it comes from"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def read_all(source: DiskSource, block: int = 256 * KIB) -> bytes:
    """A disk's bytes, read as a mover does: what is allocated, block by block; the rest are zeros."""
    content = bytearray(source.size_bytes)
    view = memoryview(content)
    reached = 0
    for extent in source.allocated(0, source.size_bytes):
        assert extent.offset >= reached, "extents must ascend and not overlap"
        reached = extent.offset + extent.length
        assert reached <= source.size_bytes
        for at in range(extent.offset, reached, block):
            source.read_into(at, view[at : min(at + block, reached)])
    return bytes(content)


class NbdKit:
    """A running nbdkit."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], port: int | None) -> None:
        self.socket = folder / "nbdkit.sock"
        self.uri = f"nbd://127.0.0.1:{port}" if port else f"nbd+unix:///?socket={self.socket}"
        ready = folder / "ready"
        where = ["--ipaddr=127.0.0.1", f"--port={port}"] if port else [f"--unix={self.socket}"]
        command = [tool("nbdkit"), "--foreground", f"--pidfile={ready}", *where]
        self.process = subprocess.Popen([*command, *arguments])
        wait_for(lambda: ready.exists() or self.process.poll() is not None, "nbdkit listens")
        assert self.process.poll() is None, "nbdkit ended at once"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


@pytest.fixture
def nbdkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., NbdKit]]:
    """Start nbdkit with arguments; gone after the test."""
    running: list[NbdKit] = []

    def start(*arguments: str, port: int | None = None) -> NbdKit:
        running.append(NbdKit(tmp_path_factory.mktemp("n"), arguments, port))
        return running[-1]

    yield start
    for server in running:
        server.kill()


@pytest.fixture(scope="session")
def content() -> bytes:
    """12 MiB and three sectors of a disk: data, zeros, data that compresses, and a last odd piece."""
    chance = random.Random(20261122)
    return b"".join(
        (
            chance.randbytes(3 * MIB),
            bytes(4 * MIB),
            b"the same line again\n" * (MIB // 20 + 1),
            bytes(3 * MIB),
            chance.randbytes(12 * MIB + 3 * 512 - 11 * MIB - (20 * (MIB // 20 + 1))),
        )
    )


@pytest.fixture
def raw_image(tmp_path: Path, content: bytes) -> Path:
    """The content as a raw file, holes where it is zero."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        for at in range(0, len(content), 64 * KIB):
            piece = content[at : at + 64 * KIB]
            if any(piece):
                file.seek(at)
                file.write(piece)
        file.truncate(len(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A datastore's folder, beside which there are files that don't belong to it."""
    path = tmp_path / "ds1"
    path.mkdir()
    return path


@pytest.fixture
def datastore(folder: Path) -> Datastore:
    return Datastore("ds1", folder)


def convert(raw: Path, target: Path, subformat: str) -> None:
    """Make a VMDK of a raw image."""
    options = ["-O", "vmdk", "-o", f"subformat={subformat}"]
    subprocess.run([tool("qemu-img"), "convert", "-f", "raw", *options, str(raw), str(target)], check=True)


def write_flat(folder: Path, name: str, content: bytes, *, cid: int = 0x1234ABCD) -> Path:
    """A flat VMDK as ESXi lays it out; the path of its descriptor."""
    (folder / f"{name}-flat.vmdk").write_bytes(content)
    descriptor = folder / f"{name}.vmdk"
    descriptor.write_text(
        f"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={cid:08x}
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {len(content) // 512} VMFS "{name}-flat.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.virtualHWVersion = "19"
"""
    )
    return descriptor
