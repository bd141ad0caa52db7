"""Writers, readers, removals and collectors on one folder at the same time, some of them killed on the way."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    KEY,
    SMALL,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
)

_VARIANTS = [noise(1, 1000 + number) for number in range(12)]
"""Few enough that writers meet one another's blocks, dead and live."""
_SETTINGS = CollectorSettings(unused_percent=1.0, pack_bytes=3 * BLOCK, end_runs_after_s=3600.0)


class Fleet:
    """What a few machines do to a repository, and what must therefore be in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._lock = threading.Lock()
        self.expected: dict[tuple[str, str], bytes] = {}
        self.dead: list[tuple[str, str]] = []
        self.collections = 0

    def write(self, number: int) -> None:
        """One VM's backups, each from the last, each ended a while later; some attempts die."""
        rng = random.Random(self._seed * 100 + number)
        vm = VmIdentity(vm_id=f"vm-{number}", name=f"web{number}")
        content = b"".join(rng.choice(_VARIANTS) for _ in range(8))
        for run_number in range(5):
            run = f"run-{run_number}"
            blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
            for _ in range(2):
                blocks[rng.randrange(8)] = rng.choice(_VARIANTS)
            content = b"".join(blocks)
            stop_at = rng.choice([None, None, None, rng.randrange(30)])
            try:
                self._back_up(FaultyStore(self._store(), stop_at=stop_at, only_writes=True), vm, run, content)
            except StoppedError:
                # A scheduler would find out, and end the run or find its point.
                with self._opened(self._store()) as repository:
                    if not repository.abandon(vm_id=vm.vm_id, run=run, reason="its proxy died"):
                        continue
            with self._lock:
                self.expected[vm.vm_id, run] = content
            if run_number >= 2:
                with self._lock:
                    ended = rng.choice([key for key in self.expected if key[0] == vm.vm_id])
                    del self.expected[ended]
                with self._opened(self._store()) as repository:
                    end_point(repository.access, vm_id=ended[0], run=ended[1])

    def collect(self, number: int, stop: threading.Event) -> None:
        """Collect again and again; about every other time it is killed on the way."""
        rng = random.Random(self._seed * 1000 + number)
        while not stop.is_set():
            stop_at = rng.choice([None, rng.randrange(25)])
            with contextlib.suppress(StoppedError):
                store = FaultyStore(self._store(), stop_at=stop_at, only_writes=True)
                with self._opened(store) as repository:
                    collect(repository, _SETTINGS)
                    self.collections += 1

    def read(self, stop: threading.Event) -> None:
        """Restore whatever is there; only a point that ends meanwhile may fail."""
        rng = random.Random(self._seed)
        while not stop.is_set():
            with self._opened(self._store()) as repository:
                points = repository.points()
                if not points:
                    continue
                point = rng.choice(points)
                with self._lock:
                    expected = self.expected.get((point.vm_id, point.run))
                try:
                    content = restore(repository, point)
                except (PointNotFoundError, DamageError):
                    with self._lock:
                        assert expected is None or (point.vm_id, point.run) not in self.expected
                    continue
                assert expected in {None, content}

    def _back_up(self, store: FaultyStore, vm: VmIdentity, run: str, content: bytes) -> None:
        with self._opened(store) as repository:
            newest = repository.newest_point(vm.vm_id)
            with repository.begin_disk(vm_id=vm.vm_id, run=run, disk_key=KEY, fence=1, limits=SMALL) as writer:
                parent = writer.parent(newest, KEY) if newest else None
                inherited = dict.fromkeys(parent.segments if parent else ())
                segments = []
                span = writer.blocks_per_segment * BLOCK
                for at in range(0, len(content), span):
                    piece = content[at : at + span]
                    ids = b"".join(
                        writer.identify(piece[place : place + BLOCK]) for place in range(0, len(piece), BLOCK)
                    )
                    segment_id = repository.access.keyring.segment_id(ids)
                    # Like a data mover: what the parent has isn't looked up again.
                    segments += [segment_id] if segment_id in inherited else store_content(writer, piece)
                result = writer.finish(
                    size_bytes=len(content), segments=segments, report=report_of(writer, len(content))
                )
            commit(repository, result, run=run, vm=vm)

    def _store(self) -> LocalStore:
        return LocalStore(self._folder)

    def _opened(self, store: LocalStore | FaultyStore) -> Repository:
        return Repository.open(store, CREDENTIAL)


@pytest.mark.parametrize("seed", range(2))
def test_nothing_live_is_lost_and_nothing_dead_stays(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "repository"
    make_repository(folder).close()
    fleet, stop = Fleet(folder, seed), threading.Event()

    with ThreadPoolExecutor(6) as threads:
        others: list[Callable[[], None]] = [
            lambda: fleet.collect(1, stop),
            lambda: fleet.collect(2, stop),
            lambda: fleet.read(stop),
        ]
        background = [threads.submit(other) for other in others]
        try:
            for writer in [threads.submit(fleet.write, number) for number in range(3)]:
                writer.result()
        finally:
            stop.set()
        for other in background:
            other.result()

    with Repository.open(LocalStore(folder), CREDENTIAL) as repository:
        for _ in range(2):
            collect(repository, _SETTINGS)
        points = {(point.vm_id, point.run): point for point in repository.points()}
        assert points.keys() == fleet.expected.keys()
        for key, content in fleet.expected.items():
            assert restore(repository, points[key]) == content
        report = check(repository.access)
        assert (report.findings, report.points) == ((), len(points))
        final = collect(repository, _SETTINGS)
        stored = sum(repository.access.store.size(pack_name(pack_id)) for pack_id in pack_ids(LocalStore(folder)))
        assert stored < final.live_bytes * 1.01 + 4096 * final.packs
    assert fleet.collections > 1
