"""Open a disk that a person names, with no fleet that says how."""

from __future__ import annotations

from pathlib import Path

from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.in_place import open_in_place
from proxy_worker.transport.nbd.uri import is_nbd_uri, parse_uri
from proxy_worker.transport.source import DiskSource


def open_path(text: str) -> DiskSource:
    """Open a disk that a person names: a path, or an NBD URI.

    A file that isn't called .vmdk or .qcow2 is a raw image. A VMDK may consist of files in its own folder and
    below.
    Raises SourceError, NotFoundError, NbdUriError.
    """
    if is_nbd_uri(text):
        from proxy_worker.transport.nbd.source import NbdSource  # noqa: PLC0415 - as the next

        return NbdSource(parse_uri(text), reason="network, because an NBD URI was given")
    path = Path(text).expanduser().absolute()
    path = path.resolve() if path.is_symlink() else path
    if _is_qcow2_name(path):
        from proxy_worker.transport.qcow2 import open_qcow2  # noqa: PLC0415 - what other disks need is slow to load

        return open_qcow2(path)
    return open_in_place(
        Datastore(path.parent.name, path.parent, label=str(path.parent)),
        path.name,
        "direct_storage, because a path was given",
    )


def _is_qcow2_name(path: Path) -> bool:
    """Whether a file is read as qcow2: by its name alone, since a guest writes what is in a raw disk."""
    return path.suffix.lower() == ".qcow2"
