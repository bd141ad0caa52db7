"""Open a disk for writing by the mode that is best for it; nobody chooses it.

In place, where the datastore is mounted here and the disk is one flat file; else by network mode. SAN and hot-add
aren't used to write.
"""

from __future__ import annotations

from proxy_worker.contract.errors import NotFoundError, SourceError, TargetError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, VsphereDisk
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.image import open_image
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.transport.writing import DiskSink
from proxy_worker.transport.writing_direct import DirectSink, NotFlatError
from proxy_worker.transport.writing_network import open_vddk_sink


class NoWriteModeError(TargetError):
    """This proxy has no mode by which it can write a disk."""


def open_to_write(address: DiskAddress, connections: Connections, vsphere: VsphereAccess) -> DiskSink:
    """Open the disk of a VM that is powered off.

    Raises NoWriteModeError, TargetError, CredentialError, or ConflictError where another writes it.
    """
    sink, obstacle = _in_place(address, connections)
    if sink is not None:
        return sink
    disk = address.vsphere
    refusal = _no_network(disk, connections, vsphere)
    if disk is None or refusal is not None:
        raise NoWriteModeError(
            f"{disk.path if disk else address.path} can't be written on this proxy",
            why=f"direct_storage: {obstacle}; network: {refusal}",
            remedy="Give a proxy nbdkit with VDDK and the vCenter's password, or the datastore's folder.",
        )
    return open_vddk_sink(disk, vsphere, reason=f"network, automatic choice (no direct_storage: {obstacle})")


def _in_place(address: DiskAddress, connections: Connections) -> tuple[DiskSink | None, str]:
    """The disk, or why it isn't written in place."""
    if address.datastore is None:
        return None, "its datastore isn't declared"
    connection = connections.datastores.get(address.datastore)
    if connection is None or connection.path is None:
        return None, f"datastore {address.datastore} isn't mounted on this proxy"
    if TransportMode.DIRECT_STORAGE not in connections.modes:
        return None, "this proxy's transport_modes leave it out"
    if address.vsphere is not None and address.vsphere.earlier_snapshots:
        return None, "the VM has snapshots"
    try:
        image = open_image(Datastore(address.datastore, connection.path), address.path or "")
        return DirectSink(image, reason=f"direct_storage, automatic choice; {image.description} disk"), ""
    except (SourceError, NotFoundError, NotFlatError) as error:
        return None, str(error)


def _no_network(disk: VsphereDisk | None, connections: Connections, vsphere: VsphereAccess) -> str | None:
    """Why network mode can't write it, or None."""
    if disk is None:
        return "no vCenter has it"
    offer = vsphere.offer
    if TransportMode.NETWORK not in connections.modes:
        return "this proxy's transport_modes leave it out"
    if TransportMode.NETWORK not in offer.modes:
        return offer.refusals.get(TransportMode.NETWORK, "this proxy has no VDDK")
    if disk.vcenter.credential not in offer.passwords:
        return f"this proxy has no {disk.vcenter.credential}.password"
    return None
