"""Check names what is damaged and who needs it; reindex mends what can be mended."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.findings import Finding, Use
from proxy_worker.repository.keyring import ZERO_ID
from proxy_worker.repository.reindex import reindex
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from tests.repository.faulty_store import BadSectorStore
from tests.repository.making import BLOCK, KEY, back_up, make_repository, noise, restore, text

WEB = VmIdentity(vm_id="vm-1", name="web01")
DB = VmIdentity(vm_id="vm-2", name="db01")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two points of web01 that share blocks, one of db01 that shares none."""
    repository = make_repository(tmp_path)
    back_up(repository, noise(2, 1), run="monday", vm=WEB)
    back_up(repository, noise(2, 1) + text(1), run="tuesday", vm=WEB)
    back_up(repository, noise(2, 2), run="monday", vm=DB)
    return repository


def pack_of(repository: Repository, block: bytes) -> str:
    repository.access.index.refresh()
    [location] = repository.access.index.find(repository.access.keyring.block_id(block))
    return location.pack.name


def damage(tmp_path: Path, name: str, position: int) -> None:
    path = tmp_path / name
    altered = bytearray(path.read_bytes())
    altered[position] ^= 1
    path.write_bytes(altered)


def test_a_whole_repository_has_no_findings(repository: Repository) -> None:
    report = check(repository.access)

    assert (report.findings, report.notes, report.points) == ((), (), 3)
    assert report.packs > 2
    assert report.read_bytes > 4 * BLOCK


def test_a_damaged_chunk_names_the_pack_and_both_points_that_share_it(
    repository: Repository, tmp_path: Path
) -> None:
    name = pack_of(repository, noise(1, 1))
    damage(tmp_path, name, 1000)

    assert check(repository.access).findings == (
        Finding(
            "pack",
            name,
            "the chunk at 24 has a wrong checksum",
            (Use("web01", "monday", KEY), Use("web01", "tuesday", KEY)),
        ),
    )


def test_damage_that_matches_its_checksum_is_found_with_a_key(repository: Repository, tmp_path: Path) -> None:
    """As somebody would do it who wants the scrub to pass: the footer is in clear."""
    name = pack_of(repository, noise(1, 2))
    forge_chunk(tmp_path / name)

    assert scrub(repository.access.store).findings == ()
    [finding] = check(repository.access).findings
    assert (finding.name, finding.problem) == (name, "the chunk at 24 can't be opened")
    assert finding.needed_by == (Use("db01", "monday", KEY),)


def forge_chunk(path: Path) -> None:
    """Alter a pack's first chunk, and put the checksums right."""
    data = bytearray(path.read_bytes())
    count, _, _, footer = struct.unpack_from("<IIII", data, len(data) - 56)
    offset, length = struct.unpack_from("<II", data, footer)
    data[offset + 5] ^= 1
    data[footer + 8 : footer + 24] = xxhash.xxh3_128_digest(bytes(data[offset : offset + length]))
    entries, start = bytes(data[footer : footer + 24 * count]), bytes(data[-56:-24])
    data[-24:-8] = xxhash.xxh3_128_digest(bytes(data[:24]) + entries + start)
    path.write_bytes(data)


def test_a_missing_pack_is_named(repository: Repository, tmp_path: Path) -> None:
    name = pack_of(repository, noise(1, 2))
    (tmp_path / name).unlink()

    [finding] = check(repository.access).findings
    assert (finding.kind, finding.name) == ("missing pack", name)
    assert finding.needed_by == (Use("db01", "monday", KEY),)


def test_a_damaged_point_is_named_with_its_vm(repository: Repository, tmp_path: Path) -> None:
    damage(tmp_path, "points/vm-1/monday", 60)

    [finding] = check(repository.access).findings
    assert (finding.kind, finding.name) == ("point", "points/vm-1/monday")
    assert finding.needed_by == (Use("web01", "monday", ""),)
    assert [point.run for point in repository.points("vm-1")] == ["tuesday"]


@pytest.mark.parametrize("name", ["points/vm-1/monday", "config/1"])
def test_an_object_on_a_bad_sector_is_a_finding_and_the_rest_is_looked_at(tmp_path: Path, name: str) -> None:
    made = make_repository(tmp_path)
    back_up(made, noise(2, 1), run="monday", vm=WEB)
    back_up(made, noise(2, 2), run="tuesday", vm=WEB)
    damage(tmp_path, pack_of(made, noise(2, 2)[:BLOCK]), 30)
    access = replace(made.access, store=BadSectorStore(made.access.store, name, range(1 << 20)))

    for report in (check(access), scrub(access.store)):
        found = {finding.name: finding.problem for finding in report.findings}
        assert "Input/output error" in found.pop(name)
        assert [other.split("/")[0] for other in found] == ["packs"]


