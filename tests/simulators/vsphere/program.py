"""Builds the simulated vCenter once, starts it on a free port of 127.0.0.1, and tells it what is to go wrong."""

from __future__ import annotations

import base64
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

SOURCES = Path(__file__).parent / "server"
NBDKIT = Path(__file__).parent / "bin/nbdkit"
"""Takes `vddk` and its arguments, from the simulator's frozen disks."""
GOPATH = Path("/usr/share/gocode")
BUILT = Path(__file__).parents[3] / ".cache/vsphere-simulator"
"""Where the demo and the tests find what either of them has built: half a minute of a processor."""
USER = "backup@vsphere.local"
PASSWORD = 'a password, with <punctuation> & "quotes"'


def build() -> Path:
    """The simulator's program for these sources and this govmomi, from `BUILT` if it has been built before.

    Raises CalledProcessError or OSError where Go is missing.
    """
    BUILT.mkdir(parents=True, exist_ok=True)
    listing = sorted((GOPATH / "src/github.com/vmware/govmomi/simulator").glob("*.go"))
    digest = hashlib.sha256(str([(path.name, path.stat().st_size) for path in listing]).encode())
    for source in sorted(SOURCES.glob("*.go")):
        digest.update(source.read_bytes())
    program = BUILT / f"vsphere-simulator-{digest.hexdigest()[:16]}"
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            for old in BUILT.glob("vsphere-simulator-*"):
                old.unlink()
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(BUILT / "go")}
            environment["GOFLAGS"] = ""
            partial = program.with_suffix(".partial")
            subprocess.run(["go", "build", "-o", partial, "."], cwd=SOURCES, env=environment, check=True)
            partial.rename(program)
    return program


@dataclass(frozen=True)
class GuestDisk:
    """A disk as its VM uses it now."""

    vm: str
    name: str
    """The VM's."""
    key: int
    uuid: str
    path: str
    """Of the file that the VM writes to: `[datastore] folder/disk-000001.vmdk` while there is a snapshot."""
    file: Path
    """Where its bytes are."""
    size_bytes: int


@dataclass(frozen=True)
class VsphereSimulator:
    """A running simulator."""

    host: str
    port: int
    control: str
    datastores: Mapping[str, Path]
    frozen: Path
    """What snapshots froze: `<snapshot>/<datastore>/<path>-flat.vmdk`, as long as there is that snapshot."""
    removed: Path
    """The same, of snapshots that are gone."""

    @classmethod
    def described(cls, told: Mapping[str, Any]) -> VsphereSimulator:
        """The one that said this about itself when it started."""
        folders = {name: Path(folder) for name, folder in told["datastores"].items()}
        return cls(
            host=told["host"],
            port=int(told["port"]),
            control=told["control"],
            datastores=folders,
            frozen=Path(told["frozen"]),
            removed=Path(told["removed"]),
        )

    def disks(self) -> tuple[GuestDisk, ...]:
        """Every disk of every VM, as it is used now."""
        found = self._ask("/disks")
        return tuple(
            GuestDisk(d["vm"], d["name"], d["key"], d["uuid"], d["path"], Path(d["file"]), d["size"]) for d in found
        )

    def write(self, path: str, *pieces: tuple[int, bytes]) -> None:
        """Change a disk as its VM's guest does: (offset, bytes), all at one moment; never what is frozen.

        `path` is any file of the disk's chain: it may be the one that a snapshot froze.
        """
        encoded = [{"offset": offset, "data": base64.b64encode(data).decode()} for offset, data in pieces]
        self._ask("/write", {"path": path, "pieces": encoded})

    def frozen_disk(self, snapshot: str, path: str) -> Path:
        """The bytes that a snapshot froze, of the disk in the file `path`, whether the snapshot is gone or not."""
        datastore, _, name = path[1:].partition("] ")
        place = Path(snapshot, datastore, name.removesuffix(".vmdk") + "-flat.vmdk")
        there = self.frozen / place
        return there if there.exists() else self.removed / place

    def make_datastore_inaccessible(self, name: str, *, accessible: bool = False) -> None:
        """Let every host lose a datastore, or find it again."""
        self._ask(f"/datastores/{name}/{'' if accessible else 'in'}accessible")

    def find_nfs_at(self, port: int) -> None:
        """Let hosts find the NFS servers that they mount from at this port."""
        self._ask("/nfs-port", port)

    def calls_by_vm(self) -> Mapping[str, Mapping[str, int]]:
        """VM -> method -> how often, since the last `reset`: of itself, its snapshots, its tasks and its files."""
        found: dict[str, dict[str, int]] = self._ask("/calls-by-vm")
        return found

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

    def encrypt(self, vm_ref: str) -> None:
        """Let a VM look as if vSphere encrypted its configuration and disks."""
        self._ask(f"/vms/{vm_ref}/encrypted")

    def add_raw_device(self, vm_ref: str) -> None:
        """Give a VM the LUN `scsi0:6`, a raw device mapping in physical mode."""
        self._ask(f"/vms/{vm_ref}/raw-device")

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
        with urllib.request.urlopen(self.control + path, json.dumps(body).encode(), timeout=120) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running(program: Path, root: Path, *options: str) -> Iterator[VsphereSimulator]:
    """Start it with its datastores below `root`; it ends with the block."""
    root.mkdir(parents=True, exist_ok=True)
    arguments = [str(program), "-root", str(root), "-user", USER, "-password", PASSWORD, *options]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline() or "{}")
        assert told, f"the simulator ended with {process.wait()}"
        yield VsphereSimulator.described(told)
    finally:
        process.stdin.close()
        process.wait(timeout=120)
        process.stdout.close()
