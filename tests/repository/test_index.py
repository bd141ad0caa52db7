"""The local index finds what the fragments say, whatever has been merged, withdrawn or lost in between."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.index import Index
from proxy_worker.repository.pack_layout import Chunk
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.repository.making import PASSPHRASE, make_repository

ids = st.integers(0, 40).map(lambda number: (number * 0x0101_0101).to_bytes(4, "big") * 8)
steps = st.lists(
    st.one_of(
        st.lists(ids, max_size=6).map(lambda held: ("publish", held)),
        st.just(("withdraw", [])),
        st.just(("refresh", [])),
        st.just(("restart", [])),
    ),
    max_size=25,
)


def chunk(block_id: bytes, offset: int) -> Chunk:
    return Chunk(offset, 100, offset, 200, 0, 1, 0, block_id)


def publish(repository: Repository, number: int, held: list[bytes]) -> str:
    """A fragment of one pack that holds these ids."""
    name = fragment_name(number.to_bytes(16, "big"))
    pack = FragmentPack(number.to_bytes(16, "little"), 1000, "owner", ())
    chunks = [chunk(block_id, 24 + place) for place, block_id in enumerate(held)]
    repository.access.store.put_if_absent(name, [encode_fragment(repository.access.sealer, name, [(pack, chunks)])])
    return name


def open_index(repository: Repository, cache: Path) -> Index:
    return Index(
        repository.access.store,
        repository.access.sealer,
        cached_as=repository.id,
        generation=1,
        cache_dir=cache,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=steps)
def test_it_agrees_with_a_dictionary(script: list[tuple[str, list[bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, make_repository(Path(folder) / "repository") as repository:
        cache = Path(folder) / "cache"
        index = open_index(repository, cache)
        published: dict[str, tuple[int, list[bytes]]] = {}
        for number, (step, held) in enumerate(script):
            if step == "publish":
                published[publish(repository, number, held)] = number, held
            elif step == "withdraw" and published:
                name = next(iter(published))
                repository.access.store.delete(name)
                del published[name]
            elif step == "restart":
                index = open_index(repository, cache)
            index.refresh()

        expected: dict[bytes, set[tuple[bytes, int]]] = {}
        for number, held in published.values():
            for place, block_id in enumerate(held):
                expected.setdefault(block_id, set()).add((number.to_bytes(16, "little"), 24 + place))
        for number in range(42):
            block_id = (number * 0x0101_0101).to_bytes(4, "big") * 8
            found = {(location.pack.pack_id, location.offset) for location in index.find(block_id)}
            assert found == expected.get(block_id, set())


def test_many_fragments_come_to_few_runs(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        index = open_index(repository, tmp_path / "cache")
        for number in range(30):
            publish(repository, number, [number.to_bytes(32, "big")])
            index.refresh()

        assert len(index.runs) <= 4
        assert all(len(index.find(number.to_bytes(32, "big"))) == 1 for number in range(30))
        assert len(list((tmp_path / "cache").rglob("*.run"))) == len(index.runs)


def test_what_is_withdrawn_costs_no_second_look_at_the_rest(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        names = [publish(repository, number, [number.to_bytes(32, "big")]) for number in range(8)]
        index = open_index(repository, tmp_path / "cache")
        index.refresh()
        for name in names[1::2]:
            repository.access.store.delete(name)
        for name in names[::2]:
            Path(tmp_path / "repository" / name).write_bytes(b"not to be read")

        index.refresh()
        assert [bool(index.find(number.to_bytes(32, "big"))) for number in range(8)] == [True, False] * 4
        assert index.damaged == {}


def test_runs_of_more_records_than_a_partition_stay_sorted(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        held = [blake3.blake3(number.to_bytes(4, "big")).digest() for number in range(60_000)]
        for number in range(2):
            publish(repository, number, held[number::2])
        index = open_index(repository, tmp_path / "cache")
        index.refresh()

        assert [run.record_count for run in index.runs] == [60_000]
        assert all(len(index.find(block_id)) == 1 for block_id in held[::997])
        assert index.find(bytes(32)) == index.find(b"\xff" * 32) == []


def test_processes_share_a_cache(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        for number in range(12):
            publish(repository, number, [number.to_bytes(32, "big")])

        def work(_: int) -> bool:
            index = open_index(repository, tmp_path / "cache")
            index.refresh()
            return all(index.find(number.to_bytes(32, "big")) for number in range(12))

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(work, range(6)))


def test_a_folder_has_one_cache_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository(tmp_path / "repository").close()
    monkeypatch.chdir(tmp_path)
    credential = Credential(passphrase=PASSPHRASE)
    folders = set()
    for name in (Path("repository"), Path("./repository/../repository"), tmp_path / "repository"):
        with Repository.open(LocalStore(name), credential, cache_dir=tmp_path / "cache") as opened:
            folders.add(opened.access.cache_folder)

    assert len(folders) == 1


def test_a_cache_that_is_damaged_or_of_an_older_configuration_is_made_anew(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        publish(repository, 1, [b"a" * 32])
        open_index(repository, tmp_path / "cache").refresh()
        for path in (tmp_path / "cache").rglob("*.run"):
            path.write_bytes(path.read_bytes()[:-1])

        index = open_index(repository, tmp_path / "cache")
        index.refresh()
        assert len(index.find(b"a" * 32)) == 1

        (tmp_path / "cache" / repository.id / "manifest.json").write_bytes(b"{")
        index = open_index(repository, tmp_path / "cache")
        index.refresh()
        assert len(index.find(b"a" * 32)) == 1
