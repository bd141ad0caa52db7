"""Every byte of every kind of object is guarded: no flip and no cut goes unnoticed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from proxy_worker.contract.errors import DamageError, ProxyfleetError
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.config import decode_config
from proxy_worker.repository.credentials import Credential, load_credential, make_key_file, save_key_file
from proxy_worker.repository.errors import RepositoryDamageError, RepositoryVersionError
from proxy_worker.repository.fragments import decode_fragment
from proxy_worker.repository.pack_layout import Footer
from proxy_worker.repository.pack_scan import pack_ids, scan_pack
from proxy_worker.repository.packs import read_table
from proxy_worker.repository.passphrases import unlock
from proxy_worker.repository.points import StoredDisk, decode_outcome
from proxy_worker.repository.proving import ProofSettings, prove
from proxy_worker.repository.registration import condemned_packs, encode_condemned
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.writer import open_sealed
from tests.repository.making import CREDENTIAL, PASSPHRASE, back_up, make_repository, restore, text, write_disk

CONTENT = text(2)
FLIPS = (0x01, 0x20)
"""The lowest bit, and the case of a letter."""


@dataclass(frozen=True)
class Specimen:
    """A small repository with one point; `probe` says whether an object's content is accepted."""

    repository: Repository
    folder: Path

    def name_of(self, prefix: str) -> str:
        [name] = self.repository.access.store.list(prefix)
        return name

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    folder = tmp_path_factory.mktemp("specimen")
    repository = make_repository(folder)
    back_up(repository, CONTENT, run="run-1")
    store, sealer = repository.access.store, repository.access.sealer
    store.put_if_absent("condemned/1", [encode_condemned(sealer, 1, [bytes(16)])])
    return Specimen(repository, folder)


def read_config(specimen: Specimen, name: str) -> None:
    decode_config((specimen.folder / name).read_bytes(), name, "here")


def read_keys(specimen: Specimen, name: str) -> None:
    unlock(LocalStore(specimen.folder), PASSPHRASE, specimen.repository.id)


def read_fragment(specimen: Specimen, name: str) -> None:
    decode_fragment(specimen.repository.access.sealer, name, (specimen.folder / name).read_bytes())


def read_point(specimen: Specimen, name: str) -> None:
    decode_outcome(specimen.repository.access.sealer, name, (specimen.folder / name).read_bytes())


def read_condemned(specimen: Specimen, name: str) -> None:
    condemned_packs(specimen.repository.access.store, specimen.repository.access.sealer)


def read_pack(specimen: Specimen, name: str) -> None:
    """Chunks by their checksums alone, as a scrub does."""
    access = specimen.repository.access

    def read_the_table(pack_id: bytes, footer: Footer) -> None:
        read_table(access.store, access.sealer, pack_id, footer)

    result = scan_pack(access.store, bytes.fromhex(name[-32:]), read_the_table, bytearray(1 << 16))
    assert result is not None
    if result.summary:
        raise RepositoryDamageError(name, why=result.summary)


KINDS: dict[str, Callable[[Specimen, str], None]] = {
    "config/": read_config,
    "keys/": read_keys,
    "index/": read_fragment,
    "points/": read_point,
    "condemned/": read_condemned,
    "packs/": read_pack,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_flip_of_any_byte_is_detected(specimen: Specimen, kind: str) -> None:
    name, read = specimen.name_of(kind), KINDS[kind]
    whole = (specimen.folder / name).read_bytes()
    read(specimen, name)
    try:
        for position in range(len(whole)):
            for flip in FLIPS if kind in {"config/", "keys/"} else FLIPS[:1]:
                altered = bytearray(whole)
                altered[position] ^= flip
                specimen.put(name, bytes(altered))
                with pytest.raises(ProxyfleetError):
                    read(specimen, name)
    finally:
        specimen.put(name, whole)
    read(specimen, name)


def test_a_cut_at_any_length_is_detected(specimen: Specimen, kind: str) -> None:
    name, read = specimen.name_of(kind), KINDS[kind]
    whole = (specimen.folder / name).read_bytes()
    try:
        for length in range(len(whole)):
            specimen.put(name, whole[:length])
            with pytest.raises(ProxyfleetError):
                read(specimen, name)
        specimen.put(name, whole + b"\0")
        with pytest.raises(ProxyfleetError):
            read(specimen, name)
    finally:
        specimen.put(name, whole)


def test_flips_and_cuts_of_a_key_file_are_detected(specimen: Specimen, tmp_path: Path) -> None:
    assert specimen.repository.unlocked
    key = make_key_file(
        specimen.repository.unlocked,
        kind="write",
        repository_id=specimen.repository.id,
        generation=1,
        label="proxy-1",
        group="primary",
    )
    path = tmp_path / "write.key"
    save_key_file(key, path)
    whole = path.read_bytes()
    read_back = load_credential(key_file=path).key
    assert read_back is not None
    assert read_back.keyring() == key.keyring()

    for position in range(len(whole)):
        for flip in FLIPS:
            altered = bytearray(whole)
            altered[position] ^= flip
            path.write_bytes(altered)
            with pytest.raises(ProxyfleetError, match=r"write\.key"):
                load_credential(key_file=path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ProxyfleetError, match=r"write\.key"):
            load_credential(key_file=path)


def test_flips_and_cuts_of_a_sealed_result_are_detected(specimen: Specimen) -> None:
    whole = write_disk(specimen.repository, CONTENT, run="run-2")
    sealer, name = specimen.repository.access.sealer, "result/vm-1/run-2/scsi0:0"
    open_sealed(sealer, name, whole, StoredDisk)

    for position, letter in enumerate(whole):
        altered = whole[:position] + ("A" if letter != "A" else "B") + whole[position + 1 :]
        with pytest.raises(RepositoryDamageError):
            open_sealed(sealer, name, altered, StoredDisk)
    for length in range(len(whole)):
        with pytest.raises(RepositoryDamageError):
            open_sealed(sealer, name, whole[:length], StoredDisk)
    specimen.repository.abandon(vm_id="vm-1", run="run-2", reason="a test")


@pytest.mark.parametrize("kind", ["index/", "points/", "packs/", "config/", "keys/"])
def test_check_and_scrub_name_the_object(tmp_path: Path, kind: str) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, CONTENT, run="run-1")
        [name] = repository.access.store.list(kind)
        path = tmp_path / name
        whole = path.read_bytes()
        for position in range(1, len(whole), 97):
            altered = bytearray(whole)
            altered[position] ^= 0x10
            path.write_bytes(altered)
            assert name in {finding.name for finding in check(repository.access).findings}
            if kind != "config/":
                assert [finding.name for finding in scrub(repository.access.store).findings] == [name]