def test_a_damaged_map_hurts_its_point_alone(repository: Repository, tmp_path: Path) -> None:
    repository.access.index.refresh()
    first, second = repository.access.index.find(repository.point("vm-1", "tuesday").disks[0].map_id)
    damage(tmp_path, first.pack.name, first.offset + 40)
    assert all(finding.needed_by == () for finding in check(repository.access).findings)
    damage(tmp_path, second.pack.name, second.offset + 40)

    [finding] = check(repository.access).findings
    assert finding.name == first.pack.name
    assert finding.needed_by == (Use("web01", "tuesday", KEY),)


def test_a_damaged_segment_hurts_all_that_share_it(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        point = back_up(repository, noise(4, 1), run="monday")
        back_up(repository, noise(4, 1) + text(2), run="tuesday")
        with repository.reader(point) as reader:
            [segment] = reader.map(KEY).segments
        assert segment != ZERO_ID
        [location] = repository.access.index.find(segment)
        damage(tmp_path, location.pack.name, location.offset)

        [finding] = check(repository.access).findings
        assert finding.needed_by == (Use("web01", "monday", KEY), Use("web01", "tuesday", KEY))


@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
def test_a_fragment_that_is_gone_is_rebuilt_from_the_packs(
    repository: Repository, tmp_path: Path, lost: bool
) -> None:
    names = sorted(repository.access.store.list("index/"))
    for name in names:
        if lost:
            (tmp_path / name).unlink()
        else:
            damage(tmp_path, name, 50)

    findings = check(repository.access).findings
    assert {finding.kind for finding in findings} == {"index fragment"}
    assert {finding.name for finding in findings} == ({"index/"} if lost else set(names))
    assert {use.vm for finding in findings for use in finding.needed_by or ()} == {"web01", "db01"}

    report = reindex(repository.access)
    assert report.packs > 2
    assert report.dropped == (() if lost else tuple(names))
    assert check(repository.access).findings == ()
    assert restore(repository, repository.point("vm-2", "monday")) == noise(2, 2)
    assert reindex(repository.access).packs == 0


def test_another_copy_stands_in_for_a_damaged_one(repository: Repository, tmp_path: Path) -> None:
    """Two writers may store a block twice; then one copy may go bad and nothing is lost."""
    first = repository.begin_disk(vm_id="vm-3", run="a", disk_key=KEY, fence=1)
    second = repository.begin_disk(vm_id="vm-3", run="b", disk_key=KEY, fence=1)
    block = noise(1, 77)
    for writer in (first, second):
        writer.store_block(writer.identify(block), *writer.compress(block), len(block))
        writer.wait_durable(writer.mark())
        writer.abort()
    repository.access.index.refresh()
    block_id = repository.access.keyring.block_id(block)
    one, two = repository.access.index.find(block_id)
    damage(tmp_path, one.pack.name, one.offset + 9)
    (tmp_path / two.pack.name).rename(tmp_path / "aside")

    point = back_up(repository, block, run="c", vm=WEB)
    (tmp_path / "aside").rename(tmp_path / two.pack.name)
    assert restore(repository, point) == block


def test_damage_that_nobody_needs_is_reported_as_that(repository: Repository, tmp_path: Path) -> None:
    with repository.begin_disk(vm_id="vm-3", run="never", disk_key=KEY, fence=1) as writer:
        block = noise(1, 5)
        writer.store_block(writer.identify(block), *writer.compress(block), len(block))
        writer.wait_durable(writer.mark())
    name = pack_of(repository, block)
    damage(tmp_path, name, 200)

    [finding] = check(repository.access).findings
    assert finding.needed_by == ()
    assert str(finding).endswith("no restore point needs what is lost")


def test_packs_without_a_fragment_are_leftovers(repository: Repository, tmp_path: Path) -> None:
    for name in repository.access.store.list("points/"):
        repository.access.store.delete(name)
    for name in repository.access.store.list("index/"):
        repository.access.store.delete(name)

    report = check(repository.access)
    assert report.findings == ()
    assert "packs without an index fragment" in report.notes[0]
