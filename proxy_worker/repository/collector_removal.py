"""Taking doomed packs out of the index, then out of the store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.fragments import (
    PACK_FIELD,
    RECORD,
    FragmentPack,
    decode_fragment,
    encode_records,
    fragment_name,
)
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES, IndexRun
from proxy_worker.repository.keyring import OWNER_GROUP
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.parity_object import parity_name
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free, terms_left_s

_RECORDS_PER_FRAGMENT = 100_000
_THREADS: Final = 8
_AT_ONCE: Final = 64
"""A thread's share: small repositories need one thread."""


@dataclass
class _Rest:
    """What stays of fragments: gathered in one new fragment, durable before the old ones go."""

    packs: list[FragmentPack] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    fragments: list[str] = field(default_factory=list)


def fragments_of(runs: Iterable[IndexRun], gone: frozenset[bytes]) -> tuple[set[bytes], set[bytes]]:
    """The ids of fragments of which some packs are `gone`, and of those that describe no other packs.

    The latter may go unread: what the index knows of a fragment was verified, and a fragment never changes.
    """
    some: set[bytes] = set()
    others: set[bytes] = set()
    for run in runs:
        for place, (pack_id, _) in enumerate(run.pack_sizes()):
            (some if pack_id in gone else others).add(run.fragment_of(place))
    return some & others, some - others


def withdraw_from_index(access: Access, fragment_ids: Iterable[bytes], gone: Callable[[bytes], bool]) -> int:
    """Replace fragments by ones without the packs that are `gone`; how many couldn't be.

    A fragment that speaks for packs of several trust groups only the owner may write anew, and one whose term isn't
    over nobody; it stays, and names packs that aren't there, which readers and writers are used to.
    """
    own_group = access.keyring.identity.body.group
    rest, left = _Rest(), 0
    names = [fragment_name(fragment_id) for fragment_id in sorted(set(fragment_ids))]
    staying = terms_left_s(access.store, names)
    left += len(staying)
    for name in names:
        if name in staying:
            continue
        try:
            fragment = decode_fragment(access.sealer, name, access.store.get(name))
        except (ObjectNotFoundError, DamageError):
            continue
        kept = {number: pack for number, pack in enumerate(fragment.packs) if not gone(pack.pack_id)}
        if len(kept) == len(fragment.packs):
            continue
        if own_group != OWNER_GROUP and any(pack.group != own_group for pack in kept.values()):
            left += 1
            continue
        places = {number: len(rest.packs) + place for place, number in enumerate(kept)}
        for at in range(0, len(fragment.records), RECORD.size):
            record = fragment.records[at : at + RECORD.size]
            place = places.get(int.from_bytes(record[PACK_FIELD], "little"))
            if place is not None:
                placed = place.to_bytes(4, "little")
                rest.records.append(record[: PACK_FIELD.start] + placed + record[PACK_FIELD.stop :])
        rest.packs.extend(kept.values())
        rest.fragments.append(name)
        if len(rest.records) >= _RECORDS_PER_FRAGMENT:
            _replace(access, rest)
            rest = _Rest()
    _replace(access, rest)
    return left


def delete_packs(access: Access, pack_ids: Iterable[bytes], *, go_on: Callable[[], None]) -> None:
    """Delete packs. One whose term has begun anew stays, as if nobody had condemned it."""

    def delete(pack_id: bytes) -> None:
        if delete_if_free(access.store, pack_name(pack_id)) and access.parity:
            delete_if_free(access.store, parity_name(pack_id))

    _delete_all(pack_ids, delete, go_on)


def delete_fragments(access: Access, fragment_ids: Iterable[bytes], *, go_on: Callable[[], None]) -> None:
    """Delete fragments, but those that must stay yet."""
    _delete_all(fragment_ids, lambda fragment_id: delete_if_free(access.store, fragment_name(fragment_id)), go_on)


def _delete_all(ids: Iterable[bytes], delete: Callable[[bytes], object], go_on: Callable[[], None]) -> None:
    """Delete in several threads: of deleting little is work, and most of it waiting."""
    left = iter(sorted(ids))

    def delete_some(some: Sequence[bytes]) -> None:
        for one in some:
            delete(one)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="delete") as threads:
        while some := list(islice(left, _THREADS * _AT_ONCE)):
            go_on()
            for _ in threads.map(delete_some, (some[at : at + _AT_ONCE] for at in range(0, len(some), _AT_ONCE))):
                pass


def _replace(access: Access, rest: _Rest) -> None:
    if rest.packs:
        name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
        access.store.put_if_absent(name, [encode_records(access.sealer, name, rest.packs, rest.records)])
    for name in rest.fragments:
        delete_if_free(access.store, name)
