"""Direct storage: the proxy reads a datastore itself, mounted, over NFS, or from the LUN that it lies on."""

from __future__ import annotations

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.in_place import open_in_place
from proxy_worker.transport.nfs import open_nfs
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.vddk import SAN, open_vddk
from proxy_worker.transport.vsphere_access import VsphereAccess


def open_direct_storage(
    address: DiskAddress, connections: Connections, vsphere: VsphereAccess, *, reason: str
) -> DiskSource:
    """A disk by its datastore's `path`, `nfs_uri` or `san`, which one of it has.

    Raises SourceError, NotFoundError; by SAN also CredentialError and ConflictError.
    """
    name = address.datastore or ""
    connection = connections.datastores[name]
    if connection.path is not None:
        return open_in_place(Datastore(name, connection.path), address.path or "", reason)
    if connection.nfs_uri is not None:
        return open_nfs(name, connection.nfs_uri, address.path or "", reason=reason)
    return open_vddk(address, vsphere, transports=SAN, mode=TransportMode.DIRECT_STORAGE, reason=reason)
