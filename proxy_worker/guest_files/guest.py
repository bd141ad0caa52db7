"""The filesystems of a guest, one at a time: folders listed, files and folders read."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from proxy_worker.guest_files.appliance import Appliance, ApplianceCommandError
from proxy_worker.guest_files.errors import (
    GuestReadError,
    NoSuchFileError,
    NoSuchVolumeError,
    UnreadableVolumeError,
    WhichVolumeError,
)
from proxy_worker.guest_files.paths import checked, shown
from proxy_worker.guest_files.volumes import Volume, find_volumes, listed

_AT_ONCE: Final = 64
"""Commands in one go: what they print, about 500 bytes each, has to fit a pipe."""
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799
"""The years 1 and 9999 in Unix seconds."""
_WITHOUT_JOURNAL: Final = {"ext3": ("ro,noload",), "ext4": ("ro,noload",), "xfs": ("ro,norecovery",)}
"""How a filesystem is mounted whose journal can't be replayed."""
_HIBERNATION: Final = b"/hiberfil.sys"
_MARK: Final = b"hibr"
"""What it begins with, in any case, while there is something in it to wake up from; ntfs-3g looks for the same."""
_ASLEEP: Final = (
    "Windows was hibernated, or shut down for a fast start: what it had not written to its disk yet is missing"
)
KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder. Times are Unix seconds."""

    path: bytes
    mode: int
    """As in stat(2)."""
    uid: int
    gid: int
    size_bytes: int
    modified: int
    modified_ns: int
    """What is beyond the second."""

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return KINDS.get(stat.S_IFMT(self.mode), "unknown")

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def name(self) -> bytes:
        """The last part of its path; empty for the root folder."""
        return posixpath.basename(self.path)


class Guest:
    """The volumes of an appliance's disks. One thread at a time may use it."""

    def __init__(self, appliance: Appliance, disk_keys: Sequence[str]) -> None:
        self._appliance = appliance
        self.volumes = find_volumes(appliance, disk_keys)
        self.in_use: Volume | None = None
        """The volume that paths are in."""
        self._problems: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        """By the volumes' names: what is to be said of how they were read."""

    def volume(self, name: str) -> Volume:
        """Raises `NoSuchVolumeError`."""
        for volume in self.volumes:
            if volume.name == name:
                return volume
        raise NoSuchVolumeError(f"volume {name!r}", why=f"there are: {listed(self.volumes)}")

    def use(self, volume: Volume) -> None:
        """Let paths be those of this volume; raises `UnreadableVolumeError`."""
        if self.in_use == volume:
            return
        problem = volume.problem or self._problems.get(volume.name)
        if problem is not None:
            raise UnreadableVolumeError(f"volume {volume.name}", why=problem)
        self._appliance.run("umount-all")
        self.in_use = None
        ways = ["ro", *_WITHOUT_JOURNAL.get(volume.filesystem, ())]
        for options in ways:
            try:
                self._appliance.run("mount-options", options, volume.device, "/")
            except ApplianceCommandError as error:
                problem = problem or f"its {volume.filesystem} can't be mounted: {error.why}"
                continue
            if options != ways[0]:
                self.notes[volume.name] = "its journal can't be replayed: what changed last may be missing or torn"
            self.in_use = volume
            if volume.filesystem == "ntfs" and self._sleeps():
                self.notes[volume.name] = _ASLEEP
            return
        self._problems[volume.name] = problem or ""
        raise UnreadableVolumeError(f"volume {volume.name}", why=self._problems[volume.name])

    def _sleeps(self) -> bool:
        """Whether Windows was hibernated or shut down for a fast start, by the file that it then leaves."""
        try:
            return self._appliance.run("pread", _HIBERNATION, str(len(_MARK)), "0").lower() == _MARK
        except ApplianceCommandError as error:
            if error.absent:
                return False
            raise

    def locate(self, paths: Sequence[bytes]) -> list[Volume]:
        """For each path the one readable volume that has it.

        Raises `NoSuchFileError`, `WhichVolumeError`, `GuestPathError`, `UnreadableVolumeError` if there is none.
        """
        paths = [checked(path) for path in paths]
        found: dict[bytes, list[Volume]] = {path: [] for path in paths}
        passed_over = []
        for volume in self.volumes:
            try:
                self.use(volume)
            except UnreadableVolumeError as error:
                passed_over.append(f"{volume.name}: {error.why}")
                continue
            for path, volumes in found.items():
                if self._look(path) is not None:
                    volumes.append(volume)
        for path, volumes in found.items():
            if len(volumes) > 1:
                raise WhichVolumeError(
                    shown(path),
                    why=f"several volumes have it: {listed(volumes)}",
                    remedy="Choose one with --volume.",
                )
            if not volumes:
                why = "; ".join(["no volume that can be read has it", *passed_over])
                raise NoSuchFileError(shown(path), why=why, remedy="--list shows what is there.")
        return [found[path][0] for path in paths]

    def entry(self, path: bytes) -> Entry:
        """What is at a path of the volume that is in use; a link isn't followed. Raises `NoSuchFileError`."""
        entry = self._look(checked(path))
        if entry is None:
            where = self.in_use.name if self.in_use is not None else "none"
            raise NoSuchFileError(shown(path), why=f"volume {where} has no such file")
        return entry

    def entries(self, folder: bytes) -> list[Entry]:
        """What a folder holds, by name."""
        names = self._appliance.run("ls0", checked(folder), "-").split(b"\0")
        paths = [posixpath.join(checked(folder), name) for name in sorted(names) if name]
        found: list[Entry] = []
        for at in range(0, len(paths), _AT_ONCE):
            some = paths[at : at + _AT_ONCE]
            printed = self._appliance.run_all([("lstatns", path) for path in some])
            blocks = printed.split(b"st_dev:")[1:]
            found += [_entry(path, block) for path, block in zip(some, blocks, strict=True)]
        return found

    def link_target(self, entry: Entry) -> bytes:
        """Where a link leads."""
        return self._appliance.run("readlink", entry.path).removesuffix(b"\n")

    @contextmanager
    def content(self, entry: Entry) -> Iterator[IO[bytes]]:
        """The bytes of a file."""
        with self._appliance.stream("download", entry.path) as file:
            yield file

    @contextmanager
    def archive(self, entry: Entry) -> Iterator[IO[bytes]]:
        """A folder and all in it as an uncompressed tar, with owners as numbers."""
        with self._appliance.stream("tar-out", entry.path) as file:
            yield file

    def _look(self, path: bytes) -> Entry | None:
        try:
            return _entry(path, self._appliance.run("lstatns", path).split(b"st_dev:")[1])
        except ApplianceCommandError as error:
            if error.absent:
                return None
            raise


def whole_seconds(value: int) -> int:
    """A time that people and programs can bear: a guest's filesystem may say any, e.g. the year 30000."""
    return min(max(value, _FIRST_S), _LAST_S)


def _entry(path: bytes, block: bytes) -> Entry:
    """From the lines of guestfish's `lstatns` after the first word."""
    try:
        fields = dict(line.strip().split(b": ") for line in (b"st_dev:" + block).splitlines() if line.strip())
        mode, uid, gid, size, modified, nanoseconds = (
            int(fields[b"st_" + name]) for name in (b"mode", b"uid", b"gid", b"size", b"mtime_sec", b"mtime_nsec")
        )
    except (KeyError, ValueError) as error:
        raise GuestReadError(shown(path), why="the appliance describes it in an unknown way") from error
    return Entry(path, mode, uid, gid, size, whole_seconds(modified), nanoseconds)
