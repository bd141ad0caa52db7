"""qcow2 images that a person names, read through `qemu-nbd` once they are known to be whole.

Source: "qcow2 image file format" of the QEMU project.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.transport.command import NbdServer, ServedSource, require_tool
from proxy_worker.transport.datastore import Datastore, OpenFile
from proxy_worker.transport.nbd.source import MOST_CONNECTIONS
from proxy_worker.transport.qemu import PACKAGE

_HEADER: Final = struct.Struct(">4sIQIIQI")
"""Magic, version, offset and length of the backing file's name, cluster bits, disk size, encryption."""
_VERSION_3: Final = 3
_MAGIC: Final = b"QFI\xfb"
_VERSION_2_BYTES: Final = 72
_FEATURES: Final = struct.Struct(">Q")
"""What a reader must know, in what follows since version 3."""
_CORRUPT: Final = 1 << 1
_EXTERNAL_DATA: Final = 1 << 2
_LEAKS_ONLY: Final = 3
"""qemu-img's exit code for an image that is sound and wastes room."""


class Qcow2Error(SourceError):
    """A qcow2 image that isn't whole by itself, or isn't one."""

    retryable = False


def open_qcow2(path: Path) -> ServedSource:
    """Serve an image by qemu-nbd and connect to it.

    Raises Qcow2Error, DiskNotFoundError, FileUnreadableError, ToolMissingError, ServerFailedError.
    """
    with ExitStack() as undo:
        file = Datastore(path.parent.name, path.parent, label=str(path.parent)).open_file(path.name)
        undo.callback(file.close)
        _require_alone(path, file)
        _require_whole(path, file)
        tool = require_tool("qemu-nbd", PACKAGE)
        server = NbdServer(
            lambda folder: [
                *(tool, "--read-only", "--persistent", f"--shared={MOST_CONNECTIONS + 1}"),
                *(f"--socket={folder / 'nbd.sock'}", "--export-name=", "--format=qcow2", _by_fd(file)),
            ],
            what=f"{path} by qemu-nbd",
            pass_fds=[file.fd],
        )
        source = ServedSource(
            server,
            mode=TransportMode.DIRECT_STORAGE,
            reason="direct_storage, because a path was given; qcow2 image through qemu-nbd",
            closing=file.close,
        )
        undo.pop_all()
        return source


def _require_alone(path: Path, file: OpenFile) -> None:
    """Raise unless all of the disk is in this file, and can be read."""
    header = file.read_at(0, _VERSION_2_BYTES + _FEATURES.size).ljust(_VERSION_2_BYTES + _FEATURES.size, b"\0")
    if header[:4] != _MAGIC:
        raise Qcow2Error(f"{path} can't be read", why="it is called .qcow2 and isn't a qcow2 image")
    _, version, backing_at, _, _, _, encryption = _HEADER.unpack_from(header)
    features = _FEATURES.unpack_from(header, _VERSION_2_BYTES)[0] if version >= _VERSION_3 else 0
    convert = "Make one file of it with `qemu-img convert -O qcow2`, and take that."
    if backing_at:
        raise Qcow2Error(f"{path} can't be read alone", why="it has a backing file", remedy=convert)
    if features & _EXTERNAL_DATA:
        raise Qcow2Error(f"{path} can't be read alone", why="its data is in another file", remedy=convert)
    if encryption:
        raise Qcow2Error(f"{path} can't be read", why="it is encrypted", remedy=convert)
    if features & _CORRUPT:
        raise Qcow2Error(
            f"{path} can't be read", why="it is marked as corrupt", remedy="See what `qemu-img check` says of it."
        )


def _require_whole(path: Path, file: OpenFile) -> None:
    """Raise unless its tables add up: qemu-nbd reads what lies beyond the end of the file as zeros."""
    tool = require_tool("qemu-img", PACKAGE)
    checked = subprocess.run(
        [tool, "check", "--force-share", "--format=qcow2", _by_fd(file)],
        pass_fds=[file.fd],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if checked.returncode not in {0, _LEAKS_ONLY}:
        said = (checked.stdout + checked.stderr).strip().splitlines()
        raise Qcow2Error(
            f"{path} can't be read",
            why=f"it is damaged or cut short: {said[0] if said else 'qemu-img says nothing'}",
            remedy=f"See what `qemu-img check {path}` says.",
        )


def _by_fd(file: OpenFile) -> str:
    return f"/proc/self/fd/{file.fd}"
