"""What happens when somebody else acts in the middle of a collection, at any of its operations on the store.

And when a collection happens in the middle of a backup. Each other one acts whole, at every operation where order
can matter: those that write, list, or ask whether something exists.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.errors import RunEndedError
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from proxy_worker.repository.writer import DiskWriter, ParentDisk
from tests.repository.faulty_store import FaultyStore
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    KEY,
    OTHER,
    SMALL,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
    text,
    write_disk,
)

pytestmark = pytest.mark.usefixtures("quick")

OLD = noise(6, 1)
KEPT = OLD[:BLOCK] + text(2)
AT_WORK = OLD[2 * BLOCK : 4 * BLOCK] + noise(1, 3)
LATE = OLD[BLOCK : 5 * BLOCK]
THIRD = VmIdentity(vm_id="vm-3", name="app01")
_READS = ("get ", "read ", "size ", "write")
_SETTINGS = CollectorSettings(unused_percent=1.0, pack_bytes=3 * BLOCK)


class PausingStore(FaultyStore):
    """Lets somebody else act before operation number `pause_at`."""

    def __init__(self, store: Store, pause_at: int | None, meanwhile: Callable[[], object]) -> None:
        super().__init__(store)
        self._pause_at = pause_at
        self._meanwhile = meanwhile

    def before(self, action: str, *, writes: bool) -> bool:
        if action.startswith(_READS):
            return False
        number = self.operations
        lost = super().before(action, writes=writes)
        if number == self._pause_at:
            self._meanwhile()
        return lost


def opened(store: Store, folder: Path, machine: str) -> Repository:
    """The repository of a folder, with the caches of a machine."""
    return Repository.open(store, CREDENTIAL, cache_dir=folder.parent / machine)


@dataclass
class Others:
    """Everybody but the collector: each opens the repository for itself."""

    folder: Path
    result: str
    expected: dict[str, bytes] = field(default_factory=lambda: {"kept": KEPT})
    child: tuple[Repository, DiskWriter, ParentDisk] | None = None
    committed: bool = False

    def opened(self) -> Repository:
        return opened(LocalStore(self.folder), self.folder, "another")

    def commit(self) -> Point:
        with self.opened() as repository:
            self.committed = True
            self.expected["at-work"] = AT_WORK
            return commit(repository, self.result, run="at-work", vm=OTHER)

    def collect(self) -> None:
        with self.opened() as repository:
            collect(repository, _SETTINGS)

    def back_up(self) -> None:
        with self.opened() as repository:
            back_up(repository, LATE, run="late", vm=THIRD)
        self.expected["late"] = LATE

    def end(self) -> None:
        with self.opened() as repository:
            end_point(repository.access, vm_id=VM.vm_id, run="kept")
        self.expected.pop("kept", None)

    def commit_and_collect(self) -> None:
        self.commit()
        self.collect()

    def commit_begin_a_child_and_end_the_parent(self) -> None:
        """What the child refers to was condemned before its parent was there."""
        parent_point = self.commit()
        repository = self.opened()
        writer = repository.begin_disk(vm_id=OTHER.vm_id, run="child", disk_key=KEY, fence=1, limits=SMALL)
        parent = writer.parent(parent_point, KEY)
        assert parent is not None
        self.child = repository, writer, parent
        end_point(repository.access, vm_id=OTHER.vm_id, run="at-work")
        del self.expected["at-work"]

    def finish(self) -> None:
        """Whoever is at work comes to an end."""
        if self.child:
            repository, writer, parent = self.child
            size_bytes = len(AT_WORK)
            report = report_of(writer, size_bytes)
            result = writer.finish(size_bytes=size_bytes, segments=parent.segments, report=report)
            commit(repository, result, run="child", vm=OTHER)
            self.expected["child"] = AT_WORK
            repository.close()
        elif not self.committed:
            self.commit()

    def assert_all_is_well(self, moment: str) -> None:
        with self.opened() as repository:
            for _ in range(2):
                points = {point.run: point for point in repository.points()}
                assert points.keys() == self.expected.keys(), moment
                for run, content in self.expected.items():
                    assert restore(repository, points[run]) == content, moment
                collect(repository, _SETTINGS)
            assert check(repository.access).findings == (), moment


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Packs to delete, to rewrite and to keep; a finished disk, not committed, that needs some that are dead."""
    folder = tmp_path_factory.mktemp("template")
    with make_repository(folder) as repository:
        back_up(repository, OLD, run="old")
        back_up(repository, KEPT, run="kept")
        result = write_disk(repository, AT_WORK, run="at-work", vm=OTHER)
        end_point(repository.access, vm_id=VM.vm_id, run="old")
    return folder, result