@pytest.mark.parametrize("kind", ["index/", "points/", "packs/", "config/"])
def test_damage_never_becomes_wrong_data(tmp_path: Path, kind: str) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, CONTENT, run="run-1")
        [name] = repository.access.store.list(kind)
    path = tmp_path / name
    whole = path.read_bytes()
    for position in range(0, len(whole), 41):
        altered = bytearray(whole)
        altered[position] ^= 0x04
        path.write_bytes(altered)
        with (
            contextlib.suppress(DamageError, RepositoryVersionError),
            Repository.open(LocalStore(tmp_path), CREDENTIAL) as damaged,
        ):
            assert restore(damaged, damaged.point("vm-1", "run-1")) == CONTENT
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["index/", "points/", "packs/"])
def test_an_object_under_anothers_name_is_refused(tmp_path: Path, kind: str) -> None:
    with make_repository(tmp_path) as repository:
        first = back_up(repository, CONTENT, run="run-1")
        second = back_up(repository, text(2, 9), run="run-2")
        names = sorted(repository.access.store.list(kind))
        contents = [(tmp_path / name).read_bytes() for name in names]
        for name, content in zip(names, reversed(contents), strict=True):
            (tmp_path / name).write_bytes(content)

        report = check(repository.access)
        assert {finding.name for finding in report.findings} >= set(names)
        if kind == "points/":
            assert repository.points() == []
            assert set(repository.damaged_points) == set(names)
        if kind == "packs/":
            for point in (first, second):
                with pytest.raises(RepositoryDamageError, match="packs/"):
                    restore(repository, point)


def test_a_pack_of_another_repository_is_refused(tmp_path: Path) -> None:
    with make_repository(tmp_path / "a") as one, make_repository(tmp_path / "b") as other:
        back_up(one, CONTENT, run="run-1")
        back_up(other, CONTENT, run="run-1")
        [pack_id] = pack_ids(other.access.store)
        [name] = other.access.store.list("packs/")
        one.access.store.put_if_absent(name, [other.access.store.get(name)])

        [finding] = check(one.access).findings
        assert finding.name.endswith(pack_id.hex())
        assert finding.needed_by == ()


def test_a_file_among_the_points_that_is_none_is_no_damage(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, CONTENT, run="run-1")
        (tmp_path / "points" / "notes.txt").write_text("Don't touch!")

        assert [point.run for point in repository.points()] == ["run-1"]
        assert check(repository.access).findings == ()


@pytest.mark.parametrize("key", ["read", "write"])
def test_a_pack_whose_header_and_only_fragment_are_damaged_is_described_anew_and_loses_nothing(
    tmp_path: Path, key: Literal["read", "write"]
) -> None:
    """The header says no more than the name: whatever else a pack says of itself still counts."""
    repository = make_repository(tmp_path)
    store, unlocked = repository.access.store, repository.unlocked
    assert unlocked is not None
    issued = make_key_file(unlocked, kind=key, repository_id=repository.id, generation=1, label="p1", group="site")
    proxy = Repository.open(LocalStore(tmp_path), Credential(key=issued))
    point = back_up(proxy, CONTENT, run="run-1")
    [fragment], [pack] = list(store.list("index/")), list(store.list("packs/"))
    for name, at in ((fragment, 50), (pack, 3)):
        altered = bytearray(store.get(name))
        altered[at] ^= 1
        (tmp_path / name).write_bytes(altered)

    report = prove(proxy, ProofSettings(everything=True))

    assert (report.repaired.rebuilt, report.repaired.mended) == ((fragment,), [pack])
    assert [finding.name for finding in report.findings] == [pack]
    assert not report.points[0].damaged
    with Repository.open(LocalStore(tmp_path), CREDENTIAL) as whole:
        collect(whole)
        assert check(whole.access).findings == ()
        assert restore(whole, point) == CONTENT
        assert pack not in store.list("packs/")
