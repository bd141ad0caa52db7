"""Seeing that packs have their parity, and making it anew: it follows from the pack, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import xxhash

from proxy_worker.repository.pack_layout import PackLayoutError, pack_name
from proxy_worker.repository.pack_scan import pack_id_of
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.parity_object import ParityWriter, load_parity, parity_name
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store
from proxy_worker.repository.store.terms import delete_if_free


def has_parity(store: Store, pack_id: bytes) -> bool:
    """Whether a pack has parity that is whole; reads it all."""
    try:
        pack = load_parity(store, pack_id)
        if pack.pack_bytes != store.size(pack_name(pack_id)):
            return False
        groups, count = pack.parity.group_count(pack.pack_bytes), pack.parity.parity_shares
        shares = store.get(pack.name, pack.shares_at(0), pack.shares_at(groups) - pack.shares_at(0))
    except (ObjectNotFoundError, ObjectUnreadableError, PackLayoutError):
        return False
    at = 0
    for group in range(groups):
        length = pack.parity.share_length(pack.parity.group_length(pack.pack_bytes, group))
        for total in pack.sums_of(group)[-count:]:
            if xxhash.xxh3_128_digest(shares[at : at + length]) != total:
                return False
            at += length
    return True


def remove_strays(store: Store, is_listed: Callable[[bytes], bool]) -> None:
    """Remove parity whose pack isn't there: a pack comes before its parity, so that such a pack has gone.

    What somebody was writing while a collector gave it up for dead leaves it. `is_listed` spares a question.
    """
    for name in list(store.list("parity/")):
        pack_id = pack_id_of(f"packs/{name.partition('/')[2]}")
        if pack_id is not None and not is_listed(pack_id) and not store.exists(pack_name(pack_id)):
            delete_if_free(store, name)


def make_parity(store: Store, pack_id: bytes, parity: Parity) -> bool:
    """Make the parity of a pack that is whole, in the place of what there is; False if that must stay yet.

    Raises `StoreError`.
    """
    name = pack_name(pack_id)
    size = store.size(name)
    if not delete_if_free(store, parity_name(pack_id)):
        return False
    out = store.create(parity_name(pack_id))
    try:
        writer = ParityWriter(out, pack_id, parity)
        for at in range(0, size, parity.group_bytes):
            writer.write(store.get(name, at, parity.group_bytes))
        writer.end()
        return out.finish()
    finally:
        out.discard()
