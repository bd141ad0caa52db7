"""Proof: reading what was proven longest ago, a bounded piece at a time, so that everything is read often enough.

A piece reads what is older than the repository's period or was never read, and beyond that its share: as much of
everything as the time since the last piece is of the period, oldest first. So the work spreads over the days, and a
piece that was cut short is made up for by the next. What is found damaged is recorded, mended as far as it can be,
and traced to the restore points that need it. With a key that reads, samples of restore points are restored, those
longest ago first, and compared with the points' hash trees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from proxy_worker.repository.damage import load_damage
from proxy_worker.repository.examination import record_packs
from proxy_worker.repository.findings import Finding
from proxy_worker.repository.fragments import fragment_name
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.pace import Pace
from proxy_worker.repository.pack_layout import Footer, pack_name
from proxy_worker.repository.pack_scan import ChunkTest, pack_ids, scan_pack
from proxy_worker.repository.packs import require_table_checksum
from proxy_worker.repository.parity_upkeep import has_parity, make_parity
from proxy_worker.repository.points import live_point_names
from proxy_worker.repository.proofs import NEVER, Proofs, load_proofs, save_proofs
from proxy_worker.repository.provenance import PointProof, prove_points
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repair import RepairReport, repair
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.samples import restore_samples
from proxy_worker.repository.sealing import object_problem
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError

_DAY_S: Final = 24 * 3600.0
_SAVE_EVERY_S: Final = 300.0
_BUFFER_BYTES: Final = 1024 * 1024
_EARLY: Final = 0.8
"""The part of the period after which something is due: the rest is for pieces that don't get through."""


@dataclass(frozen=True, slots=True)
class ProofSettings:
    """How much is read at once."""

    period_s: float = 30 * _DAY_S
    """Everything is to be read at least once in this time."""
    most_s: float | None = None
    """How long a piece may read; None: until it has done its share."""
    bytes_per_s: int | None = None
    sampled_points: int = 20
    """Of how many restore points a sample is restored; none without a key that reads."""
    everything: bool = False
    """Read everything, however recently it was."""


@dataclass
class ProofReport:
    """What a piece has read and found."""

    packs: int = 0
    fragments: int = 0
    read_bytes: int = 0
    made_parity: int = 0
    """Packs whose parity was lost or damaged, or never written, and that have it again."""
    sampled: int = 0
    overdue: int = 0
    """Packs and fragments that should have been read by now and weren't."""
    oldest: int | None = None
    """When what was proven longest ago was, in Unix seconds; 0: never."""
    findings: tuple[Finding, ...] = ()
    """What is damaged now, after repair; with whom it hurts."""
    repaired: RepairReport = field(default_factory=RepairReport)
    points: tuple[PointProof, ...] = ()
    duration_seconds: float = 0.0


def prove(
    repository: Repository,
    settings: ProofSettings | None = None,
    *,
    linked: Sequence[Repository] = (),
    go_on: Callable[[], None] = lambda: None,
) -> ProofReport:
    """Read a piece, mend, sample, and say when each restore point was proven last.

    What has been read counts although `go_on` ends it by raising. Raises `StoreError`.
    """
    return _Piece(repository, settings or ProofSettings(), go_on).run(linked)


