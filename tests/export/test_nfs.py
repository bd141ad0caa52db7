"""Shares as hosts mount them: what NFS clients can do, and what nobody can."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_worker.contract.errors import DamageError
from proxy_worker.export.disk import Extent
from proxy_worker.export.durable import DurableOverlay, OverlayBusyError, OverlayDamagedError, make_files
from proxy_worker.export.nfs.kept import lay_out, open_share
from proxy_worker.export.nfs.mounting import portmap_program
from proxy_worker.export.nfs.protocol import MOUNT, NFS, PORTMAP, Status
from proxy_worker.export.nfs.rpc import answer
from proxy_worker.export.nfs.server import NfsServer, listen
from proxy_worker.export.nfs.share import Share
from proxy_worker.export.nfs.xdr import Writing
from proxy_worker.export.overlay import GRAIN
from tests.export.nfs_client import Client

MIB = 1 << 20
CONTENT = random.Random(1).randbytes(3 * MIB + 512)
FLAT = "scsi0-0-flat.vmdk"
LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)


class Memory:
    """A disk in memory. Implements `Disk`."""

    block_size = 64 << 10

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)
        self.error: Exception | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        if self.error is not None:
            raise self.error
        view[:] = self._content[offset : offset + len(view)]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        del offset
        yield Extent(length, zero=False)


@dataclass
class Served:
    """A share, and its server."""

    folder: Path
    server: NfsServer
    disk: Memory
    share: str
    opened: Share
    gone: bool = False

    def url(self, name: str = "") -> str:
        """As libnfs' tools want it."""
        return f"nfs://127.0.0.1/{self.share}/{name}?nfsport={self.server.port}&mountport={self.server.port}"

    def client(self) -> Client:
        return Client(self.server.port, self.share)

    def file(self, name: str) -> Path:
        return self.folder / "files" / name


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    disk, token = Memory(CONTENT), os.urandom(16)
    lay_out(tmp_path, {"scsi0:0": len(CONTENT)})
    share = open_share(tmp_path, token, {"scsi0:0": disk})
    shares = lambda asked: share if asked == token and not made.gone else None  # noqa: E731
    server = NfsServer(shares, listen("127.0.0.1", 0), LOCAL)
    made = Served(tmp_path, server, disk, token.hex(), share)
    server.start()
    yield made
    server.close()
    share.close()


