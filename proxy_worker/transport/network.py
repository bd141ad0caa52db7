"""Network mode: a disk that an NBD server offers, that a configured command serves as NBD, or that VDDK fetches.

In a datastore's templates, `{path}` is the file that holds the disk's bytes: for a flat VMDK its flat extent,
for every other disk the path itself. `{vmdk}` is the disk as its VMX names it, for servers that understand
VMDK. `{socket}` is where a command is to listen.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from proxy_worker.contract.errors import NotFoundError, SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.transport.command import NbdServer, ServedSource
from proxy_worker.transport.connections import Connections, DatastoreConnection
from proxy_worker.transport.datastore import Datastore, resolve_path
from proxy_worker.transport.image import is_raw_name, open_image
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import parse_uri
from proxy_worker.transport.source import DiskSource, WrongDiskServedError
from proxy_worker.transport.sparse_extent import ESX_MAGIC, HOSTED_MAGIC
from proxy_worker.transport.vddk import network_transports, open_vddk
from proxy_worker.transport.vmdk import SECTOR_BYTES, is_descriptor
from proxy_worker.transport.vsphere_access import VsphereAccess


@dataclass(frozen=True)
class _Target:
    """What network mode is to serve."""

    vmdk: str
    path: str
    size_bytes: int | None = None
    """The disk's size, where this proxy sees its descriptor."""


def open_network_mode(
    address: DiskAddress, connections: Connections, vsphere: VsphereAccess, *, reason: str
) -> DiskSource:
    """A disk by its own NBD URI, by what proxy.toml says of its datastore, or else by VDDK.

    Raises SourceError, or NbdUriError when the template doesn't make a URI; by VDDK also CredentialError and
    ConflictError.
    """
    if address.nbd_uri is not None:
        return open_offered(address.nbd_uri, reason=reason)
    connection = connections.datastores.get(address.datastore or "")
    if connection is not None and TransportMode.NETWORK in connection.modes:
        return open_network(address, connection, reason=reason)
    transports = network_transports(vsphere)
    return open_vddk(address, vsphere, transports=transports, mode=TransportMode.NETWORK, reason=reason)


def open_offered(uri: str, *, reason: str) -> NbdSource:
    """A disk that an NBD server offers. Raises NbdUriError or NbdConnectError."""
    return NbdSource(parse_uri(uri), reason=reason)


def open_network(address: DiskAddress, connection: DatastoreConnection, *, reason: str) -> NbdSource | ServedSource:
    """A datastore's disk by its `network_uri` or `network_command`.

    Raises SourceError, or NbdUriError when the template doesn't make a URI.
    """
    target = _target(address, connection)
    source: NbdSource | ServedSource
    if connection.network_uri is not None:
        uri = parse_uri(_fill(connection.network_uri, quote(target.path), quote(target.vmdk)))
        source = NbdSource(uri, reason=reason)
    else:
        template = connection.network_command or ()
        server = NbdServer(
            lambda folder: [_fill(word, target.path, target.vmdk, folder) for word in template],
            what=f"{target.vmdk} by {template[0] if template else 'network_command'}",
        )
        source = ServedSource(server, mode=TransportMode.NETWORK, reason=reason)
    try:
        _require_disk(source, target)
    except BaseException:
        source.close()
        raise
    return source


def _fill(template: str, path: str, vmdk: str, folder: Path | None = None) -> str:
    if template.startswith("{"):  # a name at the beginning of a word must not pass for an option
        path, vmdk = (f"./{name}" if name.startswith("-") else name for name in (path, vmdk))
    values: dict[str, str] = {
        "{path}": path,
        "{vmdk}": vmdk,
        "{socket}": str(folder / "nbd.sock") if folder else "",
    }
    filled, rest = "", template
    while rest:  # one pass: a name that looks like a placeholder stays as it is
        found = next((key for key in values if rest.startswith(key)), None)
        filled += values[found] if found else rest[0]
        rest = rest[len(found or "x") :]
    return filled


def _target(address: DiskAddress, connection: DatastoreConnection) -> _Target:
    """What to serve: from the disk's descriptor where this proxy sees it, else by VMware's habit of naming."""
    name = address.datastore or ""
    vmdk = resolve_path(address.path or "", names=(name,))
    if connection.path is not None:
        try:
            with closing(open_image(Datastore(name, connection.path), vmdk)) as image:
                files = [file for layer in image.layers for file in layer.files]
                extents = [extent for layer in image.layers for extent in layer.descriptor.extents]
                only = files[0] if image.is_flat and len(files) == 1 and not extents[0].offset_sectors else None
                size = image.size_bytes if image.raw is None else None
                return _Target(vmdk, only.path if only else vmdk, size)
        except (SourceError, NotFoundError):
            pass  # what this proxy can't read, the server may: it is why network mode is tried
    flat = vmdk if is_raw_name(vmdk) else f"{vmdk[: -len('.vmdk')]}-flat.vmdk"
    return _Target(vmdk, flat)


def _require_disk(source: NbdSource | ServedSource, target: _Target) -> None:
    """Raise WrongDiskServedError when it is another disk, or the VMDK file instead of the disk within."""
    if target.size_bytes is not None and source.size_bytes != target.size_bytes:
        raise WrongDiskServedError(
            f"{target.vmdk} can't be read in network mode",
            why=f"the server offers {source.size_bytes} bytes, the disk has {target.size_bytes}",
            remedy="Let the server open the disk, not the file: see {path} and {vmdk} in the guide.",
        )
    if is_raw_name(target.vmdk):
        return
    sector = bytearray(min(SECTOR_BYTES, source.size_bytes))
    source.read_into(0, memoryview(sector))
    beginning = bytes(sector)
    if beginning.startswith((HOSTED_MAGIC, ESX_MAGIC)) or is_descriptor(beginning):
        raise WrongDiskServedError(
            f"{target.vmdk} can't be read in network mode",
            why="the server offers the VMDK file itself, not the disk within",
            remedy="Let the server open the disk, not the file: see {path} and {vmdk} in the guide.",
        )
