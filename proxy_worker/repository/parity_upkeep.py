"""Seeing that packs have their parity whole, and making it anew: it follows from the pack, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from proxy_worker.repository.config import Config
from proxy_worker.repository.findings import Finding
from proxy_worker.repository.pack_layout import PackLayoutError, pack_name
from proxy_worker.repository.pack_scan import pack_id_of, pack_ids
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.parity_object import OtherPackSizeError, ParityWriter, load_parity, parity_name
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store
from proxy_worker.repository.store.terms import delete_if_free


def has_parity(store: Store, pack_id: bytes) -> bool:
    """Whether a pack has parity that is whole, and of all of it; reads it all."""
    try:
        return not _problem(store, pack_id) and load_parity(store, pack_id).pack_bytes == store.size(
            pack_name(pack_id)
        )
    except (ObjectNotFoundError, ObjectUnreadableError, PackLayoutError):
        return False


@dataclass(frozen=True, slots=True)
class ParityScan:
    """What reading all parity came to."""

    findings: tuple[Finding, ...] = ()
    missing: int = 0
    """Packs that have none: it was lost, or whoever wrote the pack was stopped before it was there."""
    read_bytes: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What isn't damage."""
        return (f"packs without parity, which a proof makes: {self.missing}",) if self.missing else ()


def scan_parity(store: Store, config: Config | None, after_pack: Callable[[], None]) -> ParityScan:
    """Read the parity of every pack, in a repository that is known to keep any. Raises `StoreError`."""
    if config is None or not config.parity:
        return ParityScan()
    findings, missing, read_bytes = [], 0, 0
    for pack_id in pack_ids(store):
        name = parity_name(pack_id)
        after_pack()
        try:
            problem = _problem(store, pack_id)
            read_bytes += store.size(name)
        except ObjectNotFoundError:
            missing += store.exists(pack_name(pack_id))
            continue
        if problem:
            findings.append(Finding("parity", name, problem, ()))
    return ParityScan(tuple(findings), missing, read_bytes)


def _problem(store: Store, pack_id: bytes) -> str | None:
    """What is wrong with the parity of a pack that may be damaged itself; raises `ObjectNotFoundError`."""
    try:
        pack = load_parity(store, pack_id)
        groups, count = pack.parity.group_count(pack.pack_bytes), pack.parity.parity_shares
        shares = store.get(pack.name, pack.shares_at(0), pack.shares_at(groups) - pack.shares_at(0))
    except ObjectUnreadableError as error:
        return f"it can't be read: {error.why}"
    except OtherPackSizeError as error:
        return str(error) if _ends_as_a_pack(store, pack_id) else None
    except PackLayoutError as error:
        return str(error)
    at = 0
    for group in range(groups):
        length = pack.parity.share_length(pack.parity.group_length(pack.pack_bytes, group))
        for total in pack.sums_of(group)[-count:]:
            if xxhash.xxh3_128_digest(shares[at : at + length]) != total:
                return f"the share at {pack.shares_at(0) + at} has a wrong checksum"
            at += length
    return None


def _ends_as_a_pack(store: Store, pack_id: bytes) -> bool:
    """Whether nothing was cut off a pack or added to it."""
    try:
        read_footer(store, pack_id)
    except PackLayoutError:
        return False
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
