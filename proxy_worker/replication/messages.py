"""What a source and a target say to each other: small messages beside the blocks, which cross as frames."""

from __future__ import annotations

from typing import Final

import msgspec

from proxy_worker.replication.blocks import DIGEST_BYTES

OPEN: Final = "ReplicaOpen"
HAVES: Final = "ReplicaHaves"
WRITE: Final = "ReplicaWrite"
KEEP_FILE: Final = "ReplicaKeepFile"
SEAL: Final = "ReplicaSeal"
BYE: Final = "ReplicaBye"
BLOCKS_AT_ONCE: Final = 64
"""How many one call writes at most."""


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begins a session; asked again after a cut, it gets the same answer."""

    session: str
    size_bytes: int
    """Of the source's disk."""
    needed_bytes: int
    """What of it may hold something other than zeros."""
    parent: str | None
    """The run that the source knows the changes since."""


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The replica's disk is there, and as large as its source."""

    key: bytes
    """Of the digests."""
    root: bytes | None
    """Of the disk as it is, if it is known to be of the run `parent`; else all of it has to be compared."""
    why: str = ""
    """Why it isn't known."""


class Haves(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the digests of some blocks; what isn't known is read."""

    session: str
    first: int
    count: int


class Digests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One after the other."""

    digests: bytes


class BlockHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A block that follows, or one of zeros, which doesn't."""

    index: int
    digest: bytes
    codec: int
    stored_length: int

    @property
    def sound(self) -> bool:
        """Whether it is what such a head can be, as far as it shows by itself."""
        return self.index >= 0 and len(self.digest) == DIGEST_BYTES and self.stored_length >= 0


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Blocks to write; their data follows in frames, one after the other."""

    session: str
    blocks: tuple[BlockHead, ...]


class KeepFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the VM's configuration; its content follows in frames."""

    session: str
    name: str
    size_bytes: int


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All is sent: the disk is to be as its source, and durable."""

    session: str
    run: str
    root: bytes


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It is."""

    written_bytes: int


class Bye(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source has had the last answer."""

    session: str


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked for is done."""
