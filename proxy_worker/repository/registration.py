"""Who is at work: the marks that writers and readers leave, and the lists of packs that a collector will delete.

A writer registers first, then reads the condemned lists, then the index; it may name a pack it didn't write
only after it has seen, since registering, that the pack is there and not condemned. With that a collector,
which publishes its list first and then waits for every registered run to end, never deletes what a point needs.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.errors import RepositoryDamageError
from proxy_worker.repository.pack_layout import PACK_ID_BYTES
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import (
    ObjectNotFoundError,
    ObjectUnreadableError,
    Store,
    StoreFullError,
    StoreReadOnlyError,
)

_LIST: Final = re.compile(r"condemned/[0-9]{1,18}")
_RENEWED_AFTER_S: Final = 24 * 3600
"""Who is at work says so that often: a mark that nobody has renewed for a week is taken for a dead one's."""


class WriterMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A writer at work."""

    vm_id: str
    run: str
    disk_key: str
    fence: int
    started_at: float


class ReaderMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A reader at work."""

    vm_id: str
    run: str
    started_at: float


class CondemnedList(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Packs that will be deleted unless a point turns out to need them."""

    pack_ids: bytes
    """16 bytes each."""


class Renewal:
    """Puts a mark anew each day, by this machine's clock; also once that was set. Thread-safe."""

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self._put_at = time.time()
        self._lock = threading.Lock()

    def if_due(self) -> None:
        """To be called while at work, as often as one likes. Raises what putting it raises."""
        if age_s(self._put_at) < _RENEWED_AFTER_S:
            return
        with self._lock:
            if age_s(self._put_at) >= _RENEWED_AFTER_S:
                self._put()
                self._put_at = time.time()


def age_s(left_at: float) -> float:
    """How old a mark is, at the least, that was left then (Unix seconds). Its clock or this one may be wrong: one
    that is dated years ahead is not to count for years."""
    return abs(time.time() - left_at)


def register_writer(
    store: Store, sealer: MetadataSealer, *, vm_id: str, run: str, disk_key: str, fence: int, renewed: bool = False
) -> None:
    """Leave a writer's mark; the same writer may do so twice. `renewed`: another one beside it."""
    name = f"writers/{vm_id}/{run}/{disk_key}.{fence}"
    if renewed:
        name += f"+{secrets.token_hex(8)}"
    mark = msgspec.msgpack.encode(WriterMark(vm_id, run, disk_key, fence, time.time()))
    store.put_if_absent(name, [sealer.seal_object(name, mark)])


def forget_writers(store: Store, *, vm_id: str, run: str) -> None:
    """Remove the marks of a run that has ended; where nothing can be deleted, a collector that may does it."""
    with suppress(StoreReadOnlyError):
        for name in list(store.list(f"writers/{vm_id}/{run}/")):
            store.delete(name)


def forget_writer(store: Store, *, vm_id: str, run: str, disk_key: str, fence: int) -> None:
    """Remove one writer's marks: it has stopped for good, and nobody relies on what it stored."""
    own = f"writers/{vm_id}/{run}/{disk_key}.{fence}"
    with suppress(StoreReadOnlyError):
        for name in list(store.list(f"writers/{vm_id}/{run}/")):
            if name == own or name.startswith(f"{own}+"):
                store.delete(name)


def register_reader(store: Store, sealer: MetadataSealer, *, vm_id: str, run: str) -> str | None:
    """Leave a reader's mark and return its name; None where nothing can be written, and so nothing be collected."""
    name = f"readers/{secrets.token_hex(16)}"
    mark = msgspec.msgpack.encode(ReaderMark(vm_id, run, time.time()))
    with suppress(StoreReadOnlyError, StoreFullError):
        store.put_if_absent(name, [sealer.seal_object(name, mark)])
        return name
    return None


def encode_condemned(sealer: MetadataSealer, number: int, pack_ids: Iterable[bytes]) -> bytes:
    """The object `condemned/<number>`."""
    payload = msgspec.msgpack.encode(CondemnedList(b"".join(sorted(pack_ids))))
    return sealer.seal_object(f"condemned/{number}", payload)


def open_lists(store: Store) -> list[str]:
    """The names of the lists that aren't done."""
    names = set(store.list("condemned/"))
    return sorted(name for name in names if _LIST.fullmatch(name) and f"{name}.done" not in names)


def condemned_packs(store: Store, sealer: MetadataSealer) -> frozenset[bytes]:
    """The packs on every list that isn't done; raises `RepositoryDamageError` when a list can't be read."""
    return frozenset(pack for name in open_lists(store) for pack in listed_packs(store, sealer, name))


def listed_packs(store: Store, sealer: MetadataSealer, name: str) -> frozenset[bytes]:
    """The packs on one list; none if it is gone. Raises `RepositoryDamageError`."""
    try:
        payload, _ = sealer.open_object(name, store.get(name))
        ids = msgspec.msgpack.decode(payload, type=CondemnedList).pack_ids
    except ObjectNotFoundError:
        return frozenset()
    except (ObjectUnreadableError, DamageError, msgspec.MsgspecError) as error:
        raise RepositoryDamageError(
            f"{name} in {store.location}",
            why=f"what is condemned can't be known: {getattr(error, 'why', error)}",
            remedy="`proxy-worker repository collect` puts it aside; nothing may be written before.",
        ) from error
    return frozenset(ids[at : at + PACK_ID_BYTES] for at in range(0, len(ids), PACK_ID_BYTES))
