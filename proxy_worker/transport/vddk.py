"""VMware's VDDK, run by nbdkit's vddk plug-in: network mode and SAN for the disks of a vCenter.

The plug-in and the library come from elsewhere (see the guide to transport modes), so what is there is probed.
The password's file is named on the command line, never the password; nbdkit reads the same file that sessions do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError, SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, VsphereDisk
from proxy_worker.transport.command import NbdServer, ServedSource, ServerFailedError, require_tool
from proxy_worker.transport.datastore import DiskNotFoundError
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere.trust import ThumbprintChangedError

PACKAGE: Final = "nbdkit"
NETWORK: Final = "nbdssl:nbd"
"""VDDK's names for network mode: encrypted where the host allows it."""
ENCRYPTED: Final = "nbdssl"
"""The one that is."""
SAN: Final = "san"
GUIDE: Final = "docs/transport-modes.md says where to get nbdkit's vddk plug-in and VMware's VDDK."

_PREFIXES: Final = re.compile(r"^.*\berror: |^\w+Error: ")
"""What nbdkit puts before the library's words."""


class VddkMissingError(SourceError):
    """nbdkit has no vddk plug-in on this machine, or the plug-in doesn't find VMware's library."""

    retryable = False


def open_vddk(
    address: DiskAddress, vsphere: VsphereAccess, *, transports: str, mode: TransportMode, reason: str
) -> ServedSource:
    """Serve a vCenter's disk, as its snapshot froze it, and connect to it.

    Raises VddkMissingError, ToolMissingError, ServerFailedError, DiskNotFoundError, VcenterSecretError,
    VcenterPasswordError, DiskLockedError, and the errors of `VsphereAccess.sha1_thumbprint`.
    """
    if address.vsphere is None:
        raise ServerFailedError(f"can't read {address.path} by VDDK", why="no vCenter has it")
    server = serve_vddk(address.vsphere, vsphere, transports=transports, read_only=True)
    try:
        return ServedSource(server, mode=mode, reason=f"{reason}; VDDK")
    except ServerFailedError as error:
        raise named(address.vsphere, error) from error


def network_transports(vsphere: VsphereAccess) -> str:
    """VDDK's names for the network mode that this proxy may use."""
    return ENCRYPTED if vsphere.encryption_to_host else NETWORK


def serve_vddk(disk: VsphereDisk, vsphere: VsphereAccess, *, transports: str, read_only: bool) -> NbdServer:
    """Start nbdkit for a disk: frozen in its snapshot, or without one, the disk itself.

    What keeps VDDK from opening the disk shows only when somebody connects, as a ServerFailedError that `named`
    explains. Raises VddkMissingError, VcenterSecretError, and the errors of `VsphereAccess.sha1_thumbprint`.
    """
    tool = require_tool("nbdkit", PACKAGE)
    settings = _settings(disk, vsphere, transports)
    how = ["--readonly"] if read_only else []
    return NbdServer(
        lambda folder: [tool, "--foreground", *how, "--unix", str(folder / "nbd.sock"), "vddk", *settings],
        what=f"{disk.path} of vCenter {disk.vcenter.name} by VDDK",
    )


def _settings(disk: VsphereDisk, vsphere: VsphereAccess, transports: str) -> tuple[str, ...]:
    """The plug-in's parameters."""
    vcenter = disk.vcenter
    settings = {
        "server": vcenter.host,
        "port": str(vcenter.port),
        "user": vcenter.user,
        "password": f"+{vsphere.password_file(vcenter)}",
        "thumbprint": vsphere.sha1_thumbprint(vcenter),
        "vm": f"moref={disk.vm}",
        "snapshot": disk.snapshot,
        "file": disk.path,
        "transports": transports,
        "libdir": vsphere.vddk_libdir,
    }
    return tuple(f"{key}={value}" for key, value in settings.items() if value is not None)


def named(disk: VsphereDisk, error: ServerFailedError) -> ProxyfleetError:
    """The error by its name, from what VDDK or nbdkit said; those of which nothing is known stay as they are."""
    from proxy_worker.vsphere.faults import DiskLockedError  # noqa: PLC0415 - slow to load, and wanted here only
    from proxy_worker.vsphere.session import VcenterPasswordError  # noqa: PLC0415 - as above

    credential = disk.vcenter.credential
    meanings: Sequence[tuple[str, type[ProxyfleetError], str]] = (
        (r"cannot open plugin|libvixDiskLib|cannot load", VddkMissingError, GUIDE),
        (
            r"incorrect user name or password|cannot complete login|login failed",
            VcenterPasswordError,
            f"Correct the file {credential}.password of this proxy, or unlock the account.",
        ),
        (
            r"\blocked\b|failed to lock|already in use",
            DiskLockedError,
            "Look for another backup's proxy that has it attached, or a migration; it is tried again.",
        ),
        (
            r"ssl certificate|thumbprint",
            ThumbprintChangedError,
            "If it was replaced, `scheduler vcenter trust` pins the new one; else look who answers.",
        ),
        (r"file was not found|no such file", DiskNotFoundError, "If it was moved or deleted, rescan the vCenter."),
    )
    for pattern, kind, remedy in meanings:
        telling = [words for words in error.why.split("; ") if re.search(pattern, words, re.IGNORECASE)]
        if telling:
            return kind(error.what, why=_PREFIXES.sub("", telling[-1]).rstrip("."), remedy=remedy)
    return error
