"""What is known to be damaged: one record for each finding, which writers, collectors and repairs heed.

A record names a pack and the ids of what can't be had from it any more. Writers name nothing of such a pack any
more, so that the next backup stores anew what it needs of it; collectors let other copies stay instead. A record
goes when its pack is whole again, or when it is gone and nothing that is needed is lost with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.index_run import Location
from proxy_worker.repository.keyring import ID_BYTES
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError, Store


class DamagedPack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A finding."""

    pack_id: bytes
    problem: str
    found_at: int
    """Unix seconds."""
    ids: bytes
    """32 bytes for each block, segment and map that can't be had from this pack."""


class Finder(Protocol):
    """What knows where everything lies."""

    def find(self, block_id: bytes) -> Sequence[Location]:
        """Every copy."""


@dataclass(frozen=True)
class Damage:
    """All records together."""

    problems: dict[bytes, str]
    """By pack id, what is wrong with it."""
    bad: frozenset[tuple[bytes, bytes]]
    """Pack id and id of what can't be had from it."""

    def __bool__(self) -> bool:
        return bool(self.problems)

    @property
    def packs(self) -> frozenset[bytes]:
        """Packs that nothing is to be named of any more."""
        return frozenset(self.problems)

    def lost(self, index: Finder) -> frozenset[bytes]:
        """Ids of which no pack that is known to the index holds a copy that isn't known to be bad."""
        ids = {content_id for _, content_id in self.bad}
        return frozenset(
            content_id
            for content_id in ids
            if all((copy.pack.pack_id, content_id) in self.bad for copy in index.find(content_id))
        )


def load_damage(store: Store, sealer: MetadataSealer) -> Damage:
    """Every record that can be read."""
    problems: dict[bytes, str] = {}
    bad: set[tuple[bytes, bytes]] = set()
    for name in store.list("damaged/"):
        try:
            payload, _ = sealer.open_object(name, store.get(name))
            record = msgspec.msgpack.decode(payload, type=DamagedPack)
        except (ObjectNotFoundError, DamageError, msgspec.MsgspecError):
            continue  # a scrub finds it again
        problems.setdefault(record.pack_id, record.problem)
        bad.update((record.pack_id, content_id) for content_id in _split(record.ids))
    return Damage(problems, frozenset(bad))


def record_damage(access: Access, pack_id: bytes, problem: str, ids: Iterable[bytes]) -> None:
    """Add a record."""
    name = f"damaged/{pack_id.hex()}/{secrets.token_hex(8)}"
    record = DamagedPack(pack_id, problem, int(time.time()), b"".join(sorted(set(ids))))
    access.store.put_if_absent(name, [access.sealer.seal_object(name, msgspec.msgpack.encode(record))])


def forget_damage(access: Access, pack_id: bytes) -> None:
    """Remove the records of a pack."""
    for name in list(access.store.list(f"damaged/{pack_id.hex()}/")):
        access.store.delete(name)


def _split(joined: bytes) -> Iterator[bytes]:
    return (joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES))
