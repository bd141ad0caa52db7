"""VMware's VDDK, run by nbdkit's vddk plug-in: network mode and SAN for the disks of a vCenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.specification import DiskAddress, VsphereDisk
from proxy_worker.transport.command import NbdServer, ServedSource, require_tool
from proxy_worker.transport.vsphere_access import VsphereAccess

PACKAGE: Final = "nbdkit"
NETWORK: Final = "nbdssl:nbd"
SAN: Final = "san"


def open_vddk(
    address: DiskAddress, vsphere: VsphereAccess, *, transports: str, mode: TransportMode, reason: str
) -> ServedSource:
    """Serve a vCenter's disk, as its snapshot froze it, and connect to it."""
    disk = address.vsphere
    if disk is None:
        raise ValueError("not a disk of a vCenter")
    tool = require_tool("nbdkit", PACKAGE)
    settings = vddk_settings(disk, vsphere, transports=transports)
    server = NbdServer(
        lambda folder: _command(tool, folder, settings),
        what=f"{disk.path} of vCenter {disk.vcenter.name} by nbdkit's vddk plug-in",
    )
    return ServedSource(server, mode=mode, reason=f"{reason}; VDDK")


def vddk_settings(disk: VsphereDisk, vsphere: VsphereAccess, *, transports: str) -> tuple[str, ...]:
    """The plug-in's parameters `key=value` for a disk. The password's file is named, never the password.

    Raises VcenterSecretError and the errors of `VsphereAccess.sha1_thumbprint`.
    """
    vcenter = disk.vcenter
    settings = {
        "server": vcenter.host,
        "port": str(vcenter.port),
        "user": vcenter.user,
        "password": f"+{vsphere.password_file(vcenter)}",
        "thumbprint": vsphere.sha1_thumbprint(vcenter),
        "vm": f"moref={disk.vm}",
        **({"snapshot": disk.snapshot} if disk.snapshot is not None else {}),
        "file": disk.path,
        "transports": transports,
        **({"libdir": str(vsphere.vddk_libdir)} if vsphere.vddk_libdir is not None else {}),
    }
    return tuple(f"{key}={value}" for key, value in settings.items())


def _command(tool: str, folder: Path, settings: Sequence[str]) -> list[str]:
    return [tool, "--foreground", "--readonly", "--unix", str(folder / "nbd.sock"), "vddk", *settings]
