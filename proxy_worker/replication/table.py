"""The digests of a replica's disk, as its last session left it: what saves reading it, and sending it.

Two files in the proxy's state folder: the digests, one after the other, and a note that is there while nobody
writes, with what the disk's file looked like then, and a checksum of it all, keyed by this proxy. Without the note,
or where the disk's file looks otherwise, nothing is known of the disk, and what is asked for is read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3
import msgspec

from proxy_worker.contract.subjects import DiskAddress
from proxy_worker.program.durable import sync_folder
from proxy_worker.replication.blocks import DIGEST_BYTES, KEY_BYTES, UNKNOWN, block_count, root_of
from proxy_worker.replication.durable import put, remove

_FRESH: Final = "nothing is noted of what the replica holds"
_NOTE: Final = ".json"
_DIGESTS: Final = ".digests"
_DAMAGED: Final = "what was noted of the replica is damaged"


class Looks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was: whoever writes to it, or puts another in its place, changes that."""

    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, file: int) -> Looks:
        """Of an open file."""
        status = os.fstat(file)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    datastore: str
    path: str
    size_bytes: int
    looks: Looks
    basis: str | None
    """The run that the whole disk is known to be of."""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a table that was found says."""

    basis: str | None = None
    why: str = _FRESH
    """Why nothing is known, if so."""


class TableFolder:
    """Where a proxy keeps tables, and the key of its digests."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "replicas"

    def key(self) -> bytes:
        """The key of this proxy's digests, made at first use. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / "key"
        if not path.exists():
            made = self._folder / f".key.{secrets.token_hex(8)}"
            put(made, secrets.token_bytes(KEY_BYTES))
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(made, path)
            remove(made)
        return path.read_bytes()

    def table(self, address: DiskAddress) -> Table:
        """The table of a replica's disk. Raises OSError."""
        return Table(self._place(address), address, self.key())

    def session_file(self, address: DiskAddress) -> Path:
        """What the writers of a disk lock that lies in no folder of this machine."""
        return self._place(address).with_suffix(".session")

    def forget(self, datastore: str, folder: str) -> None:
        """Remove the tables of the disks in a folder. Raises OSError."""
        for path in self._folder.glob(f"*{_NOTE}"):
            with contextlib.suppress(msgspec.MsgspecError, FileNotFoundError):
                note = msgspec.json.decode(path.read_bytes(), type=_Note)
                if note.datastore == datastore and note.path.startswith(f"{folder}/"):
                    remove(path)
                    remove(path.with_suffix(_DIGESTS))

    def _place(self, address: DiskAddress) -> Path:
        return self._folder / blake3.blake3(f"{address.datastore}\0{address.path}".encode()).hexdigest(16)


class Table:
    """The digests of one disk, for as long as one session has it. Thread-safe between `open` and `close`."""

    def __init__(self, place: Path, address: DiskAddress, key: bytes) -> None:
        self.key = key
        self._digests_file = place.with_suffix(_DIGESTS)
        self._note_file = place.with_suffix(_NOTE)
        self._address = address
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._size_bytes = 0
        self._trust = Trust()

    def open(self, size_bytes: int, looks: Looks | None) -> Trust:
        """Begin a session on a disk that is now of this size, and looks so, or is new. Raises OSError.

        From here to `close` there is no note: a crash in between leaves nothing that could be wrong.
        """
        self._size_bytes = size_bytes
        self._trust = self._found(looks)
        remove(self._note_file)
        length = max(1, block_count(size_bytes)) * DIGEST_BYTES
        descriptor = os.open(self._digests_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._trust.why:
                os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, length)
            os.posix_fallocate(
                descriptor, 0, length
            )  # a full disk is an error here, and a signal when it is mapped
            self._map = mmap.mmap(descriptor, length)
        finally:
            os.close(descriptor)
        if self._trust.why:
            _forget_all(self._map)
        return self._trust

    def read(self, first: int, count: int) -> bytes:
        """The digests of some blocks, `UNKNOWN` among them."""
        with self._lock:
            return self._open_map[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES]

    def learn(self, index: int, digest: bytes) -> None:
        """What was read of a block that was unknown; one that was written meanwhile is known better."""
        with self._lock:
            at = index * DIGEST_BYTES
            if self._open_map[at : at + DIGEST_BYTES] == UNKNOWN:
                self._open_map[at : at + DIGEST_BYTES] = digest

    def set(self, index: int, digest: bytes) -> None:
        """What was written to a block."""
        with self._lock:
            self._open_map[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest

    def root(self) -> int:
        """The root of the disk, every block of which is known."""
        length = block_count(self._size_bytes) * DIGEST_BYTES
        with self._lock, memoryview(self._open_map) as whole, whole[:length] as digests:
            return root_of(digests)

    def close(self, looks: Looks, *, basis: str | None) -> None:
        """End the session on a disk that is durable, and looks so now. Raises OSError."""
        digests = self._open_map
        digests.flush()
        address = self._address
        note = _Note(address.datastore or "", address.path or "", self._size_bytes, looks, basis)
        checksum = self._checksum(note, digests)
        self.abandon()
        sync_folder(self._note_file.parent)
        put(self._note_file, msgspec.json.encode(msgspec.structs.replace(note, checksum=checksum)))

    def abandon(self) -> None:
        """End the session, and leave nothing known. May be called again."""
        if self._map is not None:
            self._map.close()
            self._map = None

    @property
    def _open_map(self) -> mmap.mmap:
        if self._map is None:
            raise ValueError("this table isn't open")
        return self._map

    def _found(self, looks: Looks | None) -> Trust:
        try:
            note = msgspec.json.decode(self._note_file.read_bytes(), type=_Note)
            digests = _mapped(self._digests_file, mmap.ACCESS_READ)
        except FileNotFoundError:
            return Trust()
        except (msgspec.MsgspecError, ValueError):  # no JSON, or an empty file of digests
            return Trust(why=_DAMAGED)
        with digests:
            told, note = note.checksum, msgspec.structs.replace(note, checksum="")
            whole = len(digests) == max(1, block_count(note.size_bytes)) * DIGEST_BYTES
            if not whole or told != self._checksum(note, digests):
                return Trust(why=_DAMAGED)
        if note.size_bytes != self._size_bytes:
            return Trust(why="the disk has another size than in its last run")
        if note.looks != looks:
            return Trust(why="the replica's disk isn't as its last run left it")
        return Trust(note.basis, "")

    def _checksum(self, note: _Note, digests: mmap.mmap) -> str:
        hashed = blake3.blake3(msgspec.json.encode(note), key=self.key)
        hashed.update(digests)
        return hashed.hexdigest()


def _mapped(path: Path, access: int) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def _forget_all(digests: mmap.mmap) -> None:
    page = UNKNOWN * ((1 << 20) // DIGEST_BYTES)
    for at in range(0, len(digests), len(page)):
        digests[at : at + len(page)] = page[: len(digests) - at]
