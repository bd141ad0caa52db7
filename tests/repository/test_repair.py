"""Damage is found, named, and mended where a copy, a linked repository or the source has what was lost."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.credentials import Credential, make_key_file
from proxy_worker.repository.damage import load_damage
from proxy_worker.repository.fragments import decode_fragment, fragment_name
from proxy_worker.repository.index import fragments_in
from proxy_worker.repository.pack_layout import HEADER_BYTES, ChunkKind, pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.proving import ProofReport, ProofSettings, prove
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.repository.faulty_store import BadSectorStore, FaultyStore, StoppedError
from tests.repository.making import (
    CREDENTIAL,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    restore,
    text,
    write_disk,
)

pytestmark = pytest.mark.usefixtures("quick")

COPIED = noise(24, 1) + text(8)
AT_SOURCE = noise(24, 2) + text(8, 2)
LINKED = noise(24, 3)
OTHER = VmIdentity(vm_id="vm-2", name="db01")
THIRD = VmIdentity(vm_id="vm-3", name="mail01")
FOURTH = VmIdentity(vm_id="vm-4", name="files01")
FIFTH = VmIdentity(vm_id="vm-5", name="old01")
EVERYTHING = ProofSettings(everything=True)


def opened(folder: Path) -> Repository:
    return Repository.open(LocalStore(folder), CREDENTIAL)


def grouped(repository: Repository, group: str) -> Repository:
    """The same repository, as a proxy of a trust group has it."""
    assert repository.unlocked
    key = make_key_file(
        repository.unlocked, kind="read", repository_id=repository.id, generation=1, label=group, group=group
    )
    return Repository.open(repository.access.store, Credential(key=key))


def flip(folder: Path, name: str, at: int) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << (at % 8)
    path.chmod(0o644)
    path.write_bytes(content)


def packs_of(folder: Path) -> set[str]:
    return {pack_name(pack_id) for pack_id in pack_ids(LocalStore(folder))}


def offset_of(folder: Path, kind: ChunkKind, *, among: set[str] | None = None) -> tuple[str, int]:
    """The pack and middle of a chunk of this kind."""
    with opened(folder) as repository:
        access = repository.access
        for pack_id in sorted(pack_ids(access.store)):
            table, _ = read_table(access.store, access.sealer, pack_id, read_footer(access.store, pack_id))
            for chunk in table:
                if chunk.kind == kind and (among is None or pack_name(pack_id) in among):
                    return pack_name(pack_id), chunk.offset + chunk.stored_length // 2
    raise AssertionError("there is none")


def kept_ranges(folder: Path, *, described_twice: set[str]) -> dict[str, list[range]]:
    """What isn't to be hit, by pack: maps, of whose two copies one has been, and, where its fragment may be, what
    tells of the pack: its header and its end."""
    kept: dict[str, list[range]] = {}
    with opened(folder) as repository:
        store, sealer = repository.access.store, repository.access.sealer
        whole = {
            pack.pack_id
            for name in described_twice
            for pack in decode_fragment(sealer, name, store.get(name)).packs
        }
        for pack_id in pack_ids(store):
            footer = read_footer(store, pack_id)
            kept[pack_name(pack_id)] = [
                range(chunk.offset, chunk.offset + chunk.stored_length)
                for chunk in read_table(store, sealer, pack_id, footer)[0]
                if chunk.kind == ChunkKind.MAP
            ]
            if pack_id not in whole:
                kept[pack_name(pack_id)] += [range(HEADER_BYTES), range(footer.table_offset, footer.size_bytes)]
    return kept


def proven(folder: Path, *linked: Repository) -> ProofReport:
    with opened(folder) as repository:
        return prove(repository, EVERYTHING, linked=linked)


def named(report: ProofReport) -> set[str]:
    return {finding.name for finding in report.findings} | set(report.repaired.rebuilt)


def assert_sound(folder: Path, **contents: bytes) -> None:
    with opened(folder) as repository:
        collect(repository)
        prove(repository, EVERYTHING)
        assert check(repository.access).findings == ()
        assert not load_damage(repository.access.store, repository.access.sealer)
        points = {point.run: point for point in repository.points()}
        assert {run: restore(repository, points[run]) for run in contents} == contents


def test_bit_rot_in_a_hundred_places(tmp_path: Path) -> None:
    """Packs, fragments, segments, maps and a restore point's own object.

    Of what is copied, only one copy is hit; what is at its source and what is linked is hit anywhere. A point
    itself has no copy: it is named, and can only be removed.
    """
    folder, vault = tmp_path / "repository", tmp_path / "vault"
    with make_repository(folder) as owner, make_repository(vault) as other:
        with grouped(owner, "primary") as primary:
            back_up(primary, COPIED, run="copied")
        hit = packs_of(folder)
        with grouped(owner, "remote") as remote:
            back_up(remote, COPIED, run="copy", vm=OTHER)
        spared = packs_of(folder) - hit
        with grouped(owner, "primary") as primary:
            back_up(primary, AT_SOURCE, run="at-source", vm=THIRD)
            back_up(primary, LINKED, run="linked", vm=FOURTH)
            back_up(primary, LINKED, run="unreadable", vm=FIFTH)
        back_up(other, LINKED, run="elsewhere", vm=FOURTH)
    dice = random.Random(5)
    fragments = sorted(fragment_name(one) for one in fragments_in(LocalStore(folder)))
    places = [*sorted(packs_of(folder) - spared), *fragments[::2]]
    kept = kept_ranges(folder, described_twice=set(fragments[1::2]))
    planted = {offset_of(folder, kind, among=packs_of(folder) - spared) for kind in ChunkKind}
    planted.add(("points/vm-5/unreadable", 100))
    while len(planted) < 100:
        name = dice.choice(places)
        at = dice.randrange((folder / name).stat().st_size)
        if not any(at in one for one in kept.get(name, ())):
            planted.add((name, at))
    for name, at in planted:
        flip(folder, name, at)
    damaged = {name for name, _ in planted}

    assert {finding.name for finding in scrub(LocalStore(folder)).findings} == damaged
    with opened(vault) as other:
        first = proven(folder, other)

    assert named(first) >= damaged
    assert {(point.run, point.damaged) for point in first.points} == {
        ("copied", False),
        ("copy", False),
        ("at-source", True),
        ("linked", False),
        ("unreadable", True),
    }
    assert first.repaired.fetched > 0
    hurt = {use.run for finding in first.findings for use in finding.needed_by or ()}
    assert hurt == {"at-source"}
    with opened(folder) as repository:
        end_point(repository.access, vm_id=FIFTH.vm_id, run="unreadable")
        back_up(repository, AT_SOURCE, run="next", vm=THIRD)
    assert not any(point.damaged for point in proven(folder).points)
    assert_sound(folder, copied=COPIED, copy=COPIED, linked=LINKED, next=AT_SOURCE, **{"at-source": AT_SOURCE})


@pytest.mark.parametrize("bad", ["a chunk", "its end", "all of it"])
def test_a_pack_that_the_disk_can_not_read_is_damaged(tmp_path: Path, bad: str) -> None:
    with make_repository(tmp_path) as owner:
        with grouped(owner, "primary") as primary:
            back_up(primary, COPIED, run="copied")
        hit = packs_of(tmp_path)
        with grouped(owner, "remote") as remote:
            back_up(remote, COPIED, run="copy", vm=OTHER)
    name, at = offset_of(tmp_path, ChunkKind.BLOCK, among=hit)
    size = (tmp_path / name).stat().st_size
    sectors = {"a chunk": range(at, at + 1), "its end": range(size - 1, size), "all of it": range(size)}[bad]

    with Repository.open(BadSectorStore(LocalStore(tmp_path), name, sectors), CREDENTIAL) as repository:
        access, total = repository.access, len(packs_of(tmp_path))
        for report in (check(access), scrub(access.store)):
            assert [(one.name, "it can't be read" in one.problem) for one in report.findings] == [(name, True)]
            assert report.packs == total
        assert restore(repository, repository.point(VM.vm_id, "copied")) == COPIED
        assert len(reindex(access).unreadable_packs) == (bad != "a chunk")

        proof = prove(repository, EVERYTHING)
        assert (proof.packs, [one.name for one in proof.findings]) == (total, [name])
        assert proof.repaired.mended == [name]
        assert not any(point.damaged for point in proof.points)
        collect(repository)
        assert name not in packs_of(tmp_path)
    assert_sound(tmp_path, copied=COPIED, copy=COPIED)


def test_a_fragment_that_the_disk_can_not_read_is_made_anew(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, COPIED, run="first")
    name = min(fragment_name(one) for one in fragments_in(LocalStore(tmp_path)))

    with Repository.open(BadSectorStore(LocalStore(tmp_path), name, range(1)), CREDENTIAL) as repository:
        for report in (check(repository.access), scrub(repository.access.store)):
            assert [(one.name, "it can't be read" in one.problem) for one in report.findings] == [(name, True)]
        proof = prove(repository, EVERYTHING)
        assert (proof.packs, proof.findings) == (len(packs_of(tmp_path)), ())
        assert proof.repaired.rebuilt == (name,)
    assert_sound(tmp_path, first=COPIED)


@pytest.mark.parametrize("harm", ["gone", "cut", "head", "trailer"])
def test_a_pack_that_is_lost_cut_or_hit_at_its_ends(tmp_path: Path, harm: str) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, AT_SOURCE, run="first")
    name, _ = offset_of(tmp_path, ChunkKind.SEGMENT)
    path = tmp_path / name
    path.chmod(0o644)
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        flip(tmp_path, name, 3 if harm == "head" else len(whole) - 20)

    report = proven(tmp_path)

    assert name in named(report)
    # Where only the ends are hit, every chunk still opens, and is saved.
    assert [point.damaged for point in report.points] == [harm in {"gone", "cut"}]
    with opened(tmp_path) as repository:
        back_up(repository, AT_SOURCE, run="second")
    proven(tmp_path)
    assert_sound(tmp_path, first=AT_SOURCE, second=AT_SOURCE)


def test_what_nobody_has_any_more_stays_named(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, noise(6), run="first")
    name, at = offset_of(tmp_path, ChunkKind.BLOCK)
    flip(tmp_path, name, at)

    for _ in range(2):
        report = proven(tmp_path)
        [finding] = report.findings
        assert (finding.name, [use.run for use in finding.needed_by or ()]) == (name, ["first"])
        with opened(tmp_path) as repository:
            collect(repository)  # which harms nothing, and keeps the damaged copy

    with opened(tmp_path) as repository:
        back_up(repository, noise(6, 2), run="second")
        assert restore(repository, repository.point("vm-1", "second")) == noise(6, 2)
    assert {(point.run, point.damaged) for point in proven(tmp_path).points} == {("first", True), ("second", False)}


def test_a_pack_that_somebody_puts_back_is_no_longer_damaged(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, noise(6), run="first")
    name, at = offset_of(tmp_path, ChunkKind.BLOCK)
    whole = (tmp_path / name).read_bytes()
    flip(tmp_path, name, at)
    assert proven(tmp_path).findings

    (tmp_path / name).write_bytes(whole)

    assert proven(tmp_path).findings == ()
    assert_sound(tmp_path, first=noise(6))


def test_a_writer_names_nothing_of_a_damaged_pack(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        point = back_up(repository, noise(6), run="first")
    name, at = offset_of(tmp_path, ChunkKind.BLOCK)
    flip(tmp_path, name, at)
    proven(tmp_path)

    with (
        opened(tmp_path) as repository,
        repository.begin_disk(vm_id=VM.vm_id, run="second", disk_key="scsi0:0", fence=1) as writer,
    ):
        parent = writer.parent(point, "scsi0:0")
        assert parent
        assert len(writer.lost) == 1
        assert not any(writer.has(block_id) for block_id in writer.lost)
        assert writer.misses(parent.segments)


def test_stopped_at_any_operation_nothing_is_lost(tmp_path: Path) -> None:
    """Before each second one, after each other: both have the same outcome but for one object."""
    start, vault = tmp_path / "start", tmp_path / "vault"
    with make_repository(start) as repository, make_repository(vault) as other:
        back_up(repository, noise(4), run="first")
        back_up(other, noise(4), run="first")
    flip(start, *offset_of(start, ChunkKind.BLOCK))
    flip(start, next(start.glob("index/*")).relative_to(start).as_posix(), 40)

    def prove_through(store: FaultyStore) -> None:
        with Repository.open(store, CREDENTIAL) as repository, opened(vault) as other:
            prove(repository, EVERYTHING, linked=[other])
            collect(repository)

    counting = FaultyStore(LocalStore(Path(shutil.copytree(start, tmp_path / "whole"))), only_writes=True)
    prove_through(counting)
    for number in range(counting.operations):
        folder = Path(shutil.copytree(start, tmp_path / f"{number}"))
        with contextlib.suppress(StoppedError):
            prove_through(FaultyStore(LocalStore(folder), stop_at=number, after=number % 2 == 1, only_writes=True))
        with opened(folder) as repository, opened(vault) as other:
            at_work = write_disk(repository, noise(4), run="second")
            prove(repository, EVERYTHING, linked=[other])
            collect(repository)
            commit(repository, at_work, run="second")
        assert_sound(folder, first=noise(4), second=noise(4))
        shutil.rmtree(folder)
