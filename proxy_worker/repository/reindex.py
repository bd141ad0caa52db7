"""Rebuilding the index: packs describe themselves, so that losing fragments costs time, not data."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.errors import ShutOutError
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES
from proxy_worker.repository.keyring import OWNER_GROUP
from proxy_worker.repository.pack_layout import PackLayoutError, PackTable
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.soundness import Soundness
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free

_PACKS_PER_FRAGMENT: Final = 8

_Described = list[tuple[FragmentPack, PackTable]]


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What was done."""

    packs: int
    fragments: int
    dropped: tuple[str, ...]
    """Damaged fragments, removed once all packs were described anew."""
    unreadable_packs: tuple[str, ...]
    """Packs whose table can't be read, or isn't for this key to vouch for, and so not be indexed."""


def reindex(opened: Access) -> ReindexReport:
    """Publish fragments for packs that no readable one describes; if none is left out, remove the damaged ones.

    May run beside writers: a pack whose writer is about to publish it gets two fragments, which does no harm.
    """
    with opened.freshly_indexed() as access:
        return _reindex(access)


@dataclass(frozen=True, slots=True)
class Described:
    """Packs that got a fragment."""

    packs: int
    fragments: int
    unreadable: dict[bytes, str]
    """By pack id, why one couldn't get any."""


def describe_packs(access: Access, packs: Iterable[bytes]) -> Described:
    """Publish fragments for those of these packs that the index at hand doesn't know whole."""
    soundness = Soundness(access)
    own_group = access.keyring.identity.body.group
    described = fragments = 0
    unreadable: dict[bytes, str] = {}
    batch: _Described = []
    for pack_id in packs:
        try:
            footer = read_footer(access.store, pack_id, with_header=False)
            table, signer = read_table(access.store, access.sealer, pack_id, footer)
        except (ObjectNotFoundError, ShutOutError):
            continue  # what a writer that was shut out has left is nobody's: a collection deletes it
        except (PackLayoutError, DamageError) as error:
            unreadable[pack_id] = str(error)
            continue
        if own_group not in {OWNER_GROUP, signer.group}:
            # A fragment's packs count as its signer's: this one would vouch for what another group has stored.
            unreadable[pack_id] = f"it is of trust group {signer.group}; use the passphrase"
            continue
        if all(soundness.is_indexed(pack_id, chunk) for chunk in table):
            continue
        batch.append((FragmentPack(pack_id, footer.size_bytes, signer.group, table.data_keys), table))
        described += 1
        if len(batch) == _PACKS_PER_FRAGMENT:
            fragments += _publish(access, batch)
            batch = []
    fragments += _publish(access, batch)
    return Described(described, fragments, unreadable)


def _reindex(access: Access) -> ReindexReport:
    damaged = sorted(access.index.damaged)
    described = describe_packs(access, pack_ids(access.store))
    if described.unreadable:
        damaged = []  # they may describe just those packs, for whoever can read them
    damaged = [name for name in damaged if delete_if_free(access.store, name)]
    unreadable = tuple(f"{pack_id.hex()}: {why}" for pack_id, why in described.unreadable.items())
    return ReindexReport(described.packs, described.fragments, tuple(damaged), unreadable)


def _publish(access: Access, batch: _Described) -> int:
    if not batch:
        return 0
    name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
    access.store.put_if_absent(name, [encode_fragment(access.sealer, name, batch)])
    return 1
