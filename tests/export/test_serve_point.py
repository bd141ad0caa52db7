"""`proxy-worker serve-point` as a user has it: a process, and the NBD clients that everybody uses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.export.server import NEGOTIATION_TIMEOUT_S
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import parse_uri
from proxy_worker.transport.source import DiskUnreadableError
from tests.repository.making import CHEAP
from tests.system.commands import BIN, run_forked

BLOCK = 64 << 10
DATA_BLOCKS, HOLE_BLOCKS = 70, 60
CONTENT = (
    random.Random(1).randbytes(DATA_BLOCKS * BLOCK) + bytes(HOLE_BLOCKS * BLOCK) + b"the end, not on a boundary"
)
_DEADLINE_S = 120.0


@dataclass
class Served:
    """A server process, and where its disks are."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    def uri(self, disk: str = "scsi0:0") -> str:
        return next(str(one["uri"]) for one in self.said["disks"] if one["disk"] == disk)


class World:
    """A repository with a point of two disks, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        (folder / "passphrase").write_text("correct horse\n")
        (folder / "disk.raw").write_bytes(CONTENT)
        opened = ("--passphrase-file", "passphrase")
        (folder / "repo").mkdir()
        store = LocalStore(folder / "repo")
        Repository.create(store, passphrase=b"correct horse", block_size=BLOCK, kdf_cost=CHEAP).close()
        self.run("repository", "keys", "export-write", "repo", *opened, "--out", "write.key")
        whose = ("--vm", "web", "--disk", "scsi0:0")
        self.run("backup", "disk.raw", "--repository", "repo", *opened, *whose)

    def run(self, *words: str, code: int = 0) -> str:
        done = run_forked(["proxy-worker", *words], self.environment, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def serving(self, *words: str) -> Iterator[Served]:
        """A server until the block ends; `words` are its options besides the point's."""
        command = [
            *(str(BIN / "proxy-worker"), "serve-point", "--repository", "repo", "--vm", "web", "--json"),
            *("--passphrase-file", "passphrase", *words),
        ]
        errors = (self.folder / "errors").open("w")
        with (
            errors,
            subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, (self.folder / "errors").read_text()
                yield Served(process, json.loads(line))
            finally:
                process.terminate()
                assert process.wait(_DEADLINE_S) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Served]:
    with world.serving("--socket", "one.sock") as served:
        yield served


def tool(*words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_clients_find_the_disk_what_it_holds_and_where_it_is_empty(world: World, served: Served) -> None:
    listed = json.loads(
        tool("nbdinfo", "--no-content", "--json", "--list", "nbd+unix:///?socket=one.sock", cwd=world.folder)
    )
    (export,) = listed["exports"]
    assert (export["export-name"], export["export-size"]) == ("scsi0:0", len(CONTENT))
    assert (export["is_read_only"], export["can_multi_conn"]) == (True, True)
    assert (served.said["disks"][0]["size_bytes"], len(served.said["disks"])) == (len(CONTENT), 1)

    mapped = json.loads(tool("nbdinfo", "--json", "--map", served.uri(), cwd=world.folder))
    end = len(CONTENT) - (DATA_BLOCKS + HOLE_BLOCKS) * BLOCK
    assert [(piece["length"], piece["type"]) for piece in mapped] == [
        (DATA_BLOCKS * BLOCK, 0),
        (HOLE_BLOCKS * BLOCK, 3),
        (end, 0),
    ]


def test_copies_by_nbdcopy_and_qemu_img_equal_the_disk(world: World, served: Served) -> None:
    tool("nbdcopy", served.uri(), "copy.raw", cwd=world.folder)
    assert (world.folder / "copy.raw").read_bytes() == CONTENT
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uri(), "copy.qcow2", cwd=world.folder)
    assert "identical" in tool("qemu-img", "compare", "-f", "raw", "disk.raw", "copy.qcow2", cwd=world.folder)


def test_qemu_nbd_serves_it_on(world: World, served: Served) -> None:
    command = ["qemu-nbd", "--read-only", "--format=raw", "--socket", str(world.folder / "on.sock"), served.uri()]
    with subprocess.Popen(command, cwd=world.folder) as process:
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not (world.folder / "on.sock").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            tool("nbdcopy", "nbd+unix:///?socket=on.sock", "on.raw", cwd=world.folder)
        finally:
            process.terminate()
    whole_sectors = (world.folder / "on.raw").read_bytes()
    assert whole_sectors == CONTENT + bytes(-len(CONTENT) % 512)


def test_any_range_is_read_as_it_is(world: World, served: Served) -> None:
    chance = random.Random(2)
    with NbdSource(parse_uri(f"nbd+unix:///scsi0:0?socket={world.folder}/one.sock"), reason="test") as source:
        for _ in range(200):
            offset = chance.randrange(len(CONTENT))
            length = min(chance.choice([1, 511, 4096, BLOCK, 3 * BLOCK + 1]), len(CONTENT) - offset)
            found = bytearray(length)
            source.read_into(offset, memoryview(found))
            assert found == CONTENT[offset : offset + length]


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\3" + b"IHAVEOPT" + b"\0\0\0\7" + b"\xff\xff\xff\xff",
        b"\0\0\0\3" + b"IHAVEOPT" + b"\0\0\0\7" + b"\0\0\0\6" + b"\0\0\xff\xff\0\0",
        b"\0\0\0\3" + b"IHAVEOPT" + b"\0\0\0\1" + b"\0\0\0\0" + b"nonsense" * 4,
        b"",
    ],
    ids=["another protocol", "a huge option", "a name longer than its option", "no request", "nothing"],
)
def test_a_client_that_talks_nonsense_is_sent_away_and_others_are_served(
    world: World, served: Served, said: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(NEGOTIATION_TIMEOUT_S + _DEADLINE_S)
        client.connect(str(world.folder / "one.sock"))
        client.sendall(said)
        if said:
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1 << 16):
                    pass
        assert "scsi0:0" in tool(
            "nbdinfo", "--no-content", "--list", "nbd+unix:///?socket=one.sock", cwd=world.folder
        )
    assert served.process.poll() is None


