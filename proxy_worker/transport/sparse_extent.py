"""Sparse extents: their header, the descriptor within, and whether the file is whole.

Sources: VMware's "Virtual Disk Format 5.0" (magic KDMV: hosted sparse and stream-optimised) and the layout of
ESX's COW disks (magic COWD). The grains themselves are read by qemu-nbd, which takes what lies behind the end
of a file for zeros; so that a truncated file isn't a disk of zeros, its tables are checked here before.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy_worker.transport.datastore import OpenFile
from proxy_worker.transport.vmdk import DESCRIPTOR_LIMIT_BYTES, SECTOR_BYTES, VmdkDamagedError, VmdkUnsupportedError

HOSTED_MAGIC: Final = b"KDMV"
ESX_MAGIC: Final = b"COWD"
_HOSTED = struct.Struct("<4sIIQQQQIQQQB4sH")
_ESX = struct.Struct("<4sIIIIII")
_ESX_ENTRIES_PER_TABLE: Final = 4096
_AT_END: Final = (1 << 64) - 1
_COMPRESSED: Final = 1 << 16
_LARGEST_DIRECTORY: Final = 1 << 24  # entries: 16 Mi tables of 512 grains of 64 KiB are 512 TiB
_TABLES_PER_READ: Final = 1 << 20
_MARKER: Final = struct.Struct("<QI")  # before a compressed grain: where it belongs, and its length


@dataclass(frozen=True)
class SparseExtent:
    """What the header of a sparse extent says. Sizes in sectors of 512 bytes."""

    capacity_sectors: int
    grain_sectors: int
    entries_per_table: int
    directory_sector: int
    directory_entries: int
    compressed: bool
    descriptor_sector: int = 0
    descriptor_sectors: int = 0


def read_header(file: OpenFile) -> SparseExtent:
    """The header of a sparse extent. Raises VmdkDamagedError or VmdkUnsupportedError."""
    beginning = file.read_at(0, SECTOR_BYTES)
    if len(beginning) < SECTOR_BYTES:
        raise _truncated(file, f"its header needs 512 bytes, it has {file.size_bytes}")
    magic = beginning[:4]
    if magic == ESX_MAGIC:
        return _read_esx_header(file, beginning)
    if magic != HOSTED_MAGIC:
        raise VmdkDamagedError(f"{file.path} isn't a sparse extent", why=f"it begins with {magic!r}")
    extent = _read_hosted_header(file, beginning)
    if extent.directory_sector != _AT_END:
        return extent
    # Stream-optimised: written in one pass, so that the directory's place is only known in the footer.
    footer = file.read_at(file.size_bytes - 2 * SECTOR_BYTES, SECTOR_BYTES)
    if footer[:4] != HOSTED_MAGIC:
        raise _truncated(file, "the footer is missing")
    extent = _read_hosted_header(file, footer)
    if extent.directory_sector == _AT_END:
        raise VmdkDamagedError(
            f"{file.path} can't be read", why="neither header nor footer say where its directory is"
        )
    return extent


def embedded_descriptor(file: OpenFile, extent: SparseExtent) -> bytes:
    """The descriptor that a monolithic extent carries. Raises VmdkDamagedError."""
    length = extent.descriptor_sectors * SECTOR_BYTES
    if extent.descriptor_sector == 0 or length == 0:
        raise VmdkDamagedError(
            f"{file.path} has no descriptor of its own",
            why="it is a part of a disk",
            remedy="Name the disk's descriptor, which lists its parts.",
        )
    if length > DESCRIPTOR_LIMIT_BYTES:
        raise VmdkDamagedError(f"{file.path} can't be read", why=f"its descriptor claims {length} bytes")
    data = file.read_at(extent.descriptor_sector * SECTOR_BYTES, length)
    if len(data) < length:
        raise _truncated(file, "its descriptor is cut off")
    return data.partition(b"\0")[0]


def require_whole(file: OpenFile, extent: SparseExtent) -> None:
    """Raise VmdkDamagedError unless every grain that the tables name lies within the file."""
    last = max((max(entries, default=0) for entries in _tables(file, extent)), default=0)
    if last <= 1:  # 0 and 1 mark grains that aren't stored
        return
    end = last * SECTOR_BYTES + extent.grain_sectors * SECTOR_BYTES
    if extent.compressed:
        marker = file.read_at(last * SECTOR_BYTES, _MARKER.size).ljust(_MARKER.size, b"\0")
        end = last * SECTOR_BYTES + _MARKER.size + _MARKER.unpack(marker)[1]
    if end > file.size_bytes:
        raise _truncated(file, f"it has data up to {end}, but ends at {file.size_bytes}")


def _tables(file: OpenFile, extent: SparseExtent) -> Iterator[array[int]]:
    """The grain tables; those which lie next to each other are read at once."""
    table_bytes = extent.entries_per_table * 4
    directory = _entries(file, extent.directory_sector, extent.directory_entries * 4)
    start: int | None = None
    length = 0
    for sector in directory:
        if sector <= 1:  # no table here; 1 marks zeros
            continue
        offset = sector * SECTOR_BYTES
        if start is not None and offset == start + length and length < _TABLES_PER_READ:
            length += table_bytes
            continue
        if start is not None:
            yield _entries(file, start // SECTOR_BYTES, length)
        start, length = offset, table_bytes
    if start is not None:
        yield _entries(file, start // SECTOR_BYTES, length)


def _entries(file: OpenFile, sector: int, length: int) -> array[int]:
    data = file.read_at(sector * SECTOR_BYTES, length) if sector * SECTOR_BYTES < file.size_bytes else b""
    if len(data) < length:
        raise _truncated(
            file, f"its tables reach to {sector * SECTOR_BYTES + length}, but it ends at {file.size_bytes}"
        )
    entries = array("I", data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def _read_hosted_header(file: OpenFile, data: bytes) -> SparseExtent:
    fields = _HOSTED.unpack_from(data)
    (
        _,
        version,
        flags,
        capacity,
        grain,
        descriptor,
        descriptor_length,
        per_table,
        _,
        directory,
        _,
        _,
        _,
        method,
    ) = fields
    if version not in {1, 2, 3}:
        raise VmdkUnsupportedError(f"{file.path}: can't read a sparse extent of version {version}")
    if flags & _COMPRESSED and method != 1:
        raise VmdkUnsupportedError(f"{file.path}: can't read grains compressed by method {method}")
    if capacity == 0 or grain == 0 or grain > 1 << 16 or not 0 < per_table <= 1 << 16:
        raise VmdkDamagedError(f"{file.path} can't be read", why="its header makes no sense")
    return SparseExtent(
        capacity_sectors=capacity,
        grain_sectors=grain,
        entries_per_table=per_table,
        directory_sector=directory,
        directory_entries=_directory_entries(file, capacity, grain * per_table),
        compressed=bool(flags & _COMPRESSED),
        descriptor_sector=descriptor,
        descriptor_sectors=descriptor_length,
    )


def _read_esx_header(file: OpenFile, data: bytes) -> SparseExtent:
    _, version, _, capacity, grain, directory, entries = _ESX.unpack_from(data)
    if version != 1:
        raise VmdkUnsupportedError(f"{file.path}: can't read a sparse extent of version {version}")
    if capacity == 0 or grain == 0 or grain > 1 << 16:
        raise VmdkDamagedError(f"{file.path} can't be read", why="its header makes no sense")
    needed = _directory_entries(file, capacity, grain * _ESX_ENTRIES_PER_TABLE)
    if entries < needed:
        raise VmdkDamagedError(f"{file.path} can't be read", why=f"its directory has {entries} entries of {needed}")
    return SparseExtent(
        capacity_sectors=capacity,
        grain_sectors=grain,
        entries_per_table=_ESX_ENTRIES_PER_TABLE,
        directory_sector=directory,
        directory_entries=needed,
        compressed=False,
    )


def _directory_entries(file: OpenFile, capacity: int, sectors_per_table: int) -> int:
    needed = -(-capacity // sectors_per_table)
    if needed > _LARGEST_DIRECTORY:
        raise VmdkDamagedError(f"{file.path} can't be read", why=f"it claims {capacity} sectors")
    return needed


def _truncated(file: OpenFile, why: str) -> VmdkDamagedError:
    return VmdkDamagedError(f"{file.path} is truncated", why=why, remedy="Restore the file, or copy it again.")
