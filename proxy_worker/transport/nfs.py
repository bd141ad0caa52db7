"""NFS datastores that aren't mounted: the flat file of a disk, by qemu-nbd with its nfs driver.

Only the file that holds the disk's bytes is named, by VMware's habit, and read as it is: no descriptor that lies
on the export is parsed, so none can lead elsewhere. The driver speaks NFS 3, and the export has to let this machine
in as root.
"""

from __future__ import annotations

import posixpath
from typing import Final
from urllib.parse import unquote, urlsplit

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.command import NbdServer, ServedSource, ServerFailedError, require_tool
from proxy_worker.transport.datastore import DiskNotFoundError, resolve_path
from proxy_worker.transport.image import is_raw_name
from proxy_worker.transport.qemu import PACKAGE, serving

DRIVER_PACKAGE: Final = "qemu-block-extra"


def open_nfs(datastore: str, nfs_uri: str, path: str, *, reason: str) -> ServedSource:
    """Serve a flat disk of the export `nfs_uri` by qemu-nbd and connect to it.

    Raises ToolMissingError, OutsideDatastoreError, DiskNotFoundError or ServerFailedError.
    """
    tool = require_tool("qemu-nbd", PACKAGE)
    vmdk = resolve_path(path, names=(datastore,))
    flat = vmdk if is_raw_name(vmdk) else f"{vmdk[: -len('.vmdk')]}-flat.vmdk"
    export = urlsplit(nfs_uri)
    file = {
        "driver": "nfs",
        "server": {"type": "inet", "host": export.hostname},
        "path": posixpath.join(unquote(export.path) or "/", flat),
    }
    what = f"{flat} of {nfs_uri}"
    server = NbdServer(
        lambda folder: serving(tool, folder, {"driver": "raw", "file": file}), what=f"{what} by qemu-nbd"
    )
    try:
        return ServedSource(server, mode=TransportMode.DIRECT_STORAGE, reason=f"{reason}; NFS through qemu-nbd")
    except ServerFailedError as error:
        if "NFS3ERR_NOENT" in error.why:
            raise DiskNotFoundError(f"{what} not found", why=error.why, remedy="Check its name.") from error
        error.remedy = _remedy(error.why)
        error.args = (str(error),)
        raise


def _remedy(why: str) -> str:
    if "Unknown driver" in why or "block-nfs" in why:
        return f"Install the package {DRIVER_PACKAGE}."
    if "ACCES" in why or "PERM" in why:
        return "Let the export's settings admit this machine, as root."
    return "Check the server, the export, and the network between."