def collect_while(folder: Path, pause_at: int | None, meanwhile: Callable[[], object]) -> int:
    store = PausingStore(LocalStore(folder), pause_at, meanwhile)
    with opened(store, folder, "one") as repository:
        collect(repository, _SETTINGS)
    return store.operations


@pytest.mark.parametrize(
    "act",
    [
        Others.commit,
        Others.collect,
        Others.back_up,
        Others.end,
        Others.commit_and_collect,
        Others.commit_begin_a_child_and_end_the_parent,
    ],
    ids=lambda act: act.__name__,
)
@pytest.mark.parametrize("completing", [False, True], ids=["first", "completing"])
def test_somebody_else_acts_in_the_middle_of_a_collection(
    template: tuple[Path, str], tmp_path: Path, act: Callable[[Others], object], completing: bool
) -> None:
    """In a first collection, which has to wait, and in the one that completes its list."""
    source, result = template
    start = Path(shutil.copytree(source, tmp_path / "start"))
    others = Others(start, result)
    if completing:
        others.collect()
        if act not in {Others.commit, Others.commit_and_collect, Others.commit_begin_a_child_and_end_the_parent}:
            others.commit()
    total = collect_while(Path(shutil.copytree(start, tmp_path / "whole")), None, lambda: None)
    assert total > 5

    for number in range(total):
        folder = Path(shutil.copytree(start, tmp_path / f"{number}"))
        here = Others(folder, result, expected=dict(others.expected), committed=others.committed)
        collect_while(folder, number, lambda here=here: act(here))  # type: ignore[misc]
        here.finish()
        here.assert_all_is_well(f"before operation {number}")
        shutil.rmtree(folder)


def test_a_collection_happens_in_the_middle_of_a_backup(template: tuple[Path, str], tmp_path: Path) -> None:
    """At any operation of a backup that finds its blocks in packs that are dead, dying and live."""
    source, result = template

    def back_up_while(folder: Path, pause_at: int | None) -> tuple[int, bool]:
        others = Others(folder, result)
        store = PausingStore(LocalStore(folder), pause_at, others.commit_and_collect)
        with Repository.open(store, CREDENTIAL) as repository:
            try:
                with repository.begin_disk(
                    vm_id=THIRD.vm_id, run="late", disk_key=KEY, fence=1, limits=SMALL
                ) as writer:
                    segments = store_content(writer, LATE)
                    disk = writer.finish(
                        size_bytes=len(LATE), segments=segments, report=report_of(writer, len(LATE))
                    )
                commit(repository, disk, run="late", vm=THIRD)
            except RunEndedError:
                return store.operations, False
        others.expected["late"] = LATE
        others.finish()
        others.assert_all_is_well(f"before operation {pause_at}")
        return store.operations, True

    total, _ = back_up_while(Path(shutil.copytree(source, tmp_path / "whole")), None)
    assert total > 15
    for number in range(total):
        folder = Path(shutil.copytree(source, tmp_path / f"{number}"))
        _, committed = back_up_while(folder, number)
        assert committed
        shutil.rmtree(folder)
