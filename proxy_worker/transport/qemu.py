"""Sparse, stream-optimised and delta VMDKs, read through `qemu-nbd`.

qemu-nbd gets the files already open, and descriptors that are written here: it resolves no name that the
datastore contains. Zero extents, which it doesn't know, become files of one hole; extents that are marked
read-only, which it would leave out, are offered as the rest are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.command import NbdServer, ServedSource, require_tool
from proxy_worker.transport.image import DiskImage, Layer
from proxy_worker.transport.nbd.source import MOST_CONNECTIONS

PACKAGE: Final = "qemu-utils"


def open_qemu(image: DiskImage, *, reason: str, mode: TransportMode = TransportMode.DIRECT_STORAGE) -> ServedSource:
    """Serve a disk by qemu-nbd and connect to it; takes over `image`.

    Raises ToolMissingError or ServerFailedError.
    """
    with ExitStack() as undo:
        undo.callback(image.close)
        tool = require_tool("qemu-nbd", PACKAGE)
        fds = [file.fd for layer in image.layers for file in layer.files if file is not None]
        server = NbdServer(
            lambda folder: _command(tool, folder, image),
            what=f"{image.path} by qemu-nbd",
            pass_fds=fds,
        )
        source = ServedSource(server, mode=mode, reason=reason, closing=image.close)
        undo.pop_all()
        return source


def _command(tool: str, folder: Path, image: DiskImage) -> list[str]:
    graph: dict[str, object] | None = None
    for number, layer in reversed(list(enumerate(image.layers))):
        # Naming the backing disk, even as none, keeps qemu from looking for one itself.
        graph = {"driver": "vmdk", "file": _file(layer, number, folder), "backing": graph}
    return serving(tool, folder, graph or {})


def serving(tool: str, folder: Path, graph: Mapping[str, object]) -> list[str]:
    """The command with which qemu-nbd offers an image, for reading, on the socket in `folder`; `graph`: QEMU's
    description of the image."""
    return [
        tool,
        "--read-only",
        "--persistent",
        f"--shared={MOST_CONNECTIONS + 1}",
        f"--socket={folder / 'nbd.sock'}",
        "--export-name=",
        f"json:{json.dumps({'force-share': True, **graph})}",
    ]


def _file(layer: Layer, number: int, folder: Path) -> dict[str, object]:
    """The file that holds a layer's descriptor."""
    if layer.monolithic and layer.files[0] is not None:
        return {"driver": "file", "filename": _by_fd(layer.files[0].fd)}
    path = folder / f"layer-{number}.vmdk"
    path.write_text(_descriptor(layer, number, folder))
    return {"driver": "file", "filename": str(path)}


def _descriptor(layer: Layer, number: int, folder: Path) -> str:
    said = layer.descriptor
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={said.cid:08x}",
        f"parentCID={said.parent_cid:08x}",
        f'createType="{_create_type(layer)}"',
    ]
    for index, (extent, file) in enumerate(zip(said.extents, layer.files, strict=True)):
        if file is None:
            hole = folder / f"zeros-{number}-{index}"
            hole.touch()
            os.truncate(hole, extent.size_bytes)
            lines.append(f'RW {extent.sectors} FLAT "{hole}" 0')
        elif extent.kind.is_flat:
            lines.append(f'RW {extent.sectors} FLAT "{_by_fd(file.fd)}" {extent.offset_sectors}')
        else:
            lines.append(f'RW {extent.sectors} {extent.kind} "{_by_fd(file.fd)}"')
    return "\n".join(lines) + "\n"


def _create_type(layer: Layer) -> str:
    """A type under which qemu opens such extents; it decides by their kinds, but wants a name that it knows."""
    return "twoGbMaxExtentSparse" if any(not e.kind.is_flat for e in layer.descriptor.extents) else "monolithicFlat"


def _by_fd(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
