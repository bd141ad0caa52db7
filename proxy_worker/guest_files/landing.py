"""Restored files land: under a name of their own until they are whole, with mode and time, and owners if root.

What the appliance sends is not trusted: it has read a foreign filesystem. Nothing leaves the target folder, for
links are made last and never followed. Special files are left out, and said.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from proxy_worker.guest_files.errors import FileTargetError, GuestReadError, TargetFileExistsError
from proxy_worker.guest_files.guest import Entry, Guest, whole_seconds
from proxy_worker.guest_files.paths import shown

_COPY_BYTES: Final = 1 << 20
_PARTIAL: Final = ".restoring-"
_PRIVATE: Final = 0o700
_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class Landed:
    """What was restored of one path."""

    to: Path
    files: int = 0
    folders: int = 0
    links: int = 0
    size_bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Paths, and why they weren't restored."""


def restore(guest: Guest, entry: Entry, folder: Path, *, name: str | None = None) -> Landed:
    """Put a file, link or folder of the guest into a folder, which is made if it isn't there.

    `name` is what it is called there; its own name unless told. Raises `TargetFileExistsError`, `FileTargetError`,
    `GuestReadError`, `ApplianceError`; nothing is left of it then.
    """
    to = folder / (name or os.fsdecode(entry.name))
    if os.path.lexists(to):
        raise TargetFileExistsError(
            str(to), why="it exists already, and nothing is written over", remedy="Choose another --to."
        )
    landed = Landed(to)
    with _errors(to):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _errors(to):
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        place = partial / "restored"
        if entry.is_folder:
            _Tree(guest, entry, place, landed).land()
        elif stat.S_ISREG(entry.mode):
            with guest.content(entry) as content:
                written = _write(place, content, to)
            if written != entry.size_bytes:
                raise GuestReadError(shown(entry.path), why=f"it ended after {written} of {entry.size_bytes} bytes")
            landed.files, landed.size_bytes = 1, written
        elif stat.S_ISLNK(entry.mode):
            with _errors(to):
                place.symlink_to(os.fsdecode(guest.link_target(entry)))
            landed.links = 1
        else:
            raise GuestReadError(shown(entry.path), why=f"it is a {entry.kind}, which holds nothing to restore")
        with _errors(to):
            place.rename(to)
        _adorn(to, entry, to)  # only now: a folder that isn't writable couldn't be moved
    return landed


class _Tree:
    """A folder on its way out of a tar."""

    def __init__(self, guest: Guest, entry: Entry, place: Path, landed: Landed) -> None:
        self._guest, self._entry, self._place, self._landed = guest, entry, place, landed
        self._folders: list[tuple[Path, Entry]] = []
        self._links: list[tuple[Path, tarfile.TarInfo]] = []

    def land(self) -> None:
        try:
            with (
                self._guest.archive(self._entry) as stream,
                tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive,
            ):
                for member in archive:
                    self._take(archive, member)
        except tarfile.TarError as error:
            raise GuestReadError(shown(self._entry.path), why=f"what was read of it is torn: {error}") from error
        self._make_links()
        for place, entry in reversed(self._folders):  # last, since what is put into one changes its time
            _adorn(place, entry, self._landed.to)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = posixpath.join(self._entry.path, os.fsencode(member.name).removeprefix(b"./").rstrip(b"/"))
        place, entry = self._within(member.name), _entry_of(path, member)
        with _errors(self._landed.to):
            if member.isdir():
                place.mkdir(_PRIVATE, parents=True, exist_ok=True)
                if place != self._place:
                    self._folders.append((place, entry))
                self._landed.folders += 1
                return
            place.parent.mkdir(_PRIVATE, parents=True, exist_ok=True)
        content = archive.extractfile(member) if member.isreg() else None
        if content is not None:
            self._landed.size_bytes += _write(place, content, self._landed.to)
            _adorn(place, entry, self._landed.to)
            self._landed.files += 1
        elif member.issym() or member.islnk():
            self._links.append((place, member))
        else:
            self._landed.left_out.append((shown(path), "special files hold nothing to restore"))

    def _make_links(self) -> None:
        """Hard links first: while no symbolic link exists, none of them can lead out of the folder."""
        symbolic = {place: member for place, member in self._links if member.issym()}
        for place, member in self._links:
            if member.islnk():
                first = self._within(member.linkname)
                if first in symbolic:  # a link of two names
                    symbolic[place] = symbolic[first]
                    continue
                with _errors(self._landed.to), suppress(FileNotFoundError):  # of a special file, which was named
                    os.link(first, place, follow_symlinks=False)
                    self._landed.files += 1
        for place, member in symbolic.items():
            with _errors(self._landed.to):
                place.symlink_to(member.linkname)
            _adorn(place, _entry_of(b"", member), self._landed.to)
            self._landed.links += 1

    def _within(self, name: str) -> Path:
        """Where a member goes; raises `GuestReadError` for one that would leave the folder."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise GuestReadError(name, why="its path leads out of the folder")
        return self._place.joinpath(*parts)


def _entry_of(path: bytes, member: tarfile.TarInfo) -> Entry:
    return Entry(path, member.mode, member.uid, member.gid, member.size, whole_seconds(int(member.mtime)), 0)


def _write(place: Path, content: IO[bytes], to: Path) -> int:
    """Write a file anew; blocks of zeros become holes. Returns its size in bytes."""
    size = 0
    zeros = bytes(_COPY_BYTES)
    with (
        _errors(to),
        place.open("xb") as file,
    ):
        while piece := content.read(_COPY_BYTES):
            if piece == zeros:
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
            size += len(piece)
        file.truncate(size)
    return size


def _adorn(place: Path, entry: Entry, to: Path) -> None:
    """Give what is at a place the owner, mode and time that it had."""
    link = place.is_symlink()
    root = os.geteuid() == 0
    with _errors(to):
        if root:
            os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
        if not link:
            mode = stat.S_IMODE(entry.mode)
            place.chmod(mode if root else mode & ~_SET_IDS)  # another's rights aren't passed on
        at = entry.modified * 10**9 + entry.modified_ns
        os.utime(place, ns=(at, at), follow_symlinks=False)


@contextmanager
def _errors(to: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError, ValueError) as error:  # the last two of owners and names that nothing can have
        why = error.strerror if isinstance(error, OSError) else None
        raise FileTargetError(
            str(to), why=why or str(error), remedy="Nothing of it was left. Name another --to."
        ) from error
