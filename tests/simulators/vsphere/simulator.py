"""Builds the simulator once, starts it on a free port of 127.0.0.1, and tells it what is to go wrong."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "server"
NBDKIT = Path(__file__).parent / "bin/nbdkit"
"""Takes `vddk` and its arguments, from the simulator's frozen disks."""
GOPATH = Path("/usr/share/gocode")
USER = "backup@vsphere.local"
PASSWORD = 'a password, with <punctuation> & "quotes"'


def build(cache: Path) -> Path:
    """The simulator's program for these sources and this govmomi, from `cache` if it has been built before."""
    listing = sorted((GOPATH / "src/github.com/vmware/govmomi/simulator").glob("*.go"))
    digest = hashlib.sha256(str([(path.name, path.stat().st_size) for path in listing]).encode())
    for source in sorted(SOURCES.glob("*.go")):
        digest.update(source.read_bytes())
    program = cache / f"vsphere-simulator-{digest.hexdigest()[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            for old in cache.glob("vsphere-simulator-*"):
                old.unlink()
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(cache / "go")}
            environment["GOFLAGS"] = ""
            partial = program.with_suffix(".partial")
            subprocess.run(["go", "build", "-o", partial, "."], cwd=SOURCES, env=environment, check=True)
            partial.rename(program)
    return program


@dataclass(frozen=True)
class VsphereSimulator:
    """A running simulator."""

    host: str
    port: int
    control: str
    datastores: Mapping[str, Path]
    frozen: Path

    def go_wrong(self, method: str, mode: str, fault: str = "", *, times: int = 1, **more: Any) -> None:
        """Let the next `times` calls (0: all) of a method go wrong; server/trouble.go says how."""
        self._ask("/events", {"method": method, "mode": mode, "fault": fault, "times": times, **more})

    def revoke(self, privileges: Sequence[str]) -> None:
        """Take privileges away: checks say so, and calls that need them are refused."""
        self._ask("/revoke", list(privileges))

    def expire_sessions(self) -> None:
        """Let every session be one that vCenter has forgotten."""
        self._ask("/expire")

    def reset_change_tracking(self, vm_ref: str) -> None:
        """Forget what changed on a VM's disks, as the crash of a host does."""
        self._ask(f"/vms/{vm_ref}/cbt-reset")

    def need_consolidation(self, vm_ref: str) -> None:
        """Let a VM's disks hang on deltas that no snapshot shows, until they are consolidated."""
        self._ask(f"/vms/{vm_ref}/needs-consolidation")

    def calls(self) -> Mapping[str, int]:
        """How often each method was called since the last `reset`; `REST` counts all of that interface."""
        found: dict[str, int] = self._ask("/calls")
        return found

    def sessions(self) -> int:
        """How many logins are valid."""
        return int(self._ask("/sessions"))

    def reset(self) -> None:
        """Let all go well again, and count from zero."""
        self._ask("/reset")

    def _ask(self, path: str, body: Any = None) -> Any:
        with urllib.request.urlopen(self.control + path, json.dumps(body).encode(), timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running(program: Path, root: Path, *options: str) -> Iterator[VsphereSimulator]:
    """Start it with its datastores below `root`; it ends with the block."""
    root.mkdir(parents=True, exist_ok=True)
    arguments = [program, "-root", root, "-user", USER, "-password", PASSWORD, *options]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline() or "{}")
        assert told, f"the simulator ended with {process.wait()}"
        folders = {name: Path(folder) for name, folder in told["datastores"].items()}
        yield VsphereSimulator(told["host"], int(told["port"]), told["control"], folders, Path(told["frozen"]))
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture(scope="session")
def vsphere_program(pytestconfig: pytest.Config) -> Path:
    """The simulator's program, built once for all sessions that have the same sources."""
    assert pytestconfig.cache is not None
    return build(pytestconfig.cache.mkdir("vsphere-simulator"))


@pytest.fixture(scope="session")
def vsphere_server(vsphere_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VsphereSimulator]:
    """One vCenter for the session; take `vsphere` to find it untroubled."""
    with running(vsphere_program, tmp_path_factory.mktemp("vsphere")) as simulator:
        yield simulator


@pytest.fixture
def vsphere(vsphere_server: VsphereSimulator) -> VsphereSimulator:
    """The session's vCenter, with nothing going wrong and no calls counted."""
    vsphere_server.reset()
    return vsphere_server
