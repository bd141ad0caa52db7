"""What this machine can do with the disks of vCenters: found out once, when a proxy starts."""

from __future__ import annotations

import functools
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Final

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.vddk import PACKAGE

log = logging.getLogger(__name__)

FIRMWARE: Final = Path("/sys/class/dmi/id")
_PROBE_TIMEOUT_S: Final = 30.0
_LONGEST_QUOTE: Final = 300
_APPLIANCE, _NETWORK = TransportMode.VIRTUAL_APPLIANCE, TransportMode.NETWORK


def probe_vsphere(
    connections: Connections,
    *,
    secrets_dir: Path,
    vddk_libdir: Path | None = None,
    product_uuid: str | None = None,
    firmware: Path = FIRMWARE,
) -> VsphereOffer:
    """What the proxy may tell the scheduler: the modes that work here, and for the others why they don't.

    `product_uuid` takes the place of what the firmware says; an empty one says that this machine is no VM.
    """
    passwords = tuple(sorted(path.stem for path in secrets_dir.glob("*.password")))
    uuid = own_product_uuid(firmware) if product_uuid is None else product_uuid.strip().lower() or None
    refusals: dict[TransportMode, str] = {}
    if uuid is None:
        refusals[_APPLIANCE] = "this proxy is no VM of vSphere, as far as its firmware says"
    no_vddk = vddk_obstacle(shutil.which("nbdkit"), vddk_libdir)
    if no_vddk is not None:
        refusals[_NETWORK] = no_vddk
        if any(connection.san for connection in connections.datastores.values()):
            refusals[TransportMode.DIRECT_STORAGE] = no_vddk
        if passwords:
            log.warning("disks of vCenters can't be read through VDDK on this proxy: %s", no_vddk)
    modes = tuple(mode for mode in (_APPLIANCE, _NETWORK) if mode not in refusals and mode in connections.modes)
    mounted = tuple(sorted(name for name, connection in connections.datastores.items() if connection.path))
    return VsphereOffer(modes=modes, refusals=refusals, passwords=passwords, product_uuid=uuid, mounted=mounted)


def own_product_uuid(firmware: Path = FIRMWARE) -> str | None:
    """The BIOS uuid of the vSphere VM that this machine is; None if it is none, or may not read it (root may)."""
    try:
        vendor = (firmware / "sys_vendor").read_text()
        uuid = (firmware / "product_uuid").read_text().strip().lower()
    except (OSError, UnicodeDecodeError):
        return None
    return uuid if uuid and vendor.startswith("VMware") else None


@functools.cache
def vddk_obstacle(nbdkit: str | None, libdir: Path | None) -> str | None:
    """Why `nbdkit vddk` doesn't work with the library in `libdir`, or None; asked once in a process."""
    if nbdkit is None:
        return f"nbdkit isn't installed (package {PACKAGE})"
    where = [f"libdir={libdir}"] if libdir is not None else []
    try:
        asked = subprocess.run(
            [nbdkit, "vddk", "--dump-plugin", *where],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nbdkit can't be asked for its vddk plug-in: {error}"
    if "cannot open plugin" in asked.stderr:
        return "nbdkit has no vddk plug-in on this proxy"
    if asked.returncode != 0 or "\nvddk_" not in asked.stdout:
        said = " ".join(asked.stderr.split()).removeprefix("nbdkit: error: ")[:_LONGEST_QUOTE]
        return f"nbdkit's vddk plug-in doesn't find VMware's VDDK: {said or f'exit status {asked.returncode}'}"
    return None
