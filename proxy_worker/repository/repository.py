"""A repository: opening one, and the four things done with it: write, commit, list, read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import UNSET
from msgspec.structs import replace

from proxy_worker.contract.errors import ConfigurationError, DamageError
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository import passphrases
from proxy_worker.repository.access import Access
from proxy_worker.repository.chunks import ChunkReader
from proxy_worker.repository.commit import commit_run
from proxy_worker.repository.config import (
    BLOCKS_PER_SEGMENT,
    FORMAT,
    VERSION,
    Config,
    encode_config,
    name_of,
    require_none,
    version_of,
)
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.damage import load_damage
from proxy_worker.repository.errors import (
    CannotReadError,
    PointNotFoundError,
    RepositoryExistsError,
    RunEndedError,
)
from proxy_worker.repository.keyring import ZERO_ID, Secrets
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.points import (
    Point,
    Tombstone,
    encode_outcome,
    ended_runs,
    ended_sequence,
    is_ended,
    live_point_names,
    load_outcome,
    point_name,
    read_outcome,
)
from proxy_worker.repository.reader import PointReader
from proxy_worker.repository.registration import (
    condemned_packs,
    forget_writers,
    register_reader,
    register_writer,
)
from proxy_worker.repository.store import ObjectNotFoundError, Store
from proxy_worker.repository.store.locks import ObjectLock, begin_locking, require_locks
from proxy_worker.repository.unlocking import Unlocked, open_store, unlock
from proxy_worker.repository.writer import DiskAttempt, DiskWriter, WriterLimits

if TYPE_CHECKING:
    from proxy_worker.contract.subjects import DiskIdentity, VmIdentity

__all__ = ["ZERO_ID", "Repository", "new_run_id", "open_store"]

DEFAULT_BLOCK_SIZE: Final = 256 * 1024
_LEAST_BLOCK_SIZE: Final = 64 * 1024
_MOST_BLOCK_SIZE: Final = 4 * 1024 * 1024


class Original(Protocol):
    """What a copy has of the restore point that it is one of."""

    @property
    def sequence(self) -> int: ...

    @property
    def created_at(self) -> float: ...


class BlockSizeError(ConfigurationError):
    """A block size that repositories can't have."""


def new_run_id(now: float | None = None) -> str:
    """A fresh run name, e.g. `20261122T190102Z-1a2b3c4d`; sorts by time, unique by chance."""
    moment = time.gmtime(time.time() if now is None else now)
    return f"{time.strftime('%Y%m%dT%H%M%SZ', moment)}-{secrets.token_hex(4)}"


