"""Proof by age: everything is read often enough, oldest first, in pieces that another goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from proxy_worker.contract.errors import CancelledError
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.damage import load_damage
from proxy_worker.repository.pack_layout import FOOTER_ENTRY, footer_and_trailer, pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer
from proxy_worker.repository.proofs import NEVER, Proofs, load_proofs, save_proofs
from proxy_worker.repository.proving import ProofReport, ProofSettings, prove
from proxy_worker.repository.repository import Repository
from tests.repository.faulty_store import BadSectorStore
from tests.repository.making import BLOCK, CREDENTIAL, back_up, make_repository, noise, text

DAY_S = 24 * 3600
START = 1_800_000_000


class Clock:
    """The time of proofs, in whole days since the start."""

    def __init__(self) -> None:
        self.day = 0.0

    def time(self) -> float:
        return START + self.day * DAY_S

    def __call__(self) -> float:
        return self.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("proxy_worker.repository.proving.time.time", clock)
    return clock


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr("os.fsync", lambda _: None)
    repository = make_repository(tmp_path / "repository")
    back_up(repository, noise(30), run="first")
    return repository


def ages(repository: Repository, clock: Clock) -> list[float]:
    """How long ago each pack and fragment was proven, in days."""
    proofs = load_proofs(repository.access)
    return [(clock.time() - proven_at) / DAY_S for proven_at in proofs.times]


def stopper(after: int) -> Callable[[], None]:
    """Ends what asks it so many times."""
    asked = 0

    def go_on() -> None:
        nonlocal asked
        asked += 1
        if asked > after:
            raise CancelledError("proof", why="it was told to stop")

    return go_on


def test_everything_is_read_within_the_period_and_evenly(repository: Repository, clock: Clock) -> None:
    first = prove(repository)
    total = first.packs + first.fragments
    assert total >= 15
    read = []
    for day in range(1, 91):
        clock.day = day
        report = prove(repository, ProofSettings(sampled_points=0))
        read.append(report.packs + report.fragments)
        assert report.overdue == 0
        assert max(ages(repository, clock)) <= 30
    assert max(read[30:]) <= 3
    assert 3 * total <= sum(read) <= 6 * total


def test_what_was_never_read_comes_first(repository: Repository, clock: Clock) -> None:
    prove(repository)
    before = set(pack_ids(repository.access.store))
    clock.day = 1
    back_up(repository, text(3), run="second")

    prove(repository)

    proofs = load_proofs(repository.access)
    assert {proofs.proven_at(new) for new in set(pack_ids(repository.access.store)) - before} == {int(clock())}


def test_a_piece_that_was_stopped_is_gone_on_from(repository: Repository, clock: Clock) -> None:
    with pytest.raises(CancelledError):
        prove(repository, go_on=stopper(3))
    done = sum(1 for proven_at in load_proofs(repository.access).times if proven_at != NEVER)
    assert done == 3

    clock.day = 1
    report = prove(repository)

    assert report.overdue == 0
    assert sorted(set(ages(repository, clock))) == [0.0, 1.0]


def test_packs_that_are_known_to_be_damaged_keep_a_piece_from_nothing_else(
    repository: Repository, clock: Clock, tmp_path: Path
) -> None:
    access = repository.access
    for pack_id in sorted(pack_ids(access.store))[:3]:
        path = tmp_path / "repository" / pack_name(pack_id)
        path.chmod(0o644)
        path.write_bytes(bytes(100) + path.read_bytes()[100:])
    prove(repository)
    damaged = load_damage(access.store, access.sealer).packs
    assert len(damaged) == 3
    prove(repository)  # what repair has written
    clock.day = 40
    sound = [unit for unit in load_proofs(access).ids if unit not in damaged]

    with pytest.raises(CancelledError):
        prove(repository, go_on=stopper(len(sound)))

    proofs = load_proofs(access)
    assert {proofs.proven_at(unit) for unit in sound} == {int(clock())}
    assert {proofs.proven_at(unit) for unit in damaged} == {NEVER}


def test_a_piece_has_an_end(repository: Repository) -> None:
    report = prove(repository, ProofSettings(most_s=0.0))

    assert (report.packs, report.fragments) == (0, 0)
    assert report.overdue == len(load_proofs(repository.access).ids)


def test_a_point_is_proven_when_all_that_it_needs_is(repository: Repository, clock: Clock) -> None:
    def proven(report: ProofReport) -> dict[str, float | None]:
        return {
            point.run: None if point.proven_at is None else (point.proven_at - START) / DAY_S
            for point in report.points
        }

    with pytest.raises(CancelledError):
        prove(repository, go_on=stopper(3))
    assert proven(prove(repository, ProofSettings(most_s=0.0))) == {"first": None}
    assert proven(prove(repository)) == {"first": 0}
    clock.day = 2
    back_up(repository, noise(30) + text(2), run="second")
    assert proven(prove(repository, ProofSettings(most_s=0.0))) == {"first": 0, "second": None}
    assert proven(prove(repository))["second"] == 0
    assert proven(prove(repository, ProofSettings(everything=True))) == {"first": 2, "second": 2}


def test_samples_are_restored_in_turn(repository: Repository, clock: Clock) -> None:
    for number in range(3):
        back_up(repository, text(2, number), run=f"another-{number}")
    sampled: list[set[str]] = []
    for day in range(1, 5):
        clock.day = day
        report = prove(repository, ProofSettings(sampled_points=1))
        assert report.sampled == 1
        sampled.append({point.run for point in report.points if point.sampled_at == int(clock())})
    assert all(len(runs) == 1 for runs in sampled)
    assert len(set.union(*sampled)) == 4


def test_a_sample_finds_what_checksums_can_not(repository: Repository, tmp_path: Path) -> None:
    """Whoever alters the storage on purpose puts the checksums right as well."""
    store = repository.access.store
    for pack_id in list(pack_ids(store)):
        content, footer = bytearray(store.get(pack_name(pack_id))), read_footer(store, pack_id)
        table = bytes(content[footer.table_offset : footer.table_offset + footer.table_length])
        entries = b""
        for offset, length, _ in footer:
            content[offset] ^= length > BLOCK
            checksum = xxhash.xxh3_128_digest(content[offset : offset + length])
            entries += FOOTER_ENTRY.pack(offset, length, checksum)
        body = bytes(content[: footer.table_offset]) + table
        path = tmp_path / "repository" / pack_name(pack_id)
        path.chmod(0o644)
        path.write_bytes(body + footer_and_trailer(pack_id, entries, footer.table_offset, table))

    report = prove(repository)

    assert [point.damaged for point in report.points] == [True]


def test_a_write_key_proves_checksums_and_restores_no_samples(repository: Repository) -> None:
    assert repository.unlocked
    key = make_key_file(
        repository.unlocked, kind="write", repository_id=repository.id, generation=1, label="p", group="primary"
    )
    with Repository.open(repository.access.store, Credential(key=key)) as proxy:
        report = prove(proxy)
    assert report.packs > 0
    assert report.sampled == 0
    assert report.findings == ()


def test_a_point_on_a_bad_sector_is_a_finding_and_the_proof_goes_on(repository: Repository) -> None:
    back_up(repository, noise(30, 2), run="second")
    store = BadSectorStore(repository.access.store, "points/vm-1/first", range(1 << 20))

    with Repository.open(store, CREDENTIAL) as damaged:
        report = prove(damaged, ProofSettings(everything=True))

    assert {finding.name: finding.problem for finding in report.findings} == {
        "points/vm-1/first": "it can't be read: Input/output error"
    }
    assert {point.run: point.damaged for point in report.points} == {"first": True, "second": False}


def test_a_state_that_is_damaged_costs_another_reading(repository: Repository, tmp_path: Path) -> None:
    total = prove(repository).packs
    [state] = (tmp_path / "repository" / "proofs").iterdir()
    state.chmod(0o644)
    state.write_bytes(state.read_bytes()[:-1])

    assert prove(repository).packs == total


def test_two_at_once_both_count(repository: Repository) -> None:
    units = sorted(pack_ids(repository.access.store))
    one, other = Proofs(units), Proofs(units)
    one.times[0], other.times[1] = 100, 200
    save_proofs(repository.access, one, now=300)
    save_proofs(repository.access, other, now=300)

    found = load_proofs(repository.access)
    assert list(found.times[:2]) == [100, 200]
    assert len(list(repository.access.store.list("proofs/"))) == 1
