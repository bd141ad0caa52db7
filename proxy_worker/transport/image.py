"""A virtual disk with all its files open: layers from the newest delta to the base, each with its extents.

Everything is opened here, within the datastore, before anything reads it: what is opened is what is read,
whatever happens to the names meanwhile.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from proxy_worker.transport import sparse_extent
from proxy_worker.transport.datastore import Datastore, DiskNotFoundError, OpenFile
from proxy_worker.transport.vmdk import (
    DESCRIPTOR_LIMIT_BYTES,
    NO_PARENT,
    SECTOR_BYTES,
    Descriptor,
    DiskCycleError,
    DiskExtent,
    ExtentKind,
    ExtentMissingError,
    ParentChangedError,
    ParentMissingError,
    VmdkDamagedError,
    VmdkUnsupportedError,
    parse_descriptor,
)

DEEPEST_CHAIN: Final = 255
_VOLUMES = "/vmfs/volumes/"


@dataclass(frozen=True)
class Layer:
    """One VMDK: the whole disk, or what a delta changed."""

    path: str
    descriptor: Descriptor
    files: tuple[OpenFile | None, ...]
    """One for each extent of the descriptor; None for an extent of zeros."""
    monolithic: bool
    """Whether the descriptor stands within its only, sparse extent."""


@dataclass(frozen=True)
class DiskImage:
    """A disk's layers, the one that was asked for first. Closing it closes their files."""

    path: str
    size_bytes: int
    layers: tuple[Layer, ...]
    raw: OpenFile | None = None
    """A raw image instead of layers."""
    _files: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def is_flat(self) -> bool:
        """Whether the disk's bytes can be read in place."""
        kinds = {extent.kind for layer in self.layers for extent in layer.descriptor.extents}
        return len(self.layers) <= 1 and kinds <= {ExtentKind.FLAT, ExtentKind.VMFS, ExtentKind.ZERO}

    @property
    def description(self) -> str:
        """What kind of disk it is, for people."""
        if self.raw is not None:
            return "raw"
        deltas = len(self.layers) - 1
        base = self.layers[-1].descriptor.create_type
        return f"{base} with {deltas} delta{'s' if deltas > 1 else ''}" if deltas else base

    def close(self) -> None:
        """Close every file. May be called again."""
        self._files.close()


def is_raw_name(path: str) -> bool:
    """Whether a file is read as a raw image, by its name alone.

    A guest writes the content of a raw image: were that looked at, it could pass for a descriptor that names
    any file.
    """
    lower = path.lower()
    return not lower.endswith(".vmdk") or lower.endswith("-flat.vmdk")


def open_image(datastore: Datastore, path: str) -> DiskImage:
    """Open a disk and everything it consists of.

    Raises DiskNotFoundError, OutsideDatastoreError, FileUnreadableError or a VmdkError.
    """
    with ExitStack() as opened:
        path = datastore.resolve(path)
        if is_raw_name(path):
            raw = datastore.open_file(path)
            opened.callback(raw.close)
            return DiskImage(path, raw.size_bytes, (), raw, opened.pop_all())
        layers = _open_chain(datastore, path, opened)
        return DiskImage(path, layers[0].descriptor.size_bytes, tuple(layers), None, opened.pop_all())


def _open_chain(datastore: Datastore, path: str, opened: ExitStack) -> list[Layer]:
    layers: list[Layer] = []
    seen: dict[tuple[int, int], str] = {}
    while True:
        try:
            file = datastore.open_file(path)
        except DiskNotFoundError as error:
            if not layers:
                raise
            raise ParentMissingError(f"the parent of {layers[-1].path} is missing", why=str(error)) from error
        opened.callback(file.close)
        if file.identity in seen:
            raise DiskCycleError(
                f"{layers[0].path} has no base",
                why=f"its parents are cyclic: {' -> '.join([*(layer.path for layer in layers), path])}",
            )
        seen[file.identity] = path
        layer = _open_layer(datastore, file, opened)
        if layers:
            _require_unchanged(layers[-1], layer)
        layers.append(layer)
        if layer.descriptor.parent_cid == NO_PARENT:
            return layers
        if len(layers) > DEEPEST_CHAIN:
            raise VmdkUnsupportedError(
                f"{layers[0].path} can't be read", why=f"it has more than {DEEPEST_CHAIN} parents"
            )
        path = _parent_path(datastore, layer)


