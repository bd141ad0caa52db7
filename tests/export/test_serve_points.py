"""`proxy-worker serve-points` as a proxy runs it: found by portmappers, used by QEMU, killed and begun again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.contract.using import PointServe
from proxy_worker.node.served_points import begin_share
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.repository import Repository, open_store
from tests.export.test_serve_point import BIN, CONTENT, World

SHARE = "0123456789abcdef" * 2
_DEADLINE_S = 120.0
_PROXY = """
name = "proxy-1"
state_dir = "state"
secrets_dir = "secrets"
scheduler_public_keys = ["{key}"]
[instant_restore]
host = "127.0.0.1"
clients = ["127.0.0.0/8"]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A repository, and a share of its point, as the task `point.serve` leaves it."""
    made = World(tmp_path_factory.mktemp("points"))
    folder = made.folder
    (folder / "secrets").mkdir()
    (folder / "secrets" / "main.passphrase").write_text("correct horse\n")
    (folder / "proxy.toml").write_text(_PROXY.format(key="A" * 43 + "="))
    credential = load_credential(passphrase_file=folder / "passphrase")
    with Repository.open(open_store(str(folder / "repo")), credential, cache_dir=folder / "cache") as repository:
        (point,) = repository.points()
    body = PointServe(
        repository=RepositoryReference(name="main", location=str(folder / "repo"), credential="main"),
        vm=VmIdentity(vm_id=point.vm_id, name=point.vm_name),
        run=point.run,
        share=SHARE,
    )
    begin_share(folder / "state" / "served", body, {"scsi0:0": len(CONTENT)})
    return made


class Apart:
    """A network of its own, in which ports below 1024 are free; with rpcbind where it is wanted."""

    def __init__(self, folder: Path, *, rpcbind: bool) -> None:
        begin = "mount -t tmpfs none /run && ip link set lo up && echo ready"
        begin += " && exec rpcbind -f -w" if rpcbind else " && exec sleep infinity"
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "sh", "-c", begin]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.folder = folder
        if rpcbind:
            self.until(lambda: self.run("rpcinfo", "-p", "127.0.0.1", code=None) != "")

    def enter(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *words]

    def run(self, *words: str, code: int | None = 0) -> str:
        done = subprocess.run(
            self.enter(*words), cwd=self.folder, capture_output=True, text=True, check=False, timeout=_DEADLINE_S
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    @staticmethod
    def until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not reached():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @contextlib.contextmanager
    def serving(self, *, kill: bool = False) -> Iterator[None]:
        """A server until the block ends, or is killed in its middle."""
        command = self.enter(str(BIN / "proxy-worker"), "serve-points", "--config", "proxy.toml")
        errors = self.folder / "server.log"
        with errors.open("w") as log, subprocess.Popen(command, cwd=self.folder, stderr=log) as process:
            try:
                self.until(lambda: "serving" in errors.read_text() or process.poll() is not None)
                assert process.poll() is None, errors.read_text()
                yield
            finally:
                process.kill() if kill else process.terminate()
                assert process.wait(_DEADLINE_S) == (-9 if kill else 0), errors.read_text()

    def io(self, *commands: str) -> str:
        """What QEMU's own NFS client is told to do with the disk."""
        words = [word for command in commands for word in ("-c", command)]
        return self.run("qemu-io", "-f", "raw", *words, f"nfs://127.0.0.1/{SHARE}/scsi0-0-flat.vmdk")


@pytest.mark.parametrize("rpcbind", [False, True])
def test_qemu_finds_the_disk_writes_and_finds_again_what_it_flushed_after_a_kill(
    world: World, rpcbind: bool
) -> None:
    apart = Apart(world.folder, rpcbind=rpcbind)
    try:
        place, pattern = (100_000, 0xA5) if rpcbind else (900_000, 0x5A)
        with apart.serving(kill=True):
            apart.io(f"write -P {pattern} {place} 70000", "flush")
        with apart.serving():
            apart.io(f"read -P {pattern} {place} 70000")
            told = json.loads(
                apart.run(
                    "qemu-img", "map", "--output=json", "-f", "raw", f"nfs://127.0.0.1/{SHARE}/scsi0-0-flat.vmdk"
                )
            )
            assert sum(one["length"] for one in told) >= len(CONTENT)
            apart.run("qemu-img", "convert", "-O", "raw", f"nfs://127.0.0.1/{SHARE}/scsi0-0-flat.vmdk", "out.raw")
        said = (world.folder / "server.log").read_text()
        assert (SHARE in said, f"share {SHARE[:8]}: " in said) == (False, True)
        whole = (world.folder / "out.raw").read_bytes()
        assert whole[place : place + 70_000] == bytes([pattern]) * 70_000
        assert whole[place + 70_000 : place + 150_000] == CONTENT[place + 70_000 : place + 150_000]
        assert whole[: place - 1][-50_000:] == CONTENT[: place - 1][-50_000:]
    finally:
        apart.process.kill()
        apart.process.wait(_DEADLINE_S)


def test_without_the_section_it_says_what_is_missing(tmp_path: Path) -> None:
    text = _PROXY.format(key="A" * 43 + "=").partition("[instant_restore]")[0]
    (tmp_path / "proxy.toml").write_text(text)
    done = subprocess.run(
        [BIN / "proxy-worker", "serve-points", "--config", "proxy.toml"],
        cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=_DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, "it has no [instant_restore]" in done.stderr) == (3, True), sys.argv
