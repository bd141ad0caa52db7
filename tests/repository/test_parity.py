"""Parity of packs: what rots is mended up to the bound, and named beyond it."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path
from typing import cast

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.mending import MendedStore
from proxy_worker.repository.pack_layout import PackLayoutError, pack_name
from proxy_worker.repository.parity import Parity, ShareCode, UnmendableError
from proxy_worker.repository.parity_object import GuardedObject, ParityWriter, load_parity, parity_name
from proxy_worker.repository.parity_upkeep import has_parity, make_parity
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store import ObjectLockedError, StoreWriter
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.repository.collecting import NOW, packs
from tests.repository.faulty_store import BadSectorStore
from tests.repository.making import BLOCK, CHEAP, CREDENTIAL, PASSPHRASE, VM, back_up, noise, restore

SMALL = Parity(parity_shares=2, data_shares=4, share_bytes=64)
PACK = bytes(range(16))
EVERYTHING = ProofSettings(everything=True)


def stored(folder: Path, content: bytes, parity: Parity = SMALL) -> LocalStore:
    """A store with some bytes in the place of a pack, and their parity."""
    store = LocalStore(folder)
    store.prepare()
    assert store.put_if_absent(pack_name(PACK), [content])
    out = store.create(parity_name(PACK))
    writer = ParityWriter(out, PACK, parity)
    for at in range(0, len(content), 100):
        writer.write(content[at : at + 100])
    writer.end()
    assert out.finish()
    return store


@st.composite
def rot(draw: st.DrawFn) -> tuple[bytes, dict[int, set[int]]]:
    """Some content, and for each group the shares (data first) to be damaged, no more than can be mended."""
    content = draw(st.binary(min_size=1, max_size=900))
    groups = SMALL.group_count(len(content))
    shares = st.sets(st.integers(0, 5), max_size=SMALL.parity_shares)
    return content, {group: draw(shares) for group in range(groups)}


def damage(path: Path, at: int, bits: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ bits]))


@settings(max_examples=60, deadline=None)
@given(rot(), st.integers(0, 63), st.integers(1, 255))
def test_what_rots_up_to_the_bound_is_mended(
    tmp_path_factory: pytest.TempPathFactory, rotten: tuple[bytes, dict[int, set[int]]], within: int, bits: int
) -> None:
    content, bad = rotten
    folder = tmp_path_factory.mktemp("rot")
    store = stored(folder, content)
    before = 24
    for group, shares in bad.items():
        length = SMALL.group_length(len(content), group)
        share = SMALL.share_length(length)
        for number in shares:
            place = within % share
            if number < SMALL.data_shares:
                if number * share + place < length:
                    damage(folder / pack_name(PACK), group * SMALL.group_bytes + number * share + place, bits)
            else:
                damage(folder / parity_name(PACK), before + (number - SMALL.data_shares) * share + place, bits)
        before += SMALL.parity_shares * share

    mended = MendedStore(store)

    assert mended.get(pack_name(PACK)) == content
    assert mended.get(pack_name(PACK), 70, 300) == content[70:370]


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=256), st.sets(st.integers(0, 5), min_size=3, max_size=6))
def test_beyond_the_bound_nothing_is_made_up(content: bytes, lost: set[int]) -> None:
    code = ShareCode(SMALL)
    shares = [None if number in lost else bytes(one) for number, one in enumerate(code.shares_of(content))]

    with pytest.raises(UnmendableError):
        code.mended(len(content), shares)


def test_parity_is_what_the_format_says() -> None:
    # The format's own words: GF(2^8) of 0x11D, a Cauchy matrix with 1 / (row ^ column).
    exponents, value = [], 1
    for _ in range(255):
        exponents.append(value)
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    logarithms = {power: exponent for exponent, power in enumerate(exponents)}

    def times(one: int, other: int) -> int:
        return exponents[(logarithms[one] + logarithms[other]) % 255] if one and other else 0

    parity = Parity(parity_shares=3)
    data = random.Random(1).randbytes(parity.data_shares * 32)
    shares = ShareCode(parity).shares_of(data)
    for row in range(3):
        expected = bytearray(32)
        for column in range(28):
            factor = exponents[-logarithms[(28 + row) ^ column] % 255]
            for at in range(32):
                expected[at] ^= times(factor, data[column * 32 + at])
        assert shares[28 + row] == expected


def make(folder: Path, shares: int = 2) -> Repository:
    store = LocalStore(folder)
    store.prepare()
    return Repository.create(
        store, passphrase=PASSPHRASE, block_size=BLOCK, blocks_per_segment=4, kdf_cost=CHEAP,
        parity=Parity(parity_shares=shares),
    )  # fmt: skip


def share_of(folder: Path, name: str) -> int:
    return Parity(parity_shares=2).share_length((folder / name).stat().st_size)


def test_a_damaged_pack_is_mended_moved_and_collected(tmp_path: Path) -> None:
    content = noise(6)
    with make(tmp_path) as repository:
        point = back_up(repository, content, run="r1")
        damaged = sorted(packs(repository))[0]
        name = pack_name(damaged)
        share = share_of(tmp_path, name)
        damage(tmp_path / name, 0)
        damage(tmp_path / name, 5 * share + 7)
        damage(tmp_path / name, 5 * share + 90)

        with Repository.open(LocalStore(tmp_path), CREDENTIAL) as reading:
            assert restore(reading, point) == content, "a reader mends for itself"
        report = prove(repository, EVERYTHING)

        assert report.repaired.mended == [name]
        assert not any(one.damaged for one in report.points)
        collect(repository, NOW)
        assert damaged not in packs(repository)
        assert not (tmp_path / parity_name(damaged)).exists()
        assert restore(repository, point) == content
        assert check(repository.access).findings == ()


def test_damage_beyond_the_bound_is_named_with_whom_it_hurts(tmp_path: Path) -> None:
    with make(tmp_path, shares=1) as repository:
        back_up(repository, noise(3), run="r1")
        (damaged, *_) = sorted(packs(repository))
        share = share_of(tmp_path, pack_name(damaged))
        for number in (3, 9):
            damage(tmp_path / pack_name(damaged), number * share + 1)

        report = prove(repository, EVERYTHING)

        assert [finding.name for finding in report.findings if finding.kind == "pack"] == [pack_name(damaged)]
        assert any(one.damaged for one in report.points)


def test_a_sector_that_cannot_be_read_is_mended(tmp_path: Path) -> None:
    content = noise(3)
    with make(tmp_path) as repository:
        point = back_up(repository, content, run="r1")
        (name, *_) = sorted(map(pack_name, packs(repository)))
    bad = BadSectorStore(LocalStore(tmp_path), name, range(4096, 8192))

    with Repository.open(bad, CREDENTIAL) as reading:
        assert restore(reading, point) == content


def test_parity_that_is_lost_or_damaged_is_made_anew(tmp_path: Path) -> None:
    with make(tmp_path) as repository:
        back_up(repository, noise(6), run="r1")
        first, second, *_ = sorted(packs(repository))
        whole = {pack: (tmp_path / parity_name(pack)).read_bytes() for pack in (first, second)}
        (tmp_path / parity_name(first)).unlink()
        damage(tmp_path / parity_name(second), 100)
        for found in (check(repository.access), scrub(repository.access.store)):
            (finding,) = found.findings
            assert (finding.kind, finding.name) == ("parity", parity_name(second))
            assert re.fullmatch(r"the share at \d+ has a wrong checksum", finding.problem)
            assert "packs without parity, which a proof makes: 1" in found.notes

        report = prove(repository, EVERYTHING)

        assert report.made_parity == 2
        assert {pack: (tmp_path / parity_name(pack)).read_bytes() for pack in whole} == whole
        assert (check(repository.access).findings, scrub(repository.access.store).findings) == ((), ())


def test_a_proof_that_makes_the_parity_of_a_pack_just_written_is_in_nobodys_way(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.prepare()
    out = GuardedObject(store, PACK, SMALL)
    out.write(noise(1))

    class Proof:
        """Comes when the pack has its name, and its parity has none."""

        def finish(self) -> bool:
            named = pack.finish()
            assert make_parity(store, PACK, SMALL)
            return named

    pack, out._pack = out._pack, cast("StoreWriter", Proof())

    assert out.finish()
    assert has_parity(store, PACK)


def test_a_pack_of_another_size_is_to_blame_and_not_its_parity(tmp_path: Path) -> None:
    with make(tmp_path) as repository:
        point = back_up(repository, noise(6), run="r1")
        (damaged, *_) = sorted(packs(repository))
        path = tmp_path / pack_name(damaged)
        whole = path.read_bytes()
        for other in (whole + b"more", whole[:10]):
            path.write_bytes(other)
            for report in (check(repository.access), scrub(repository.access.store)):
                assert [finding.name for finding in report.findings] == [pack_name(damaged)]

        path.write_bytes(whole + b"more")
        assert prove(repository, EVERYTHING).repaired.mended == [pack_name(damaged)]
        assert restore(repository, point) == noise(6)


def test_parity_of_another_size_is_to_blame_where_its_pack_is_whole(tmp_path: Path) -> None:
    with make(tmp_path) as repository:
        back_up(repository, noise(6), run="r1")
        (pack, *_) = sorted(packs(repository))
        name = parity_name(pack)
        (tmp_path / name).unlink()
        out = repository.access.store.create(name)
        writer = ParityWriter(out, pack, Parity(parity_shares=2))
        writer.write((tmp_path / pack_name(pack)).read_bytes()[:-1])
        writer.end()
        assert out.finish()

        for report in (check(repository.access), scrub(repository.access.store)):
            assert [finding.name for finding in report.findings] == [name]


def crafted(pack_bytes: int, share_bytes: int, data_shares: int, parity_shares: int) -> bytes:
    """Parity that anybody can make who may write: its checksum is right, and it says what they like."""
    head = b"PFPARI\0\1" + PACK
    sums = bytes(16 * (data_shares + parity_shares)) if data_shares * share_bytes else b""
    plain = struct.pack("<IIBBxx", pack_bytes, share_bytes, data_shares, parity_shares)
    return head + sums + plain + xxhash.xxh3_128_digest(head + sums + plain) + b"PFPARI\0\2"


@pytest.mark.parametrize(
    "said",
    [
        (1000, 64, 0, 2), (1000, 0, 28, 2), (1000, 64, 28, 0), (1000, 64, 200, 200), (1000, 60, 28, 2),
        (1 << 29, 1 << 26, 28, 1), (1000, 1 << 30, 28, 1), ((1 << 32) - 1, 64, 28, 1), (999, 64, 28, 2),
        (1000, 64, 28, 2),
    ],
)  # fmt: skip
def test_parity_that_says_what_cannot_be_is_none(tmp_path: Path, said: tuple[int, int, int, int]) -> None:
    store = LocalStore(tmp_path)
    store.prepare()
    content = random.Random(1).randbytes(1000)
    store.put_if_absent(pack_name(PACK), [content])
    store.put_if_absent(parity_name(PACK), [crafted(*said)])

    with pytest.raises(PackLayoutError):
        load_parity(store, PACK)
    assert not has_parity(store, PACK)
    assert MendedStore(store).get(pack_name(PACK), 10, 20) == content[10:30]


def test_a_pack_that_was_cut_short_is_mended(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(900)
    store = stored(tmp_path, content)
    os.truncate(tmp_path / pack_name(PACK), 900 - 70)

    assert MendedStore(store).get(pack_name(PACK)) == content
    assert not has_parity(store, PACK), "of what there is of the pack"


def test_a_pack_that_must_stay_keeps_its_parity(tmp_path: Path) -> None:
    class Holding(LocalStore):
        """Lets go of no pack, and of all else."""

        def delete(self, name: str) -> None:
            if name.startswith("packs/"):
                raise ObjectLockedError(f"can't delete {name}", why="its term isn't over")
            super().delete(name)

    with make(tmp_path) as repository:
        back_up(repository, noise(2), run="r1")
    with Repository.open(Holding(tmp_path), CREDENTIAL) as repository:
        end_point(repository.access, vm_id=VM.vm_id, run="r1")
        collect(repository, NOW)
        assert packs(repository)
        assert len(list(repository.access.store.list("parity/"))) == len(packs(repository))


def test_parity_goes_with_its_pack_and_costs_what_it_should(tmp_path: Path) -> None:
    with make(tmp_path) as repository:
        back_up(repository, noise(6), run="r1")
        for pack in packs(repository):
            size, parity = ((tmp_path / name).stat().st_size for name in (pack_name(pack), parity_name(pack)))
            assert parity <= size * 2 / 28 + 2 * 16 + 30 * 16 + 100
        gone = bytes(16)
        (tmp_path / parity_name(gone)).parent.mkdir(exist_ok=True)
        (tmp_path / parity_name(gone)).write_bytes(b"of a pack that a collector has taken from its writer")
        collect(repository, NOW)
        assert len(list(repository.access.store.list("parity/"))) == len(packs(repository))
        end_point(repository.access, vm_id=VM.vm_id, run="r1")
        collect(repository, NOW)
        assert list(repository.access.store.list("parity/")) == []


def test_versions_that_do_not_know_parity_refuse_such_a_repository(tmp_path: Path) -> None:
    with make(tmp_path) as repository:
        config = repository.access.config
    assert (config.version, config.parity) == (2, Parity(parity_shares=2))
    assert b'"version": 2' in msgspec.json.format(LocalStore(tmp_path).get("config/1"), indent=2)