def files(world: World) -> dict[Path, int]:
    """All of the repository, and when it was last changed."""
    return {path: path.stat().st_mtime_ns for path in (world.folder / "repo").rglob("*") if path.is_file()}


def test_what_is_written_is_read_and_forgotten_in_the_end(world: World) -> None:
    before = files(world)
    with world.serving("--port", "0", "--overlay", ".") as served:
        uri = served.uri()
        assert uri.startswith("nbd://127.0.0.1:")
        write = ["-c", "write -P 7 100000 300000", "-c", "write -z 500000 100000", "-c", "flush"]
        read = ["-c", "read -P 7 100000 300000", "-c", "read -P 0 500000 100000"]
        tool("qemu-io", "-f", "raw", *write, uri, cwd=world.folder)
        assert "Pattern verification failed" not in tool("qemu-io", "-f", "raw", *read, uri, cwd=world.folder)
        tool("nbdcopy", uri, "written.raw", cwd=world.folder)
    expected = bytearray(CONTENT)
    expected[100_000:400_000] = b"\7" * 300_000
    expected[500_000:600_000] = bytes(100_000)
    assert (world.folder / "written.raw").read_bytes() == expected
    assert files(world) == before

    with world.serving("--socket", "again.sock") as served:
        tool("nbdcopy", served.uri(), "again.raw", cwd=world.folder)
    assert (world.folder / "again.raw").read_bytes() == CONTENT
    assert not (world.folder / "again.sock").exists()
    assert files(world) == before


def test_without_an_overlay_nobody_can_write(world: World, served: Served) -> None:
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 4096", served.uri()],
        cwd=world.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_a_damaged_block_is_an_error_of_its_own_range_and_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    pack = max((tmp_path / "repo").rglob("packs/*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(10 * BLOCK)
        file.write(b"rot")
    with world.serving("--socket", "s.sock") as served:
        with NbdSource(parse_uri(f"nbd+unix:///scsi0:0?socket={tmp_path}/s.sock"), reason="test") as source:
            bad = [number for number in range(DATA_BLOCKS) if not _reads(source, number)]
        assert len(bad) == 1
        assert served.process.poll() is None
    assert "is damaged" in (tmp_path / "errors").read_text()


def _reads(source: NbdSource, block: int) -> bool:
    found = bytearray(BLOCK)
    try:
        source.read_into(block * BLOCK, memoryview(found))
    except DiskUnreadableError:
        return False
    assert found == CONTENT[block * BLOCK : (block + 1) * BLOCK]
    return True


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 3, "nothing says where to listen"),
        (("--socket", "x.sock", "--port", "0"), 3, "both were given"),
        (("--socket", "passphrase"), 3, "socket passphrase: Address already in use"),
        (("--socket", "x.sock", "--overlay", "nowhere"), 12, "overlay in nowhere: No such file or directory"),
        (("--socket", "x.sock", "--disk", "scsi0:9"), 4, "disk scsi0:9 of web"),
        (("--socket", "x.sock", "--point", "gone"), 4, "no restore point gone"),
    ],
)
def test_what_cannot_be_served_is_named(world: World, words: tuple[str, ...], code: int, said: str) -> None:
    opened = ("--repository", "repo", "--vm", "web", "--passphrase-file", "passphrase")
    assert said in world.run("serve-point", *opened, *words, code=code)


def test_a_write_key_serves_nothing(world: World) -> None:
    opened = ("--repository", "repo", "--vm", "web", "--read-key-file", "write.key", "--socket", "x.sock")
    assert "a write key may add them but not read them" in world.run("serve-point", *opened, code=6)


def test_a_socket_that_a_killed_server_has_left_is_no_obstacle(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(world.folder / "d.sock"))
    with world.serving("--socket", "d.sock") as served:
        opened = ("--repository", "repo", "--vm", "web", "--passphrase-file", "passphrase", "--socket", "d.sock")
        assert "d.sock: Address already in use" in world.run("serve-point", *opened, code=3)
        assert tool("nbdinfo", "--size", served.uri(), cwd=world.folder).strip() == str(len(CONTENT))


def test_a_client_that_reads_nothing_keeps_nobody_waiting(world: World, served: Served) -> None:
    read = struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4 << 20)
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.connect(str(world.folder / "one.sock"))
        stalled.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0) + read * 64)
        tool("nbdcopy", served.uri(), "beside.raw", cwd=world.folder)
    assert (world.folder / "beside.raw").read_bytes() == CONTENT


def test_ctrl_c_ends_it_in_order(world: World) -> None:
    with world.serving("--socket", "c.sock") as served:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(_DEADLINE_S) == 0
    assert not (world.folder / "c.sock").exists()