def _parent_path(datastore: Datastore, layer: Layer) -> str:
    """Where a delta's parent is.

    ESXi writes a parent in another folder as /vmfs/volumes/<id>/…, an id that a mounted datastore doesn't
    show. Such a path is tried in this datastore: whether it is the parent, its content id tells.
    """
    hint = layer.descriptor.parent_hint or ""
    if hint.startswith(_VOLUMES):
        hint = f"[{datastore.name}] {hint.removeprefix(_VOLUMES).partition('/')[2]}"
    return datastore.resolve(hint, referrer=layer.path)


def _require_unchanged(delta: Layer, parent: Layer) -> None:
    if delta.descriptor.parent_cid != parent.descriptor.cid:
        raise ParentChangedError(
            f"{delta.path} can't be read on top of {parent.path}",
            why=f"it expects content {delta.descriptor.parent_cid:08x}, the parent has {parent.descriptor.cid:08x}",
            remedy="The parent was changed behind the snapshot's back; restore it.",
        )


def _open_layer(datastore: Datastore, file: OpenFile, opened: ExitStack) -> Layer:
    """The VMDK in `file` with its extents opened."""
    if file.read_at(0, 4) in {sparse_extent.HOSTED_MAGIC, sparse_extent.ESX_MAGIC}:
        header = sparse_extent.read_header(file)
        descriptor = parse_descriptor(
            sparse_extent.embedded_descriptor(file, header), f"the descriptor in {file.path}"
        )
        if len(descriptor.extents) != 1 or descriptor.extents[0].kind is not ExtentKind.SPARSE:
            raise VmdkDamagedError(
                f"{file.path} can't be read", why="its own descriptor names other extents than itself"
            )
        _require_sparse(file, descriptor.extents[0])
        return Layer(file.path, descriptor, (file,), monolithic=True)
    descriptor = parse_descriptor(file.read_at(0, DESCRIPTOR_LIMIT_BYTES), file.path)
    files = tuple(_open_extent(datastore, file.path, extent, opened) for extent in descriptor.extents)
    return Layer(file.path, descriptor, files, monolithic=False)


def _open_extent(datastore: Datastore, descriptor: str, extent: DiskExtent, opened: ExitStack) -> OpenFile | None:
    if extent.file_name is None:
        return None
    path = datastore.resolve(extent.file_name, referrer=descriptor)
    try:
        file = datastore.open_file(path)
    except DiskNotFoundError as error:
        raise ExtentMissingError(f"an extent of {descriptor} is missing", why=str(error)) from error
    opened.callback(file.close)
    if not extent.kind.is_flat:
        _require_sparse(file, extent)
        return file
    needed = extent.offset_sectors * SECTOR_BYTES + extent.size_bytes
    if file.size_bytes < needed:
        raise VmdkDamagedError(
            f"{file.path} is truncated",
            why=f"{descriptor} needs {needed} bytes of it, it has {file.size_bytes}",
            remedy="Restore the file, or copy it again.",
        )
    return file


def _require_sparse(file: OpenFile, extent: DiskExtent) -> None:
    """Check that a sparse extent is whole and as large as the descriptor says."""
    header = sparse_extent.read_header(file)
    if header.capacity_sectors != extent.sectors:
        raise VmdkDamagedError(
            f"{file.path} can't be read",
            why=f"its descriptor gives it {extent.sectors} sectors, its header {header.capacity_sectors}",
        )
    sparse_extent.require_whole(file, header)
