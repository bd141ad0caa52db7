"""The simulated vCenter as a process of the demo.

    python -m ops.demo_vsphere.vcenter --root FOLDER --told FILE --password-file FILE
runs in the foreground until SIGTERM, and writes what it says about itself into FILE when it is ready.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import ssl
import subprocess
import sys
from pathlib import Path

from ops.demo.processes import Supervisor
from ops.demo_vsphere.layout import USER, VsphereLayout
from tests.simulators.vsphere.program import NBDKIT, VsphereSimulator

DATASTORES = ("vmfs-01", "nfs-01")
"""In turns VMFS and NFS."""


def start_vcenter(supervisor: Supervisor, layout: VsphereLayout, program: Path) -> VsphereSimulator:
    """Start it without VMs, and wait until it answers."""
    supervisor.start(
        "vcenter",
        [
            *(sys.executable, "-m", "ops.demo_vsphere.vcenter", "--program", str(program)),
            *("--root", str(layout.vcenter), "--told", str(layout.vcenter_told)),
            *("--password-file", str(layout.vcenter_password)),
        ],
    )
    supervisor.wait_until("the simulated vCenter to answer", layout.vcenter_told.exists)
    simulator = VsphereSimulator.described(json.loads(layout.vcenter_told.read_text()))
    mounted = layout.vcenter / "mounted"
    mounted.mkdir()
    for name, folder in simulator.datastores.items():
        (mounted / name).symlink_to(folder)
    return simulator


def environment_of_vddk(layout: VsphereLayout, simulator: VsphereSimulator) -> dict[str, str]:
    """What lets a proxy find the stand-in for VMware's VDDK as its `nbdkit vddk`, before the path it has."""
    return {
        "SIMULATED_VDDK_DISKS": str(simulator.frozen),
        "SIMULATED_VDDK_PASSWORD": layout.vcenter_password.read_text().strip(),
    }


def nbdkit_folder() -> str:
    """The folder that comes first on a proxy's PATH."""
    return str(NBDKIT.parent)


def thumbprint(simulator: VsphereSimulator) -> str:
    """The SHA-256 of its certificate, as `openssl x509 -fingerprint -sha256` shows it."""
    shown = ssl.get_server_certificate((simulator.host, simulator.port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def main() -> int:
    """Run it in the foreground until SIGTERM."""
    parser = argparse.ArgumentParser(description="Run the simulated vCenter in the foreground.")
    for option in ("program", "root", "told", "password-file"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    arguments = parser.parse_args()
    password = arguments.password_file.read_text().strip()
    arguments.root.mkdir(parents=True)
    command = [arguments.program, "-root", arguments.root, "-user", USER, "-password", password, "-vms", "0"]
    command += ["-datastores", str(len(DATASTORES)), "-datastore-names", ",".join(DATASTORES)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is None or process.stdout is None or not (told := process.stdout.readline()):
        return process.wait()
    partial = arguments.told.with_suffix(".partial")
    partial.write_text(told)
    partial.rename(arguments.told)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    while signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}) == signal.SIGCHLD:
        if process.poll() is not None:
            print("the simulated vCenter ended by itself", file=sys.stderr)
            return 1
    process.stdin.close()
    return process.wait(timeout=20)


if __name__ == "__main__":
    sys.exit(main())
