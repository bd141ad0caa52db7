"""What a collector remembers of earlier collections saves it work; whatever becomes of that, nothing is lost."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectionReport, CollectorSettings, collect
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.repository.faulty_store import FaultyStore
from tests.repository.making import BLOCK, CREDENTIAL, VM, back_up, make_repository, noise, restore, text

pytestmark = pytest.mark.usefixtures("quick")

_SETTINGS: Final = CollectorSettings(unused_percent=1.0, pack_bytes=3 * BLOCK)
_BLOCKS: Final = [noise(1, 1), *(text(1, seed) for seed in range(2, 9))]
_ANY: Final = st.integers(0, 1 << 20)
"""Of how many, is known only where it is used: names and lengths of files differ from run to run."""
_FILES: Final = ("map.known", "segment.known", "run", "manifest.json")
"""How the names of cached files end."""


class Counting(FaultyStore):
    """Notes what was read of packs."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.read: list[str] = []

    def before(self, action: str, *, writes: bool) -> bool:
        if action.startswith(("get packs/", "read packs/")):
            self.read.append(action)
        return super().before(action, writes=writes)


def collected(folder: Path, cache: Path, store: Store | None = None) -> CollectionReport:
    """A collection by a process of its own."""
    with Repository.open(store or LocalStore(folder), CREDENTIAL, cache_dir=cache) as repository:
        return collect(repository, _SETTINGS)


def cached(cache: Path) -> list[Path]:
    """The files of the cache that hold something."""
    return [path for path in sorted(cache.rglob("*")) if path.name.endswith(_FILES)]


def test_a_collection_reads_only_what_is_new(tmp_path: Path) -> None:
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    with make_repository(folder) as repository:
        back_up(repository, noise(9), run="first")
        collected(folder, cache)
        back_up(repository, noise(9)[: 8 * BLOCK] + text(1), run="second")
    new, again = Counting(LocalStore(folder)), Counting(LocalStore(folder))

    collected(folder, cache, new)
    report = collected(folder, cache, again)

    assert len(new.read) == 2  # a map, and a segment
    assert again.read == []
    assert (report.points, report.freed_packs) == (2, 0)


def test_what_no_point_needs_any_more_is_forgotten(tmp_path: Path) -> None:
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    with make_repository(folder) as repository:
        back_up(repository, noise(9, 1), run="old")
        collected(folder, cache)
        both = sum(path.stat().st_size for path in cache.rglob("*.known"))
        end_point(repository.access, vm_id=VM.vm_id, run="old")

    collected(folder, cache)

    assert both > 0
    assert sum(path.stat().st_size for path in cache.rglob("*.known")) == 0


@pytest.mark.parametrize("name", ["map.known", "segment.known"])
def test_no_flipped_bit_and_no_cut_makes_a_collector_delete_what_is_needed(tmp_path: Path, name: str) -> None:
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    content = noise(2) + text(4)
    with make_repository(folder) as repository:
        point = back_up(repository, content, run="only")
        collected(folder, cache)
        path = next(cache.rglob(name))
        whole, packs = path.read_bytes(), set(pack_ids(repository.access.store))
        for place in range(0, len(whole), 7):
            for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
                path.write_bytes(damaged)
                collected(folder, cache)
                assert set(pack_ids(repository.access.store)) == packs
                assert path.read_bytes() == whole

        assert restore(repository, point) == content


def test_a_run_of_the_index_that_has_rotted_is_not_believed(tmp_path: Path) -> None:
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    content = noise(2) + text(4)
    with make_repository(folder) as repository:
        point = back_up(repository, content, run="only")
        collected(folder, cache)
        sound = Path(shutil.copytree(cache, tmp_path / "sound"))
        packs = set(pack_ids(repository.access.store))
        runs = [path.relative_to(cache) for path in cache.rglob("*.run")]
        assert runs
        for run in runs:
            whole = (sound / run).read_bytes()
            records = [at for at in range(len(whole)) if whole[at]]
            for place in records[:: len(records) // 40]:
                shutil.rmtree(cache)
                shutil.copytree(sound, cache)
                (cache / run).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                collected(folder, cache)
                assert set(pack_ids(repository.access.store)) == packs

        assert restore(repository, point) == content


def test_a_cache_that_cannot_be_written_keeps_nobody_from_collecting(tmp_path: Path) -> None:
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    with make_repository(folder) as repository:
        back_up(repository, noise(5), run="old")
        kept = back_up(repository, text(5), run="kept")
        collected(folder, cache)
        for path in cache.rglob("*.known"):
            path.unlink()
            path.mkdir()
        end_point(repository.access, vm_id=VM.vm_id, run="old")

        assert collected(folder, cache).freed_packs > 0
        assert restore(repository, kept) == text(5)


class CacheMachine(RuleBasedStateMachine):
    """Backups, removals and collections, while the collectors' cache is lost, cut, flipped, exchanged, put back."""

    @initialize()
    def begin(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self.scratch.name) / "repository"
        self.cache, self.copy = Path(self.scratch.name) / "cache", Path(self.scratch.name) / "copy"
        self.repository = make_repository(self.folder)
        self.expected: dict[str, bytes] = {}
        self.ended: set[str] = set()

    @rule(blocks=st.lists(st.integers(0, len(_BLOCKS) - 1), min_size=1, max_size=6))
    def back_up(self, blocks: list[int]) -> None:
        run = f"run-{len(self.expected) + len(self.ended)}"
        self.expected[run] = b"".join(_BLOCKS[number] for number in blocks)
        back_up(self.repository, self.expected[run], run=run)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.expected)))
        end_point(self.repository.access, vm_id=VM.vm_id, run=run)
        del self.expected[run]
        self.ended.add(run)

    @rule()
    def collect(self) -> None:
        collected(self.folder, self.cache)
        points = {point.run: point for point in self.repository.points()}
        assert points.keys() == self.expected.keys()
        for run, content in self.expected.items():
            assert restore(self.repository, points[run]) == content

    @precondition(lambda self: cached(self.cache))
    @rule(one=_ANY, another=_ANY, where=_ANY, how=st.sampled_from(["lose", "cut", "flip", "exchange"]))
    def harm(self, one: int, another: int, where: int, how: str) -> None:
        files = cached(self.cache)
        path, other = files[one % len(files)], files[another % len(files)]
        whole = path.read_bytes()
        place = where % max(1, len(whole))
        if how == "lose":
            path.unlink()
        elif how == "cut":
            path.write_bytes(whole[:place])
        elif how == "exchange":
            path.write_bytes(other.read_bytes())
            other.write_bytes(whole)
        elif whole:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    @precondition(lambda self: self.cache.exists())
    @rule()
    def keep(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.cache, self.copy)

    @precondition(lambda self: self.copy.exists())
    @rule()
    def put_back(self) -> None:
        shutil.rmtree(self.cache)
        shutil.copytree(self.copy, self.cache)

    def teardown(self) -> None:
        self.collect()
        assert check(self.repository.access).findings == ()
        self.repository.close()
        self.scratch.cleanup()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