def tool(*words: str | Path) -> bytes:
    done = subprocess.run(words, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_a_disk_and_its_descriptor_are_files(served: Served, tmp_path: Path) -> None:
    listed = tool("nfs-ls", served.url()).decode().split()
    assert {name for name in listed if name.endswith(".vmdk")} == {"scsi0-0.vmdk", FLAT}
    assert tool("nfs-cat", served.url(FLAT)) == CONTENT
    descriptor = tmp_path / "scsi0-0.vmdk"
    descriptor.write_bytes(tool("nfs-cat", served.url("scsi0-0.vmdk")))
    (tmp_path / FLAT).write_bytes(CONTENT)
    told = json.loads(tool("qemu-img", "info", "--output=json", descriptor))
    assert (told["format"], told["virtual-size"]) == ("vmdk", len(CONTENT))


def test_what_is_written_is_read_and_the_restore_point_stays(served: Served) -> None:
    with served.client() as client:
        disk = client.look_up(FLAT)
        status, verifier = client.write(disk, 70_001, b"x" * 70_000, stable=0)
        assert status is Status.OK
        status, committed = client.nfs(21, Writing().opaque(disk).u64(0).u32(0))
        assert (status, bytes(committed._data[-8:])) == (Status.OK, verifier)
        expected = CONTENT[:70_001] + b"x" * 70_000 + CONTENT[140_001:]
        assert b"".join(client.read(disk, at, MIB) for at in range(0, len(CONTENT), MIB)) == expected
        assert client.read(disk, len(CONTENT) + 5, 10) == b""
        assert client.write(disk, len(CONTENT) - 1, b"xy")[0] is Status.FBIG
    assert served.disk._content == CONTENT
    assert served.file(FLAT).stat().st_blocks * 512 < MIB


def test_files_beside_the_disk_are_made_locked_renamed_and_removed(served: Served, tmp_path: Path) -> None:
    """What ESXi does: a lock file that only one may make, logs that change their names, folders."""
    (tmp_path / "log").write_bytes(b"line\n" * 1000)
    tool("nfs-cp", tmp_path / "log", served.url("vmware.log"))
    assert served.file("vmware.log").read_bytes() == b"line\n" * 1000
    with served.client() as client:
        lock = client.place(".lck-1").u32(2).fixed(b"12345678")
        assert client.nfs(8, lock)[0] is Status.OK
        assert client.nfs(8, lock)[0] is Status.OK, "its own, whose answer was lost"
        assert client.nfs(8, client.place(".lck-1").u32(2).fixed(b"another1"))[0] is Status.EXIST
        held = client.look_up(".lck-1")
        assert client.write(held, 0, b"host-1")[0] is Status.OK
        assert client.nfs(9, client.place("folder").u32(*[0] * 6))[0] is Status.OK
        folder = client.look_up("folder")
        to = client.place("vmware.log")
        move = Writing().fixed(to.done()).opaque(folder).opaque(b"old.log")
        assert client.nfs(14, move)[0] is Status.OK
        assert client.look_up("..", folder) == client.root
        assert client.nfs(13, client.place("folder"))[0] is Status.NOTEMPTY
        assert client.nfs(12, client.place("old.log", folder))[0] is Status.OK
        assert client.nfs(13, client.place("folder"))[0] is Status.OK
        assert client.nfs(12, client.place(".lck-1"))[0] is Status.OK
        assert client.nfs(1, Writing().opaque(held))[0] is Status.STALE
        facts = [client.nfs(procedure, Writing().opaque(client.root))[0] for procedure in (18, 19, 20)]
        assert facts == [Status.OK] * 3
        status, granted = client.nfs(4, Writing().opaque(client.root).u32(0x1F))
        assert (status, int.from_bytes(granted._data[-4:], "big")) == (Status.OK, 0x1F)


@pytest.mark.parametrize("plus", [False, True])
def test_a_folder_of_many_files_is_listed_in_pieces(served: Served, plus: bool) -> None:
    names = {f"file-{number:03}" for number in range(100)}
    for name in names:
        served.file(name).touch()
    found: list[str] = []
    with served.client() as client:
        cookie, end = 0, False
        while not end:
            arguments = Writing().opaque(client.root).u64(cookie).fixed(bytes(8))
            arguments = arguments.u32(1024, 4096) if plus else arguments.u32(2048)
            status, answer = client.nfs(17 if plus else 16, arguments)
            assert status is Status.OK
            answer.u32(), answer.fixed(84), answer.fixed(8)
            while answer.u32():
                answer.u64()
                found.append(bytes(answer.opaque(255)).decode())
                cookie = answer.u64()
                if plus:
                    assert answer.u32()
                    answer.fixed(84)
                    assert answer.u32()
                    answer.opaque(64)
            end = bool(answer.u32())
    assert len(found) == len(set(found))
    assert set(found) == names | {".", "..", "scsi0-0.vmdk", FLAT}


def test_what_is_not_offered_is_refused_by_name(served: Served) -> None:
    with served.client() as client:
        disk = client.look_up(FLAT)
        shorter = Writing().opaque(disk).u32(0, 0, 0, 1).u64(0).u32(0, 0, 0)
        assert client.nfs(2, shorter)[0] is Status.INVAL
        assert client.nfs(10, client.place("link"))[0] is Status.NOTSUPP
        assert client.nfs(3, client.place("no such file"))[0] is Status.NOENT
        assert client.nfs(3, client.place("../up"))[0] is Status.INVAL
        assert client.nfs(12, client.place(".."))[0] is Status.INVAL
        assert client.nfs(1, Writing().opaque(b"guess"))[0] is Status.BADHANDLE
        assert client.nfs(1, Writing().opaque(client.root[:16] + bytes(8)))[0] is Status.STALE
        to = Writing().fixed(client.place(FLAT).done()).opaque(client.root).opaque(b"elsewhere")
        assert client.nfs(14, to)[0] is Status.ACCES
        unknown = client.ask(MOUNT, 1, Writing().opaque(b"/" + b"0" * 32))
        assert unknown.u32() == Status.NOENT
        assert client.ask(MOUNT, 5, Writing()).u32() == 0, "nobody is told which shares there are"
        assert client.call(NFS, 0, Writing(), version=4)[0] == 2
        assert client.call(100021, 0, Writing())[0] == 1
        assert client.call(NFS, 99, Writing())[0] == 3
        assert client.call(NFS, 1, Writing().u32(9999))[0] == 4
        served.disk.error = DamageError("pack 00")
        assert client.nfs(6, Writing().opaque(disk).u64(2 * MIB).u32(512))[0] is Status.IO
        served.disk.error = None
        assert client.read(disk, 2 * MIB, 512) == CONTENT[2 * MIB : 2 * MIB + 512]
        served.gone = True
        assert client.nfs(1, Writing().opaque(disk))[0] is Status.STALE
        client.link.sendall(b"\xff" * 8)
        with contextlib.suppress(ConnectionResetError):
            assert client.link.recv(1) == b"", "who talks nonsense is sent away"


def test_while_another_server_has_a_disk_open_clients_are_told_to_wait(served: Served) -> None:
    """One that is ending still flushes; two would lose what the other has acknowledged."""
    token = bytes.fromhex(served.share)
    with served.client() as client:
        disk = client.look_up(FLAT)
        assert client.write(disk, 0, b"of the last one", stable=0)[0] is Status.OK
    next_one = NfsServer(
        lambda _: open_share(served.folder, token, {"scsi0:0": served.disk}), listen("127.0.0.1", 0), LOCAL
    )
    next_one.start()
    try:
        with Client(next_one.port) as client:
            asked = Writing().opaque(disk).u64(0).u32(15)
            assert client.nfs(6, asked)[0] is Status.JUKEBOX
            served.opened.close()
            assert client.read(disk, 0, 15) == b"of the last one"
    finally:
        next_one.close()


def test_files_of_a_disk_are_open_once(tmp_path: Path) -> None:
    files = (tmp_path / "data", tmp_path / "marks")
    make_files(len(CONTENT), *files)
    old = DurableOverlay(Memory(CONTENT), *files)
    old.write(0, memoryview(b"o" * GRAIN))
    with pytest.raises(OverlayBusyError, match="another process has it open") as caught:
        DurableOverlay(Memory(CONTENT), *files)
    assert caught.value.retryable
    old.close()
    with DurableOverlay(Memory(CONTENT), *files) as new:
        assert _whole(new)[: GRAIN + 1] == b"o" * GRAIN + CONTENT[GRAIN : GRAIN + 1]


def test_a_disk_that_a_host_removes_takes_no_other_with_it(tmp_path: Path) -> None:
    """Deleting a VM, or the end of its move, removes its disks one by one."""
    disks, token = {key: Memory(CONTENT) for key in ("scsi0:0", "scsi0:1")}, os.urandom(16)
    lay_out(tmp_path, dict.fromkeys(disks, len(CONTENT)))
    for _ in ("the server that is told", "the next one"):
        share = open_share(tmp_path, token, disks)
        server = NfsServer({token: share}.get, listen("127.0.0.1", 0), LOCAL)
        server.start()
        with Client(server.port, token.hex()) as client:
            if (tmp_path / "files" / FLAT).exists():
                assert client.nfs(12, client.place(FLAT))[0] is Status.OK
                assert client.nfs(8, client.place(FLAT).u32(1, *[0] * 6))[0] is Status.ACCES
            assert client.nfs(3, client.place(FLAT))[0] is Status.NOENT
            assert client.read(client.look_up("scsi0-1-flat.vmdk"), 0, 512) == CONTENT[:512]
        server.close()
        share.close()


def test_clients_of_other_networks_are_sent_away(served: Served) -> None:
    far = (ipaddress.ip_network("192.0.2.0/24"),)
    server = NfsServer(lambda _: None, listen("127.0.0.1", 0), far)
    server.start()
    with Client(server.port) as client, pytest.raises((EOFError, ConnectionError)):
        client.ask(NFS, 0, Writing())
    server.close()


def test_the_portmapper_tells_the_port() -> None:
    call = Writing().u32(7, 0, 2, PORTMAP, 2, 3, 0, 0, 0, 0)
    told = answer(memoryview(call.u32(NFS, 3, 6, 0).done()), [portmap_program(2049)])
    assert told is not None
    assert int.from_bytes(told[-4:], "big") == 2049


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_was_flushed_is_there_after_a_crash_and_the_rest_as_it_was_at_some_moment_since(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    size = 3 * GRAIN + 1000
    folder, below = tmp_path_factory.mktemp("crash"), Memory(CONTENT[:size])
    since_flush = [bytearray(CONTENT[:size])]
    looked_at = {0, GRAIN - 1, GRAIN, 2 * GRAIN, size - 1}
    make_files(size, folder / "data", folder / "marks")
    opened = DurableOverlay(below, folder / "data", folder / "marks")
    for number in range(data.draw(st.integers(1, 10))):
        offset = data.draw(st.integers(0, size - 1))
        length = data.draw(st.integers(1, min(size - offset, 2 * GRAIN)))
        looked_at |= {max(0, offset - 1), offset, offset + length - 1, min(size - 1, offset + length)}
        match data.draw(st.sampled_from(("write", "zero", "flush", "crash"))):
            case "flush":
                opened.flush()
                since_flush = since_flush[-1:]
            case "crash":
                del opened
                opened = DurableOverlay(below, folder / "data", folder / "marks")
                found = _whole(opened)
                assert all(any(found[at] == then[at] for then in since_flush) for at in looked_at)
                since_flush = [found]
            case what:
                piece = bytes([number + 1]) * length if what == "write" else bytes(length)
                opened.write(offset, memoryview(piece)) if what == "write" else opened.zero(offset, length)
                since_flush.append(since_flush[-1][:offset] + piece + since_flush[-1][offset + length :])
    assert _whole(opened) == since_flush[-1]
    opened.close()


def _whole(disk: DurableOverlay) -> bytearray:
    found = bytearray(disk.size_bytes)
    disk.read_into(0, memoryview(found))
    return found


def test_files_of_another_disk_are_refused(tmp_path: Path) -> None:
    files = (tmp_path / "data", tmp_path / "marks")
    make_files(len(CONTENT), *files)
    with DurableOverlay(Memory(CONTENT), *files) as made:
        made.write(0, memoryview(b"x"))
    with pytest.raises(OverlayDamagedError, match="Restore the disk anew"):
        DurableOverlay(Memory(CONTENT[:MIB]), *files)
