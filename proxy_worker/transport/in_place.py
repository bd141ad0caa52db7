"""A disk of a folder, read where it lies, or through `qemu-nbd` where its files aren't the plain bytes."""

from __future__ import annotations

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.direct import DirectSource
from proxy_worker.transport.image import open_image
from proxy_worker.transport.source import DiskSource


def open_in_place(
    datastore: Datastore, path: str, reason: str, *, mode: TransportMode = TransportMode.DIRECT_STORAGE
) -> DiskSource:
    """A disk of a datastore that is a folder. Raises SourceError, NotFoundError."""
    image = open_image(datastore, path)
    reason = f"{reason}; {image.description} disk"
    if image.is_flat:
        return DirectSource(image, reason=reason, mode=mode)
    from proxy_worker.transport.qemu import open_qemu  # noqa: PLC0415 - most disks are flat

    return open_qemu(image, reason=f"{reason} through qemu-nbd", mode=mode)
