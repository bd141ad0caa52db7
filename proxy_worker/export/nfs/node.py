"""A file of a share as requests name it, and what they want it to be."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from proxy_worker.export.nfs.protocol import LONGEST_NAME, Status
from proxy_worker.export.nfs.share import Share
from proxy_worker.export.nfs.xdr import Reading


class Refused(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.name)


@dataclass(frozen=True, slots=True)
class Node:
    share: Share
    path: Path

    @property
    def file_system(self) -> int:
        return int.from_bytes(self.share.token[:8], "big")

    def look(self) -> os.stat_result:
        found = self.path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise Refused(Status.ACCES)
        return found

    def try_to_look(self) -> os.stat_result | None:
        try:
            return self.look()
        except (OSError, Refused):
            return None

    def handle(self, found: os.stat_result) -> bytes:
        return self.share.token + found.st_ino.to_bytes(8, "big")

    def child(self, name: str) -> Node:
        if name == ".":
            return self
        if name == "..":
            return self if self.path == self.share.root else Node(self.share, self.path.parent)
        return Node(self.share, self.path / name)

    def new_child(self, name: str) -> Node:
        """Of a name that is to be made, or to go."""
        if name in {".", ".."}:
            raise Refused(Status.INVAL)
        return self.child(name)


def handle_of(share: Share) -> bytes:
    """The handle of a share's root folder."""
    node = Node(share, share.root)
    return node.handle(node.look())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants of `sattr3`; owners are left out."""

    mode: int | None
    size: int | None
    times: tuple[int | None, int | None]
    """Of access and change, in nanoseconds."""


def read_wanted(arguments: Reading) -> Wanted:
    mode = arguments.u32() if arguments.u32() else None
    for _ in ("owner", "group"):
        if arguments.u32():
            arguments.u32()
    size = arguments.u64() if arguments.u32() else None
    return Wanted(mode, size, (_time(arguments), _time(arguments)))


def _time(arguments: Reading) -> int | None:
    how = arguments.u32()
    if how == 1:
        return time.time_ns()
    return arguments.u32() * 1_000_000_000 + arguments.u32() if how else None


def read_name(arguments: Reading) -> str:
    name = bytes(arguments.opaque(LONGEST_NAME))
    if not name or b"/" in name or b"\0" in name:
        raise Refused(Status.INVAL)
    return os.fsdecode(name)