class _Piece:
    def __init__(self, repository: Repository, settings: ProofSettings, go_on: Callable[[], None]) -> None:
        self._repository = repository
        self._access = repository.access
        self._settings = settings
        self._go_on = go_on
        self._pace = Pace(settings.bytes_per_s, go_on)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._now = int(time.time())
        self._started = time.monotonic()
        self._saved = self._started
        self._findings: dict[str, Finding] = {}
        self._bad_packs: dict[bytes, str] = {}
        self._bad_fragments = False
        self._report = ProofReport()

    def run(self, linked: Sequence[Repository]) -> ProofReport:
        access, report = self._access, self._report
        access.index.refresh()
        fragments = set(fragments_in(access.store))
        proofs = Proofs([*pack_ids(access.store), *fragments])
        proofs.take_over(load_proofs(access), now=self._now)
        try:
            self._read(proofs, fragments)
        finally:
            save_proofs(access, proofs, now=self._now)
        self._look_at_points()
        self._bad_packs |= dict.fromkeys(self._missing_packs(proofs), "it is not there")
        self._sample(proofs)
        self._mend(linked)
        report.points = tuple(prove_points(self._repository, proofs, report.repaired.losses))
        self._trace()
        save_proofs(access, proofs, now=self._now)
        due = self._now - self._settings.period_s
        report.overdue = sum(1 for proven_at in proofs.times if proven_at < due)
        report.oldest = proofs.oldest
        report.findings = tuple(self._findings.values())
        report.duration_seconds = time.monotonic() - self._started
        return report

    def _read(self, proofs: Proofs, fragments: set[bytes]) -> None:
        damaged = load_damage(self._access.store, self._access.sealer).packs
        for number in _share(proofs, self._settings, damaged, now=self._now):
            if self._settings.most_s is not None and time.monotonic() - self._started > self._settings.most_s:
                return
            unit = proofs.ids[number]
            sound = self._read_fragment(unit) if unit in fragments else self._read_pack(unit)
            if sound:
                proofs.times[number] = self._now
            if time.monotonic() - self._saved > _SAVE_EVERY_S:
                save_proofs(self._access, proofs, now=self._now)
                self._saved = time.monotonic()

    def _read_pack(self, pack_id: bytes) -> bool:
        store = self._access.store

        def prepare(pack_id: bytes, footer: Footer) -> ChunkTest | None:
            require_table_checksum(store, pack_id, footer)
            return None

        result = scan_pack(store, pack_id, prepare, self._buffer)
        if result is None:
            return False  # a collector has deleted it
        self._report.packs += 1
        self._report.read_bytes += result.read_bytes
        self._pace(result.read_bytes)
        if result.summary:
            self._bad_packs[pack_id] = result.summary
        elif self._access.parity and not has_parity(store, pack_id):
            with suppress(ObjectNotFoundError):  # a collector has deleted the pack
                self._report.made_parity += make_parity(store, pack_id, self._access.parity)
        return result.summary is None

    def _read_fragment(self, fragment_id: bytes) -> bool:
        name = fragment_name(fragment_id)
        problem: str | None
        try:
            data = self._access.store.get(name)
        except ObjectNotFoundError:
            return False
        except ObjectUnreadableError as error:
            data, problem = b"", f"it can't be read: {error.why}"
        else:
            problem = object_problem(data)
        self._report.fragments += 1
        self._report.read_bytes += len(data)
        self._pace(len(data))
        if problem:
            self._findings[name] = Finding("index fragment", name, problem, ())
            self._bad_fragments = True
        return problem is None

    def _look_at_points(self) -> None:
        """They are few and small: every piece reads them all."""
        for name in live_point_names(self._access.store):
            self._go_on()
            try:
                problem = object_problem(self._access.store.get(name))
            except ObjectNotFoundError:
                continue
            except ObjectUnreadableError as error:
                problem = f"it can't be read: {error.why}"
            if problem:
                self._findings[name] = Finding("point", name, problem, ())

    def _missing_packs(self, proofs: Proofs) -> set[bytes]:
        """Packs that the index describes and that aren't there. Looked for twice: one may have been collected."""
        found = {pack_id for pack_id in self._described() if proofs.proven_at(pack_id) is None}
        if not found:
            return set()
        self._access.index.refresh()
        return {
            pack_id
            for pack_id in found.intersection(self._described())
            if not self._access.store.exists(pack_name(pack_id))
        }

    def _described(self) -> Iterator[bytes]:
        for run in self._access.index.runs:
            for pack_id, _ in run.pack_sizes():
                yield pack_id

    def _sample(self, proofs: Proofs) -> None:
        if not self._repository.can_read:
            return
        for sample in restore_samples(self._repository, proofs, self._settings.sampled_points, go_on=self._go_on):
            self._report.sampled += 1
            if sample.problem is None:
                proofs.samples[sample.name] = self._now
            for pack_id in sample.suspects:
                self._bad_packs.setdefault(pack_id, sample.problem or "")

    def _mend(self, linked: Sequence[Repository]) -> None:
        access = self._access
        rebuilt: tuple[str, ...] = ()
        if self._bad_fragments:
            rebuilt = reindex(access).dropped
            for name in rebuilt:
                self._findings.pop(name, None)
            access.index.refresh()
        record_packs(access, self._bad_packs)
        self._report.repaired = repair(self._repository, linked=linked, go_on=self._go_on)
        self._report.repaired.rebuilt = rebuilt

    def _trace(self) -> None:
        """Name what is still damaged, with the restore points that it hurts."""
        damage = load_damage(self._access.store, self._access.sealer)
        uses = self._report.repaired.losses.uses
        for pack_id, problem in sorted(damage.problems.items()):
            name = pack_name(pack_id)
            hurt = {use for pack, content_id in damage.bad if pack == pack_id for use in uses.get(content_id, ())}
            self._findings[name] = Finding("pack", name, problem, tuple(sorted(hurt)))


def _share(proofs: Proofs, settings: ProofSettings, damaged: frozenset[bytes], *, now: int) -> Iterable[int]:
    """What a piece is to read, oldest first, by number.

    Packs that are known to be damaged come last, beside the share: they never get younger, and would keep a piece
    that has an end from everything else.
    """
    order = sorted(range(len(proofs.ids)), key=proofs.times.__getitem__)
    known = [number for number in order if proofs.ids[number] in damaged]
    rest = [number for number in order if proofs.ids[number] not in damaged]
    if settings.everything or not rest:
        return rest + known
    period_s = settings.period_s * _EARLY
    due = sum(1 for number in rest if proofs.times[number] < now - period_s)
    newest = max(proofs.times)
    elapsed_s = min(period_s, now - newest) if newest != NEVER else period_s
    return rest[: max(due, round(len(rest) * elapsed_s / period_s))] + known