class Repository:
    """An open repository. All methods may be called from any thread."""

    def __init__(self, store: Store, unlocked: Unlocked, *, cache_dir: Path | None = None) -> None:
        """`cache_dir` keeps the index between processes; without it the index is rebuilt each time."""
        self.access = Access.of(store, unlocked.config, unlocked.keyring, cache_dir)
        self.chunks = ChunkReader(self.access)
        self.unlocked = unlocked.secrets
        """Everything, when a passphrase (or no encryption) opened it; None with a key file."""
        self.damaged_points: dict[str, DamageError] = {}
        """Points that couldn't be read when they were last listed."""
        self._store = store
        self._sealer = self.access.sealer

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.access.config.repository_id

    @property
    def block_size(self) -> int:
        """Bytes."""
        return self.access.block_size

    @property
    def can_read(self) -> bool:
        """Whether blocks can be read, not only added."""
        return self.access.keyring.can_read or not self.access.encrypted

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        passphrase: bytes | None,
        block_size: int = DEFAULT_BLOCK_SIZE,
        blocks_per_segment: int = BLOCKS_PER_SEGMENT,
        kdf_cost: passphrases.KdfCost | None = None,
        object_lock: ObjectLock | None = None,
        parity: Parity | None = None,
    ) -> Repository:
        """Make a repository in an empty store; without a passphrase it is not encrypted.

        Raises `RepositoryExistsError`, `BlockSizeError`, `ObjectLockRefusedError`, `StoreError`.
        """
        _require_block_size(block_size)
        require_none(store)
        unlocked = Secrets.generate()
        if object_lock is not None:
            begin_locking(store, object_lock)
        store.prepare()
        config = Config(
            format=FORMAT,
            version=VERSION,
            generation=1,
            repository_id=secrets.token_hex(16),
            created_at=int(time.time()),
            block_size=block_size,
            blocks_per_segment=blocks_per_segment,
            cipher="none" if passphrase is None else "aes-256-gcm",
            root_public_key=unlocked.root_public_key,
            data_public_keys=unlocked.data_public_keys,
            open_secrets=unlocked if passphrase is None else None,
            object_lock=object_lock or UNSET,
            parity=parity or UNSET,
        )
        config = replace(config, version=version_of(config))
        if passphrase is not None:
            key = passphrases.wrap(
                unlocked, passphrase, repository_id=config.repository_id, label="first", cost=kdf_cost
            )
            passphrases.add(store, key)
        if not store.put_if_absent(name_of(1), [encode_config(config, unlocked.root_key)]):
            raise RepositoryExistsError(f"repository {store.location}", why="another one was made here just now")
        return cls(store, Unlocked(config, unlocked.keyring(config.repository_id_bytes), unlocked))

    @classmethod
    def open(cls, store: Store, credential: Credential, *, cache_dir: Path | None = None) -> Repository:
        """Unlock and open one; raises what `unlock` raises."""
        return cls(store, unlock(store, credential), cache_dir=cache_dir)

    def points(self, vm_id: str | None = None) -> list[Point]:
        """Committed points that retention hasn't ended, by VM (as it was last called), oldest first.

        Those that can't be read are left out, and in `damaged_points`.
        """
        found: list[Point] = []
        self.damaged_points = {}
        for name in live_point_names(self._store, vm_id):
            try:
                outcome = read_outcome(self._store, self._sealer, name)
            except ObjectNotFoundError:
                continue
            except DamageError as error:
                self.damaged_points[name] = error
                continue
            if isinstance(outcome, Point):
                found.append(outcome)
        found.sort(key=lambda point: (point.sequence, point.created_at))
        names = {point.vm_id: point.vm_name for point in found}
        return sorted(found, key=lambda point: (names[point.vm_id], point.vm_id))

    def newest_point(self, vm_id: str) -> Point | None:
        """The newest of a VM."""
        points = self.points(vm_id)
        return points[-1] if points else None

    def newer_than(self, point: Point) -> str | None:
        """A point of the same VM that may be newer and can't be used, in words; None if `point` is the newest.

        Damaged ones may be of any age. An ended one is newer by its run's name or, since clocks go back, by its
        place among the others. Call it after `points`.
        """
        damaged = next(iter(self.damaged_points), None)
        if damaged is not None:
            return f"{damaged} is damaged"
        for run in sorted(ended_runs(self._store, point.vm_id), reverse=True):
            if run > point.run or ended_sequence(self._store, self._sealer, point.vm_id, run) > point.sequence:
                return f"restore point {run} was removed"
        return None

    def point(self, vm_id: str, run: str) -> Point:
        """One point; raises `PointNotFoundError`."""
        outcome = load_outcome(self._store, self._sealer, vm_id, run)
        if not isinstance(outcome, Point) or is_ended(self._store, vm_id, run):
            raise _no_point(self._store, vm_id, run)
        return outcome

    def begin_disk(
        self,
        *,
        vm_id: str,
        run: str,
        disk_key: str,
        fence: int,
        level: CompressionLevel = CompressionLevel.OPTIMAL,
        limits: WriterLimits | None = None,
    ) -> DiskWriter:
        """Register a writer, read the condemned lists, then the index. Raises `RunEndedError` if the run has
        ended, and `ObjectLockRefusedError` where objects should be locked and can't be."""
        if self.access.config.object_lock:
            require_locks(self._store)
        register_writer(self._store, self._sealer, vm_id=vm_id, run=run, disk_key=disk_key, fence=fence)
        if self._store.exists(point_name(vm_id, run)):
            forget_writers(self._store, vm_id=vm_id, run=run)
            raise RunEndedError(f"run {run} of VM {vm_id}", why="it has ended", remedy="Start a new run.")
        condemned = condemned_packs(self._store, self._sealer)
        damage = load_damage(self._store, self._sealer)
        self.access.index.refresh()
        return DiskWriter(
            self.access,
            self.chunks,
            DiskAttempt(vm_id, run, disk_key, fence),
            level=level,
            condemned=condemned | damage.packs,
            lost=damage.lost(self.access.index),
            limits=limits or WriterLimits(),
        )

    def commit(
        self,
        *,
        vm: VmIdentity,
        run: str,
        job: str,
        disks: Sequence[tuple[DiskIdentity, int, str]],
        started_at: float,
        original: Original | None = None,
    ) -> Point:
        """Make (disk, fence, sealed result) triples a restore point, all or nothing.

        The same commit twice gives the same point. A copy keeps the place in time of its `original`. Raises
        `RunEndedError`, `MissingBlockError`, `RepositoryDamageError`.
        """
        self.access.index.refresh()
        newest = None if original else self.newest_point(vm.vm_id)
        return commit_run(
            self.access,
            self.chunks,
            vm=vm,
            run=run,
            job=job,
            disks=disks,
            started_at=started_at,
            sequence=original.sequence if original else 1 + (newest.sequence if newest else 0),
            created_at=original.created_at if original else None,
        )

    def abandon(self, *, vm_id: str, run: str, reason: str) -> bool:
        """Put a tombstone in the place of the point; True if a point was there first, and is still honoured."""
        tombstone = Tombstone(vm_id=vm_id, run=run, reason=reason, created_at=time.time())
        created = self._store.put_if_absent(point_name(vm_id, run), [encode_outcome(self._sealer, tombstone)])
        forget_writers(self._store, vm_id=vm_id, run=run)
        outcome = None if created else load_outcome(self._store, self._sealer, vm_id, run)
        return isinstance(outcome, Point) and not is_ended(self._store, vm_id, run)

    def reader(self, point: Point, *, sealed: bool = False) -> PointReader:
        """Read a point's disks. Raises `CannotReadError` with a write key, `PointNotFoundError` if it has ended.

        `sealed`: only to carry blocks over as they are, beside maps and segments, which a write key may read.
        """
        if not self.can_read and not sealed:
            raise CannotReadError(
                f"restore points of {self._store.location}",
                why="a write key may add them but not read them",
                remedy="Use a passphrase or a read key.",
            )
        mark = register_reader(self._store, self._sealer, vm_id=point.vm_id, run=point.run)
        if is_ended(self._store, point.vm_id, point.run):
            # Whoever ended it may have looked for readers before the mark was there, and a collector may follow.
            if mark:
                self._store.delete(mark)
            raise _no_point(self._store, point.vm_id, point.run)
        self.access.index.refresh()
        return PointReader(self.access, self.chunks, point, mark=mark)

    def close(self) -> None:
        """Let go of the index. Idempotent."""
        self.access.index.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _no_point(store: Store, vm_id: str, run: str) -> PointNotFoundError:
    return PointNotFoundError(
        f"restore point {run} of VM {vm_id}",
        why=f"there is none in {store.location}",
        remedy="See `proxy-worker repository list`.",
    )


def _require_block_size(block_size: int) -> None:
    if block_size & (block_size - 1) or not _LEAST_BLOCK_SIZE <= block_size <= _MOST_BLOCK_SIZE:
        raise BlockSizeError(
            f"block size {block_size}", why="it is not a power of two from 64 KiB to 4 MiB", remedy="Use 256KiB."
        )
