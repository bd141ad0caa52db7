"""Rebuilding the index: packs describe themselves, so that losing fragments costs time, not data."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES
from proxy_worker.repository.keyring import OWNER_GROUP
from proxy_worker.repository.pack_layout import PackLayoutError, PackTable
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.soundness import Soundness
from proxy_worker.repository.store import ObjectNotFoundError

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


def _reindex(access: Access) -> ReindexReport:
    damaged = sorted(access.index.damaged)
    soundness = Soundness(access)
    own_group = access.keyring.identity.body.group
    packs = fragments = 0
    unreadable: list[str] = []
    batch: _Described = []
    for pack_id in pack_ids(access.store):
        try:
            footer = read_footer(access.store, pack_id)
            table, signer = read_table(access.store, access.sealer, pack_id, footer)
        except ObjectNotFoundError:
            continue
        except (PackLayoutError, DamageError) as error:
            unreadable.append(f"{pack_id.hex()}: {error}")
            continue
        if own_group not in {OWNER_GROUP, signer.group}:
            # A fragment's packs count as its signer's: this one would vouch for what another group has stored.
            unreadable.append(f"{pack_id.hex()}: it is of trust group {signer.group}; use the passphrase")
            continue
        if all(soundness.is_indexed(pack_id, chunk) for chunk in table):
            continue
        batch.append((FragmentPack(pack_id, footer.size_bytes, signer.group, table.data_keys), table))
        packs += 1
        if len(batch) == _PACKS_PER_FRAGMENT:
            fragments += _publish(access, batch)
            batch = []
    fragments += _publish(access, batch)
    if unreadable:
        damaged = []  # they may describe just those packs, for whoever can read them
    for name in damaged:
        access.store.delete(name)
    return ReindexReport(packs, fragments, tuple(damaged), tuple(unreadable))


def _publish(access: Access, batch: _Described) -> int:
    if not batch:
        return 0
    name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
    access.store.put_if_absent(name, [encode_fragment(access.sealer, name, batch)])
    return 1
