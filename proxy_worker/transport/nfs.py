"""NFS datastores that aren't mounted: the flat file of a disk, by qemu-nbd with its nfs driver.

Only the file that holds the disk's bytes is named, by VMware's habit, and read as it is: no descriptor that lies
on the export is parsed, so none can lead elsewhere. The export speaks NFS 3 and has to let this machine in as root.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.command import NbdServer, ServedSource, require_tool
from proxy_worker.transport.datastore import resolve_path
from proxy_worker.transport.image import is_raw_name
from proxy_worker.transport.nbd.source import MOST_CONNECTIONS
from proxy_worker.transport.qemu import PACKAGE

DRIVER_PACKAGE: Final = "qemu-block-extra"


def open_nfs(datastore: str, nfs_uri: str, path: str, *, reason: str) -> ServedSource:
    """Serve a flat disk of the export `nfs_uri` by qemu-nbd and connect to it.

    Raises ToolMissingError, OutsideDatastoreError or ServerFailedError.
    """
    tool = require_tool("qemu-nbd", PACKAGE)
    vmdk = resolve_path(path, names=(datastore,))
    flat = vmdk if is_raw_name(vmdk) else f"{vmdk[: -len('.vmdk')]}-flat.vmdk"
    uri = f"{nfs_uri.rstrip('/')}/{quote(flat)}"
    image = {"driver": "raw", "force-share": True, "file": {"driver": "nfs", "filename": uri}}
    server = NbdServer(
        lambda folder: [
            tool,
            "--read-only",
            "--persistent",
            f"--shared={MOST_CONNECTIONS + 1}",
            f"--socket={folder / 'nbd.sock'}",
            "--export-name=",
            f"json:{json.dumps(image)}",
        ],
        what=f"{uri} by qemu-nbd with {DRIVER_PACKAGE}",
    )
    return ServedSource(server, mode=TransportMode.DIRECT_STORAGE, reason=f"{reason}; NFS through qemu-nbd")
