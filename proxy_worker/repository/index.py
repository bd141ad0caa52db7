"""The local index: every fragment of a repository, merged into a few sorted runs beside the process that uses it.

Refreshing lists `index/`, reads the fragments that are new, and drops what those said that are gone. Runs of like
size are merged, so that a look-up asks few of them. Several processes may share a cache folder: one refreshes at a
time, and replaced runs stay readable to whoever has them mapped.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError, StoreError
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.fragments import KIND_FIELD, PLACE, RECORD, decode_fragment, fragment_name
from proxy_worker.repository.index_run import (
    FRAGMENT_ID_BYTES,
    IndexRun,
    Location,
    RunSource,
    fragment_source,
    write_run,
)
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store

_BATCH_RECORDS: Final = 100_000
_TIER_RUNS: Final = 4
"""So many runs of one tier become one of the next."""
_FIRST_TIER_RECORDS: Final = 1 << 16
_MANIFEST: Final = "manifest.json"
_FRAGMENT_NAME: Final = re.compile(r"index/[0-9a-f]{32}")


class IndexCacheError(StoreError):
    """The folder that the local index is kept in can't be used."""


class _Manifest(msgspec.Struct, frozen=True):
    generation: int
    runs: tuple[str, ...] = ()


class Index:
    """Where everything is. Look-ups are thread-safe and don't block on a refresh."""

    def __init__(
        self, store: Store, sealer: MetadataSealer, *, cached_as: str, generation: int, cache_dir: Path | None
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._generation = generation
        self._drop: weakref.finalize[[], Index] | None = None
        if cache_dir is None:
            scratch = ScratchFolder("index")
            self._folder = scratch.path
            self._drop = weakref.finalize(self, scratch.remove)
        else:
            self._folder = cache_dir / cached_as
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise _cache_error(cache_dir, error) from error
        self._lock = threading.Lock()
        self.runs: tuple[IndexRun, ...] = ()
        self.damaged: dict[str, DamageError] = {}
        """Fragments that didn't open at the last refresh."""

    def refresh(self, *, thoroughly: bool = False) -> None:
        """Take in what has been published, and forget what has been withdrawn, up to now.

        `thoroughly`: what the cache holds is read whole, and counts only if it is as it was written.
        """
        try:
            with self._lock, self._locked_folder():
                self._refresh(thoroughly)
        except OSError as error:
            raise _cache_error(self._folder, error) from error

    def find(self, block_id: bytes) -> list[Location]:
        """Every copy of a block, segment or map."""
        return [location for run in self.runs for _, location in run.find(block_id)]

    def has(self, block_id: bytes, kind: int) -> bool:
        """Whether there is a copy of that kind; cheaper than `find`."""
        for run in self.runs:
            for record in run.copies(block_id):
                if record[KIND_FIELD] == kind:
                    return True
        return False

    def has_at(self, block_id: bytes, pack_id: bytes, offset: int) -> bool:
        """Whether there is a copy in that place; cheaper than `find`."""
        for run in self.runs:
            for record in run.copies(block_id):
                number, place = PLACE.unpack_from(record, ID_BYTES)
                if place == offset and run.pack(number).pack_id == pack_id:
                    return True
        return False

    def close(self) -> None:
        """Let go of the runs; drop them if nobody asked to keep them."""
        self.runs = ()
        if self._drop:
            self._drop()

    def _refresh(self, thoroughly: bool) -> None:
        opened = self._open_runs()
        runs, new = self._compare([run for run in opened if not thoroughly or run.is_sound()])
        self.damaged = {}
        for batch in self._batches(new):
            runs.append(self._write(batch))
        runs = self._merged(runs)
        names = tuple(run.path.name for run in runs)
        if names != tuple(run.path.name for run in self.runs) or not (self._folder / _MANIFEST).exists():
            self._save(_Manifest(self._generation, names))
        self.runs = tuple(runs)

    def _open_runs(self) -> list[IndexRun]:
        try:
            manifest = msgspec.json.decode((self._folder / _MANIFEST).read_bytes(), type=_Manifest)
        except (FileNotFoundError, msgspec.MsgspecError, ValueError):
            return []
        if manifest.generation != self._generation:
            return []
        mine = {run.path.name: run for run in self.runs}
        runs = []
        for name in manifest.runs:
            try:
                runs.append(mine.get(name) or IndexRun(self._folder / name))
            except (OSError, ValueError):
                continue
        return runs

    def _compare(self, runs: list[IndexRun]) -> tuple[list[IndexRun], Iterator[bytes]]:
        """The runs as far as they still hold, and the ids of fragments that none of them covers."""
        listed = _Buckets(fragments_in(self._store))
        kept = []
        for run in runs:
            gone = frozenset(_Buckets(run.fragment_ids()).without(listed.ids()))
            if not gone:
                kept.append(run)
            elif (rest := run.source_without(gone)).fragment_ids:
                kept.append(self._write([rest]))
        return kept, listed.without(fragment for run in kept for fragment in run.fragment_ids())

    def _batches(self, fragment_ids: Iterable[bytes]) -> Iterator[list[RunSource]]:
        batch: list[RunSource] = []
        records = 0
        for fragment_id in fragment_ids:
            name = fragment_name(fragment_id)
            try:
                fragment = decode_fragment(self._sealer, name, self._store.get(name))
            except ObjectNotFoundError:
                continue
            except ObjectUnreadableError as error:
                self.damaged[name] = self._sealer.damage(name, f"it can't be read: {error.why}")
                continue
            except DamageError as error:
                self.damaged[name] = error
                continue
            batch.append(fragment_source(fragment_id, fragment.packs, fragment.records))
            records += len(fragment.records) // RECORD.size
            if records >= _BATCH_RECORDS:
                yield batch
                batch, records = [], 0
        if batch:
            yield batch

    def _merged(self, runs: list[IndexRun]) -> list[IndexRun]:
        tiers: dict[int, list[IndexRun]] = {}
        for run in runs:
            tiers.setdefault(_tier(run), []).append(run)
        tier = 0
        while tier <= max(tiers, default=-1):
            alike = tiers.get(tier, [])
            if len(alike) >= _TIER_RUNS:
                merged = self._write([run.source() for run in alike])
                tiers[tier] = []
                tiers.setdefault(max(tier, _tier(merged)), []).append(merged)
                if _tier(merged) <= tier:
                    tier += 1
                continue
            tier += 1
        return [run for alike in tiers.values() for run in alike]

    def _write(self, sources: list[RunSource]) -> IndexRun:
        path = self._folder / f"{secrets.token_hex(8)}.run"
        write_run(path, sources)
        return IndexRun(path)

    def _save(self, manifest: _Manifest) -> None:
        fresh = self._folder / f"{_MANIFEST}.new"
        fresh.write_bytes(msgspec.json.encode(manifest))
        fresh.replace(self._folder / _MANIFEST)
        for path in self._folder.glob("*.run"):
            if path.name not in manifest.runs:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked_folder(self) -> Iterator[None]:
        file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def fragments_in(store: Store) -> Iterator[bytes]:
    """The ids of all fragments in a store."""
    for name in store.list("index/"):
        if _FRAGMENT_NAME.fullmatch(name):
            yield bytes.fromhex(name.rpartition("/")[2])


class _Buckets:
    """A set of fragment ids, 16 bytes each and little more, by their first byte."""

    def __init__(self, ids: Iterable[bytes]) -> None:
        self._buckets = [bytearray() for _ in range(256)]
        for fragment_id in ids:
            self._buckets[fragment_id[0]] += fragment_id

    def ids(self) -> Iterator[bytes]:
        """All of them."""
        for first, bucket in enumerate(self._buckets):
            if bucket:
                yield from self._set(first)

    def without(self, ids: Iterable[bytes]) -> Iterator[bytes]:
        """Those that aren't in `ids`."""
        others = _Buckets(ids)
        for first, bucket in enumerate(self._buckets):
            if bucket:
                yield from sorted(self._set(first) - others._set(first))

    def _set(self, first: int) -> set[bytes]:
        bucket = bytes(self._buckets[first])
        return {bucket[at : at + FRAGMENT_ID_BYTES] for at in range(0, len(bucket), FRAGMENT_ID_BYTES)}


def _tier(run: IndexRun) -> int:
    tier, limit = 0, _FIRST_TIER_RECORDS
    while run.record_count >= limit:
        tier, limit = tier + 1, limit * _TIER_RUNS
    return tier


def _cache_error(folder: Path, error: OSError) -> IndexCacheError:
    return IndexCacheError(
        f"can't keep the index in {folder}",
        why=error.strerror or str(error),
        remedy="Give it a folder with some room that this user may write.",
    )
