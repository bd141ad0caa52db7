"""VMDK descriptors: what a virtual disk consists of.

Source: VMware's "Virtual Disk Format 5.0". A descriptor is a text of keys, extent lines and a disk data base;
it stands by itself, or within a sparse extent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy_worker.contract.errors import SourceError
from proxy_worker.transport.dictionary import decode, is_blank, parse_line

SECTOR_BYTES: Final = 512
NO_PARENT: Final = 0xFFFFFFFF
DESCRIPTOR_MARK: Final = b"# disk descriptorfile"
DESCRIPTOR_LIMIT_BYTES: Final = 1 << 20
_MOST_SECTORS: Final = 1 << 46  # 32 PiB: beyond any product's limit, below where offsets could overflow
_EXTENT = re.compile(
    r"(RW|RDONLY|NOACCESS)[ \t]+(\d{1,18})[ \t]+([A-Za-z0-9]+)"
    r'(?:[ \t]+"([^"]*)"(?:[ \t]+(\d{1,18})(?:[ \t].*)?)?)?',
    re.IGNORECASE,
)


class VmdkError(SourceError):
    """A virtual disk's files don't make up a disk that can be read."""

    retryable = False


class VmdkDamagedError(VmdkError):
    """A descriptor or extent is truncated or isn't what it should be."""


class VmdkUnsupportedError(VmdkError):
    """A VMDK of a kind that direct storage can't read."""


class ExtentMissingError(VmdkError):
    """A file that a descriptor names as an extent isn't there."""


class ParentMissingError(VmdkError):
    """A delta's parent isn't there."""


class ParentChangedError(VmdkError):
    """A delta's parent has been written to since the delta was made: together they are no valid disk."""


class DiskCycleError(VmdkError):
    """A delta is, by way of its parents, its own parent."""


class ExtentKind(StrEnum):
    """How an extent stores its part of the disk."""

    FLAT = "FLAT"
    VMFS = "VMFS"
    ZERO = "ZERO"
    SPARSE = "SPARSE"
    VMFSSPARSE = "VMFSSPARSE"

    @property
    def is_flat(self) -> bool:
        """Whether its file holds the disk's bytes as they are."""
        return self in {ExtentKind.FLAT, ExtentKind.VMFS}


@dataclass(frozen=True)
class DiskExtent:
    """A line of a descriptor: the next `sectors` of the disk and where they are."""

    sectors: int
    kind: ExtentKind
    file_name: str | None = None
    offset_sectors: int = 0
    """Where in the file the extent begins; flat extents only."""

    @property
    def size_bytes(self) -> int:
        """How much of the disk it holds."""
        return self.sectors * SECTOR_BYTES


@dataclass(frozen=True)
class Descriptor:
    """What a VMDK descriptor says."""

    create_type: str
    cid: int
    parent_cid: int
    extents: tuple[DiskExtent, ...]
    parent_hint: str | None = None

    @property
    def has_parent(self) -> bool:
        """Whether it is a delta."""
        return self.parent_cid != NO_PARENT

    @property
    def size_bytes(self) -> int:
        """The disk's size."""
        return sum(extent.size_bytes for extent in self.extents)


def is_descriptor(beginning: bytes) -> bool:
    """Whether a file that begins so is a descriptor."""
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(DESCRIPTOR_MARK)


def parse_descriptor(data: bytes, name: str) -> Descriptor:
    """Read the descriptor in file `name`. Raises VmdkDamagedError or VmdkUnsupportedError."""
    if not is_descriptor(data):
        raise VmdkDamagedError(
            f"{name} isn't a VMDK descriptor",
            why="it is empty" if not data.strip() else "it doesn't begin with '# Disk DescriptorFile'",
            remedy="Restore the descriptor; a raw image must not be called .vmdk.",
        )
    try:
        text = decode(data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0"))  # some tools fill the last sector
    except ValueError as error:
        raise _damaged(name, str(error)) from None
    values: dict[str, str] = {}
    extents: list[DiskExtent] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if is_blank(line):
            continue
        extent = _EXTENT.fullmatch(line.strip())
        if extent is not None:
            extents.append(_extent(extent, f"{name}, line {number}"))
            continue
        pair = parse_line(line)
        if pair is None:
            raise _damaged(name, f"line {number} is neither a key nor an extent: {line.strip()[:80]!r}")
        values.setdefault(*pair)
    return _assemble(name, values, tuple(extents))


def _assemble(name: str, values: dict[str, str], extents: tuple[DiskExtent, ...]) -> Descriptor:
    """Check that a descriptor is whole."""
    create_type = values.get("createtype")
    if create_type is None:
        raise _damaged(name, "createType is missing, so it is truncated")
    if not extents:
        raise _damaged(name, "it names no extents, so it is truncated")
    if create_type.lower().startswith("twogb") and not any(key.startswith("ddb.") for key in values):
        # A cut between two extent lines would make a smaller disk; the data base that follows them proves
        # that none is missing.
        raise _damaged(name, "the disk data base after the extents is missing, so it is truncated")
    descriptor = Descriptor(
        create_type=create_type,
        cid=_content_id(name, values, "CID", required=True),
        parent_cid=_content_id(name, values, "parentCID", required=False),
        extents=extents,
        parent_hint=values.get("parentfilenamehint") or None,
    )
    if descriptor.has_parent and descriptor.parent_hint is None:
        raise _damaged(name, "it has a parent but doesn't say where")
    if descriptor.size_bytes > _MOST_SECTORS * SECTOR_BYTES:
        raise _damaged(name, f"it claims {descriptor.size_bytes} bytes")
    return descriptor


def _extent(line: re.Match[str], place: str) -> DiskExtent:
    """The extent that a line describes."""
    access, sectors, kind_name, file_name, offset = line.groups()
    if access.upper() == "NOACCESS":
        raise VmdkUnsupportedError(f"{place}: the extent may not be read", why="its access is NOACCESS")
    try:
        kind = ExtentKind(kind_name.upper())
    except ValueError:
        raise VmdkUnsupportedError(
            f"{place}: can't read an extent of kind {kind_name}",
            why="direct storage reads " + ", ".join(ExtentKind),
            remedy="Configure network mode for its datastore, which reads every kind.",
        ) from None
    if kind is not ExtentKind.ZERO and not file_name:
        raise _damaged(place, "the extent names no file")
    if not 0 < int(sectors) <= _MOST_SECTORS:
        raise _damaged(place, f"an extent of {sectors} sectors")
    if int(offset or 0) > _MOST_SECTORS:
        raise _damaged(place, f"an extent at sector {offset} of its file")
    return DiskExtent(
        sectors=int(sectors),
        kind=kind,
        file_name=None if kind is ExtentKind.ZERO else file_name,
        offset_sectors=int(offset or 0) if kind.is_flat else 0,
    )


def _content_id(name: str, values: dict[str, str], key: str, *, required: bool) -> int:
    """A 32-bit content id, written in hexadecimal."""
    text = values.get(key.lower())
    if text is None and not required:
        return NO_PARENT
    if text is None:
        raise _damaged(name, f"{key} is missing, so it is truncated")
    if re.fullmatch(r"(0x)?[0-9A-Fa-f]{1,8}", text) is None:
        raise _damaged(name, f"{key} {text[:20]!r} isn't a content id")
    return int(text, 16)


def _damaged(name: str, why: str) -> VmdkDamagedError:
    return VmdkDamagedError(f"{name} can't be read as a VMDK descriptor", why=why)
