"""Scrubbing: comparing everything with the checksums stored beside it, which needs no key.

It finds what a disk or a network has done to a repository, not what somebody with a key could have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.config import decode_config, load_config
from proxy_worker.repository.findings import CheckReport, Finding, FindingKind
from proxy_worker.repository.pack_layout import Footer, pack_name
from proxy_worker.repository.pack_scan import ChunkTest, PackResult, scan_packs
from proxy_worker.repository.packs import require_table_checksum
from proxy_worker.repository.parity_upkeep import scan_parity
from proxy_worker.repository.passphrases import decode_key
from proxy_worker.repository.sealing import object_problem
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store

_SEALED: dict[str, FindingKind] = {
    "index/": "index fragment",
    "points/": "point",
    "ended/": "object",
    "condemned/": "object",
    "awaited/": "object",
    "doomed/": "object",
    "writers/": "object",
    "readers/": "object",
    "seals/": "object",
    "issued/": "object",
    "proofs/": "object",
    "damaged/": "object",
    "kept/": "object",
}


def scrub(store: Store, *, after_pack: Callable[[], None] = lambda: None) -> CheckReport:
    """Read everything once; what `after_pack` raises ends it.

    Raises `RepositoryNotFoundError` and the like when there is no repository to read.
    """
    started = time.monotonic()
    config = None
    with suppress(DamageError, ObjectUnreadableError):  # reported below, with its name
        config = load_config(store)
    findings = list(document_findings(store))
    points = 0
    read_bytes = 0
    for prefix, kind in _SEALED.items():
        for name in store.list(prefix):
            try:
                data = store.get(name)
            except ObjectNotFoundError:
                continue
            except ObjectUnreadableError as error:
                findings.append(Finding(kind, name, f"it can't be read: {error.why}"))
                continue
            points += kind == "point"
            read_bytes += len(data)
            if problem := object_problem(data):
                findings.append(Finding(kind, name, problem))
    packs = 0

    def prepare(pack_id: bytes, footer: Footer) -> ChunkTest | None:
        require_table_checksum(store, pack_id, footer)
        return None

    def note(pack: PackResult) -> None:
        nonlocal packs, read_bytes
        packs += 1
        read_bytes += pack.read_bytes
        if problem := pack.summary:
            findings.append(Finding("pack", pack_name(pack.pack_id), problem))
        after_pack()

    scan_packs(store, prepare, note)
    parity = scan_parity(store, config, after_pack)
    return CheckReport(
        points=points,
        packs=packs,
        read_bytes=read_bytes + parity.read_bytes,
        duration_seconds=time.monotonic() - started,
        findings=(*findings, *parity.findings),
        notes=(*leftover_notes(store), *parity.notes),
    )


def document_findings(store: Store) -> Iterator[Finding]:
    """Damage in configurations and wrapped keys."""
    for name in store.list("config/"):
        try:
            decode_config(store.get(name), name, store.location)
        except (DamageError, ObjectUnreadableError) as error:
            yield Finding("config", name, error.why)
    for name in store.list("keys/"):
        try:
            decode_key(store.get(name), name, store.location)
        except ObjectNotFoundError:
            continue
        except (DamageError, ObjectUnreadableError) as error:
            yield Finding("key", name, error.why)


def leftover_notes(store: Store) -> Iterator[str]:
    """What interrupted writes have left."""
    count = sum(1 for _ in store.leftovers())
    if count:
        yield f"{count} unfinished objects of interrupted writes; they may be removed while nobody writes"
