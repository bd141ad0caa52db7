"""The stand-in for VDDK: real arguments, a snapshot's frozen bytes, refusals like the library's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, create
from tests.simulators.vsphere.simulator import NBDKIT, PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm, write

THUMBPRINT = ":".join(["AB"] * 20)


def serve(server: VsphereSimulator, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `command` while nbdkit serves; `$uri` is where."""
    environment = {
        **os.environ,
        "PATH": f"{NBDKIT.parent}:{os.environ['PATH']}",
        "SIMULATED_VDDK_DISKS": str(server.frozen),
        "SIMULATED_VDDK_PASSWORD": PASSWORD,
    }
    return subprocess.run(
        ["nbdkit", "--unix", "-", "--readonly", "vddk", *arguments, "--run", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A secret in its file."""
    path = tmp_path / "vc1.password"
    path.write_text(PASSWORD + "\n")
    return path


def test_a_snapshots_disk_is_served_as_it_was_frozen(
    vsphere: VsphereSimulator, session: Session, password_file: Path, tmp_path: Path
) -> None:
    vm = make_vm(session, MIB)
    path = vm.disks[0].path or ""
    write(vsphere, path, 4096, b"frozen")
    made = create(session, vm, Mark("installation-v", "run-1"), Quiesce.NEVER, IMPATIENT)
    write(vsphere, path, 4096, b"later!")
    done = serve(
        vsphere,
        f'qemu-img convert -f raw -O raw "$uri" {tmp_path}/copy',
        f"server={vsphere.host}",
        f"user={USER}",
        f"password=+{password_file}",
        f"thumbprint={THUMBPRINT}",
        f"vm=moref={vm.ref}",
        f"snapshot={made.ref}",
        f"file={made.disks[0].path}",
        "transports=nbdssl",
    )
    assert done.returncode == 0, done.stderr
    copy = (tmp_path / "copy").read_bytes()
    assert (len(copy), copy[4096:4102]) == (MIB, b"frozen")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"password": "wrong"}, "incorrect user name or password"),
        ({"snapshot": "snapshot-0"}, "A file was not found"),
        ({"thumbprint": "AB"}, "not a SHA-1"),
        ({"vm": "vm-1"}, "moref"),
        ({"speed": "fast"}, "unknown parameter"),
    ],
)
def test_what_vddk_refuses_is_refused(
    vsphere: VsphereSimulator, password_file: Path, changed: dict[str, str], message: str
) -> None:
    settings = {
        "server": vsphere.host,
        "user": USER,
        "password": f"+{password_file}",
        "thumbprint": THUMBPRINT,
        "vm": "moref=vm-1",
        "snapshot": "snapshot-1",
        "file": "[LocalDS_0] a/a.vmdk",
    }
    arguments = [f"{key}={value}" for key, value in (settings | changed).items()]
    done = serve(vsphere, 'qemu-img info "$uri"', *arguments)
    assert done.returncode != 0
    assert message in done.stderr
