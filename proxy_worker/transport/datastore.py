"""A datastore that is a folder: files in it are opened, and none outside it, whatever refers to them.

Names come from VMX files and descriptors, which whoever may write to the datastore can forge. A name is
resolved as text first, then with its symbolic links; the result must lie in the datastore, and it is opened
component by component without following links, so that a link put there meanwhile isn't followed either.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy_worker.contract.errors import NotFoundError, SourceError

_VOLUMES = "/vmfs/volumes/"


class OutsideDatastoreError(SourceError):
    """A VMX, descriptor, link or address points outside its datastore."""

    retryable = False


class LinkOutsideError(OutsideDatastoreError):
    """A symbolic link in a datastore leads out of it."""


class DiskNotFoundError(NotFoundError):
    """A disk, or a file that belongs to it, does not exist."""


class FileUnreadableError(SourceError):
    """A file of a VM can't be opened or read, or isn't a file."""


@dataclass(frozen=True)
class OpenFile:
    """A file of a datastore, open for reading. Whoever holds it closes `fd`."""

    path: str
    """Within the datastore."""
    fd: int
    size_bytes: int
    identity: tuple[int, int]
    """Device and inode: the same for two names of one file."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file. Raises FileUnreadableError."""
        pieces = []
        while length > 0:
            try:
                piece = os.pread(self.fd, length, offset)
            except OSError as error:
                raise FileUnreadableError(f"can't read {self.path} at {offset}", why=str(error)) from error
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file; once only."""
        os.close(self.fd)


def resolve_path(reference: str, *, names: Sequence[str], referrer: str | None = None) -> str:
    """The path within a datastore, which goes by `names`, that a reference means.

    Understands paths relative to the folder of the file that refers to it, `[name] path`, and
    `/vmfs/volumes/name/path`. Raises OutsideDatastoreError.
    """
    told = f"{reference!r}" + (f", which {referrer} refers to," if referrer else "")
    outside = OutsideDatastoreError(
        f"{told} can't be read",
        why=f"it lies outside datastore {names[0]}",
        remedy="Move the disk into the datastore, or let a mode read it that knows where it is.",
    )
    if not reference or "\0" in reference or "\n" in reference:
        raise OutsideDatastoreError(f"{told} isn't the name of a file")
    folder = posixpath.dirname(referrer) if referrer else ""
    volume: str | None = None
    if reference.startswith("["):
        volume, bracket, rest = reference[1:].partition("]")
        reference, folder = rest.strip(), ""
        if not bracket:
            raise outside
    elif reference.startswith(_VOLUMES):
        volume, _, reference = reference.removeprefix(_VOLUMES).partition("/")
        folder = ""
    if (volume is not None and volume not in names) or reference.startswith("/"):
        raise outside
    path = posixpath.normpath(posixpath.join(folder, reference))
    if path in {".", ".."} or path.startswith(("../", "/")):
        raise outside
    return path


class Datastore:
    """A folder with VMs in it."""

    def __init__(self, name: str, root: Path, *, label: str | None = None) -> None:
        self.name = name
        self.root = root
        self.label = label or f"datastore {name}"
        """What people call it."""

    def resolve(self, reference: str, *, referrer: str | None = None) -> str:
        """The path within the datastore that `reference` means, in a file at `referrer` or by itself.

        Raises OutsideDatastoreError.
        """
        return resolve_path(reference, names=(self.name, self.root.name), referrer=referrer)

    def open_file(self, path: str) -> OpenFile:
        """Open a file or block device by its path within the datastore.

        Raises DiskNotFoundError, OutsideDatastoreError or FileUnreadableError.
        """
        path = self.resolve(path)
        shown = f"{path} in {self.label}"
        try:
            root = self.root.resolve(strict=True)
            real = (root / path).resolve(strict=True)
        except FileNotFoundError as error:
            raise DiskNotFoundError(
                f"{shown} not found", why=f"{error.filename} doesn't exist", remedy="Check its name and the mount."
            ) from error
        except (OSError, RuntimeError) as error:
            raise FileUnreadableError(f"can't open {shown}", why=str(error)) from error
        if not real.is_relative_to(root):
            raise LinkOutsideError(f"{shown} can't be read", why=f"a link leads outside, to {real}")
        try:
            fd = _open_beneath(root, real.relative_to(root).parts)
        except OSError as error:
            why = "a link was put in its place" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
            raise FileUnreadableError(f"can't open {shown}", why=why) from error
        status = os.fstat(fd)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            os.close(fd)
            raise FileUnreadableError(f"can't read {shown}", why="it is neither a file nor a block device")
        size = os.lseek(fd, 0, os.SEEK_END)
        return OpenFile(path=path, fd=fd, size_bytes=size, identity=(status.st_dev, status.st_ino))

    def read_file(self, path: str, *, limit_bytes: int) -> bytes:
        """A small file whole. Raises as `open_file`, and FileUnreadableError when it is larger."""
        file = self.open_file(path)
        try:
            if file.size_bytes > limit_bytes:
                raise FileUnreadableError(
                    f"can't read {path} in {self.label}",
                    why=f"it has {file.size_bytes} bytes, more than the {limit_bytes} such a file may have",
                )
            return file.read_at(0, file.size_bytes)
        finally:
            file.close()


def _open_beneath(root: Path, parts: tuple[str, ...]) -> int:
    """Open `parts` below `root`, no component of which may be a link. Raises OSError."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: opening a named pipe must not wait for its other end.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(parts[-1] if parts else ".", flags, dir_fd=folder)
    finally:
        os.close(folder)
