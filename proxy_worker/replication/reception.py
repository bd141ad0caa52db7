"""A replica's disk while one session writes it: compared, written, and sealed.

| at once | what happens |
|---|---|
| two that ask for the same digests | both read |
| digests and a write of the same block | the written one counts, never one that was read before |
| two writes of a block | they are the same write, again after a cut |
| sealing or closing, and anything | it waits for all that has begun; what comes later is refused |

Nothing is written unless the control lets it, which is asked right before each block.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy_worker.contract.errors import CancelledError, TargetError
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.replication.blocks import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    UNKNOWN,
    ZERO,
    ZEROS,
    block_count,
    block_length,
    digest_of,
    root_bytes,
)
from proxy_worker.replication.errors import (
    ReplicaDiffersError,
    ReplicaDiskSizeError,
    ReplicaTooLargeError,
    ReplicaUnwritableError,
    SessionEndedError,
)
from proxy_worker.replication.folder import LARGEST_CONFIGURATION_BYTES
from proxy_worker.replication.gate import Gate
from proxy_worker.replication.home import Home, HomeDisk, OpenHomeDisk, Seen
from proxy_worker.replication.messages import Open, Opened, Seal, Sealed
from proxy_worker.replication.table import Table, Trust
from proxy_worker.transport.writing import NoRoomError

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
_LONGEST_NAME: Final = 255
_LARGEST_DISK_BYTES: Final = 62 << 40


@dataclass(slots=True)
class Written:
    """What a session has done so far, in bytes."""

    size_bytes: int = 0
    written_bytes: int = 0
    compared_bytes: int = 0
    looked_at_bytes: int = 0
    """As far as the source has asked what there is."""


class Reception:
    """One session on one disk, which the caller holds the lock of. Thread-safe."""

    def __init__(self, folder: Home, disk: HomeDisk, table: Table, control: Control) -> None:
        self.name = disk.name
        self.done = Written(disk.identity.size_bytes or 0)
        self.note = ""
        """Why the disk had to be compared, if it had."""
        self._folder = folder
        self._disk = disk
        self._table = table
        self._control = control
        self._lock = threading.Lock()
        self._gate = Gate()
        self._open: OpenHomeDisk | None = None
        self._opened: Opened | None = None
        self._trust = Trust()
        self._sealed: Sealed | None = None
        self._root = b""
        self._doubtful = False
        """Whether the table may be wrong, so that nothing is noted."""

    def open(self, asked: Open) -> Opened:
        """Make the disk ready for its source.

        Raises `ReplicaTooLargeError` before anything is written, `ReplicaDiskSizeError`, and what opening raises.
        """
        with self._gate.inside(self._disk.name), self._lock:
            if self._opened is None:
                self._opened = self._begin(asked)
            return self._opened

    def haves(self, first: int, count: int) -> bytes:
        """The digests of blocks, reading those that nobody knows. Raises SourceError, `CancelledError`."""
        with self._gate.inside(self._disk.name):
            disk = self._require_open()
            if first < 0 or count <= 0 or first + count > block_count(disk.size_bytes):
                raise ReplicaDiskSizeError(
                    f"blocks {first} to {first + count} of {self._disk.name}", why="the disk has no such blocks"
                )
            digests = self._table.read(first, count)
            places = range(0, len(digests), DIGEST_BYTES)
            unknown = [first + at // DIGEST_BYTES for at in places if digests[at : at + DIGEST_BYTES] == UNKNOWN]
            if unknown:
                self._compare(disk, unknown)
                digests = self._table.read(first, count)
            end = min((first + count) * BLOCK_BYTES, disk.size_bytes)
            with self._lock:
                self.done.looked_at_bytes = max(self.done.looked_at_bytes, end)
            return digests

    def write(self, index: int, digest: bytes, data: memoryview) -> None:
        """Write a block that has this digest, or zeros. Raises TargetError, `CancelledError`."""
        with self._gate.inside(self._disk.name):
            disk = self._require_open()
            length = block_length(disk.size_bytes, index)
            self._await_leave()
            try:
                if digest == ZERO:
                    disk.sink.zero(index * BLOCK_BYTES, length)
                else:
                    disk.sink.write_from(index * BLOCK_BYTES, data)
            except NoRoomError as error:
                self._doubtful = True
                raise ReplicaTooLargeError(
                    f"{self._disk.name} is only partly written",
                    why="no space is left on its datastore",
                    remedy="Free some: the next run goes on.",
                ) from error
            except BaseException:
                self._doubtful = True
                raise
            self._table.set(index, digest)
            with self._lock:
                self.done.written_bytes += length

    def length_of(self, index: int) -> int | None:
        """How long a block is, None where the disk has no such block."""
        disk = self._require_open()
        return block_length(disk.size_bytes, index) if 0 <= index < block_count(disk.size_bytes) else None

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of the VM's configuration for its next restore point. Raises `ReplicaUnwritableError`."""
        with self._gate.inside(self._disk.name):
            if "/" in name or name.startswith(".") or not name.isprintable() or len(name) > _LONGEST_NAME:
                raise ReplicaDiskSizeError(f"file {name[:64]!r}", why="no configuration has a file of such a name")
            if len(content) > LARGEST_CONFIGURATION_BYTES:
                raise ReplicaDiskSizeError(
                    f"file {name}", why=f"it has more than {LARGEST_CONFIGURATION_BYTES} bytes"
                )
            self._folder.keep_file(name, content)

    def seal(self, asked: Seal) -> Sealed:
        """Make the disk durable, if it is what its source has. Raises `ReplicaDiffersError`, TargetError."""
        with self._lock:
            if self._sealed is not None and asked.root == self._root:
                return self._sealed
        disk = self._require_open()
        self._gate.shut()
        with self._lock:
            if self._sealed is None:
                self._await_leave()
                root = root_bytes(self._table.root())
                if root != asked.root:
                    self._doubtful = True
                    raise ReplicaDiffersError(
                        f"{self._disk.name} isn't equal to its source",
                        why=f"the digests of both ends don't agree: {root.hex()} and {asked.root.hex()}",
                        remedy="The next try compares all of it.",
                    )
                disk.sink.flush()
                self._trust = Trust(basis=asked.run, why="")
                self._root = root
                self._sealed = Sealed(written_bytes=self.done.written_bytes)
            return self._sealed

    @property
    def sealed_root(self) -> str | None:
        """The root of the whole disk, once it is sealed."""
        return self._root.hex() if self._sealed is not None else None

    def close(self) -> None:
        """Write nothing more, and note what is known of the disk, unless that is in doubt."""
        self._gate.shut()
        with self._lock:
            disk, self._open = self._open, None
            if disk is None:
                return
            try:
                with disk:
                    disk.sink.flush()
                    looks = disk.looks_after(self._trust.basis if self._sealed is not None else None)
                if looks is not None and not self._doubtful:
                    # Half of a run is in it: changes since the one before don't name what that wrote.
                    halfway = self._sealed is None and self.done.written_bytes > 0
                    self._table.close(looks, basis=None if halfway else self._trust.basis)
            except (TargetError, OSError) as error:
                log.warning("%s: its next run compares it, since nothing could be noted: %s", self.name, error)
            finally:
                self._table.abandon()

    def _begin(self, asked: Open) -> Opened:
        seen = self._disk.look()
        self._require_fits(asked, seen)
        marker = self._folder.require_standby()
        if marker.run is not None:
            self._folder.note(msgspec.structs.replace(marker, run=None))
        if seen is None:
            self._disk.make(asked.size_bytes)
        elif seen.size_bytes < asked.size_bytes:
            self._disk.grow(asked.size_bytes)
        disk = self._disk.open()
        try:
            self._trust = self._table.open(asked.size_bytes, seen.looks if seen is not None else None)
        except OSError as error:
            disk.close()
            raise ReplicaUnwritableError(
                f"the digests of {self.name} can't be kept",
                why=str(error),
                remedy="Make room in the state_dir of its proxy.",
            ) from error
        self._open = disk
        self.done.size_bytes = asked.size_bytes
        known = asked.parent is not None and self._trust.basis == asked.parent
        if known:
            return Opened(self._table.key, root_bytes(self._table.root()))
        self.note = self._trust.why if seen is not None and not seen.blank else ""
        return Opened(self._table.key, None, self._trust.why or "the replica isn't of the run that they are since")

    def _require_fits(self, asked: Open, seen: Seen | None) -> None:
        if not 0 <= asked.size_bytes <= _LARGEST_DISK_BYTES:
            raise ReplicaDiskSizeError(
                self._disk.name, why=f"no disk of a VM has {asked.size_bytes} bytes: 62 TiB at most"
            )
        if seen is not None and seen.size_bytes > asked.size_bytes:
            raise ReplicaDiskSizeError(
                self._disk.name,
                why=f"it has {seen.size_bytes} bytes, and its source only {asked.size_bytes}",
                remedy="Begin a new replica: a disk isn't made smaller.",
            )
        allocated = seen.allocated_bytes if seen is not None else 0
        self._folder.require_room(self._disk.name, asked.needed_bytes - allocated)

    def _compare(self, disk: OpenHomeDisk, unknown: list[int]) -> None:
        """Learn the digests of blocks by reading them; holes need no reading."""
        buffer = memoryview(bytearray(BLOCK_BYTES))
        for index in unknown:
            if self._control.verdict() is Verdict.STOP:
                raise self._stopped()
            offset, length = index * BLOCK_BYTES, block_length(disk.size_bytes, index)
            view = buffer[:length]
            if next(iter(disk.source.allocated(offset, length)), None) is None:
                self._table.learn(index, ZERO)
                continue
            disk.source.read_into(offset, view)
            with self._lock:
                self.done.compared_bytes += length
            self._table.learn(index, digest_of(self._table.key, view) if view.tobytes() != ZEROS[:length] else ZERO)

    def _require_open(self) -> OpenHomeDisk:
        if self._open is None:
            raise SessionEndedError(f"{self._disk.name} isn't open", why="its session hasn't begun, or has ended")
        return self._open

    def _await_leave(self) -> None:
        """Wait until the control lets it write: a machine that was suspended may wake up here without its lease."""
        while (verdict := self._control.verdict()) is not Verdict.RUN:
            if verdict is Verdict.STOP:
                raise self._stopped()
            time.sleep(POLL_S)

    def _stopped(self) -> CancelledError:
        return CancelledError(
            f"{self._disk.name} is written no more", why="its run was cancelled, or its proxy stops"
        )
