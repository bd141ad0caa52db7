"""An archive: records in msgpack, one after the other, compressed and then sealed while they are written."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from scheduler.server_backup.errors import ArchiveDamagedError, ArchiveVersionError
from scheduler.server_backup.sealing import SealedReader, SealingWriter

VERSION: Final = 1
_LENGTH: Final = struct.Struct(">I")
_LEVEL: Final = 6


class Manifest(msgspec.Struct, frozen=True, tag="manifest"):
    """The first record."""

    version: int
    made_at: float
    """Unix seconds."""
    host: str
    product: str
    """The version of proxyfleet that made it."""
    schema: str
    """The revision of the database's schema."""
    configuration: dict[str, Any]
    """scheduler.toml as it was in force; paths of what the archive holds begin with `archive:`."""


class File(msgspec.Struct, frozen=True, tag="file"):
    """A file of the server."""

    name: str
    """Below `state/`, `secrets/` or `files/`."""
    mode: int
    content: bytes


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """Some rows of a table."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class End(msgspec.Struct, frozen=True, tag="end"):
    """The last record."""

    records: int


Content = File | Rows
_Record = Manifest | File | Rows | End


def write_archive(path: Path, passphrase: bytes, manifest: Manifest, contents: Iterable[Content]) -> None:
    """Write an archive to `path`, which must not exist; nothing in clear reaches a disk."""
    with (
        path.open("xb") as file,
        io.BufferedWriter(SealingWriter(file, passphrase)) as sealing,
        zstandard.ZstdCompressor(level=_LEVEL).stream_writer(sealing, closefd=False) as compressed,
    ):
        path.chmod(0o600)
        count = 0
        _put(compressed, manifest)
        for count, record in enumerate(contents, 1):  # noqa: B007 - the count is wanted after the loop
            _put(compressed, record)
        _put(compressed, End(count))


class Archive:
    """An archive that is read: `manifest`, then `contents`, once. Close it, or use it in a `with`.

    Raises `RecoveryPassphraseError`, `ArchiveDamagedError`, `ArchiveVersionError`.
    """

    def __init__(self, path: Path, passphrase: bytes) -> None:
        self._name = f"backup of the server {path.name}"
        self._file = path.open("rb")
        try:
            sealed = SealedReader(self._file, passphrase, self._name)
            self._stream = zstandard.ZstdDecompressor().stream_reader(io.BufferedReader(sealed))
            first = self._get()
        except BaseException:
            self._file.close()
            raise
        if not isinstance(first, Manifest):
            raise self._damaged("it doesn't begin with a manifest")
        if first.version > VERSION:
            raise ArchiveVersionError(
                self._name, why=f"it was made by proxyfleet {first.product}", remedy="Install that version here."
            )
        self.manifest = first

    def contents(self) -> Iterator[Content]:
        """All that follows the manifest; raises at the end unless that is the archive's."""
        count = 0
        while not isinstance(record := self._get(), End):
            if isinstance(record, Manifest):
                raise self._damaged("it has two manifests")
            count += 1
            yield record
        if record.records != count:
            raise self._damaged(f"{record.records} records were written, {count} are there")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _get(self) -> _Record:
        try:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            return _DECODER.decode(self._read(length))
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise self._damaged(str(error)) from error

    def _read(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            more = self._stream.read(length - len(content))
            if not more:
                raise self._damaged("it is cut short")
            content += more
        return content

    def _damaged(self, why: str) -> ArchiveDamagedError:
        return ArchiveDamagedError(self._name, why=why, remedy="Restore an older one: see --point.")


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[_Record]] = msgspec.msgpack.Decoder(_Record)


def _put(stream: Any, record: _Record) -> None:
    encoded = _ENCODER.encode(record)
    stream.write(_LENGTH.pack(len(encoded)) + encoded)
