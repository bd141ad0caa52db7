"""A collector that is stopped at any of its operations on the store harms nothing; the next one completes it.

Only operations that change something are gone through, before and after their effect: stopped at one that reads, it
leaves what the change before it has left.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.pack_layout import pack_name
from proxy_worker.repository.pack_scan import pack_ids
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import (
    BLOCK,
    CREDENTIAL,
    OTHER,
    back_up,
    commit,
    make_repository,
    noise,
    restore,
    text,
    write_disk,
)

pytestmark = pytest.mark.usefixtures("quick")

OLD = noise(6, 1)
KEPT = OLD[:BLOCK] + noise(2, 2) + text(2)
AT_WORK = OLD[2 * BLOCK : 4 * BLOCK] + noise(1, 3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Packs to delete, to rewrite and to keep, one without a fragment; a run at work that needs what will go."""
    folder = tmp_path_factory.mktemp("template")
    with make_repository(folder) as repository:
        back_up(repository, OLD, run="old")
        back_up(repository, KEPT, run="kept")
        result = write_disk(repository, AT_WORK, run="at-work", vm=OTHER)
        with contextlib.suppress(StoppedError):
            attempt = FaultyStore(LocalStore(folder), stop_at=12, only_writes=True)
            with Repository.open(attempt, CREDENTIAL) as dying:
                back_up(dying, noise(9, 5), run="dead")
        repository.abandon(vm_id="vm-1", run="dead", reason="its proxy died")
        end_point(repository.access, vm_id="vm-1", run="old")
    return folder, result


def collect_through(store: FaultyStore) -> None:
    with Repository.open(store, CREDENTIAL) as repository:
        collect(repository, CollectorSettings(end_runs_after_s=3600.0))


def live_size(folder: Path) -> int:
    store = LocalStore(folder)
    return sum(store.size(pack_name(pack_id)) for pack_id in pack_ids(store))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("committed", [False, True], ids=["at work", "committed"])
def test_stopped_at_any_operation(template: tuple[Path, str], tmp_path: Path, after: bool, committed: bool) -> None:
    """First while the run is at work, which publishes the list; then when it is committed, which completes it."""
    source, result = template
    start = Path(shutil.copytree(source, tmp_path / "start"))
    if committed:
        collect_through(FaultyStore(LocalStore(start)))
        with Repository.open(LocalStore(start), CREDENTIAL) as repository:
            commit(repository, result, run="at-work", vm=OTHER)
    counting = FaultyStore(LocalStore(Path(shutil.copytree(start, tmp_path / "whole"))), only_writes=True)
    collect_through(counting)
    assert counting.operations > 4
    finished = None

    for number in range(counting.operations):
        folder = Path(shutil.copytree(start, tmp_path / f"{number}"))
        with contextlib.suppress(StoppedError):
            collect_through(FaultyStore(LocalStore(folder), stop_at=number, after=after, only_writes=True))

        with Repository.open(LocalStore(folder), CREDENTIAL) as repository:
            report = check(repository.access)
            assert report.findings == (), f"stopped at operation {number}"
            if not committed:
                commit(repository, result, run="at-work", vm=OTHER)
            for _ in range(2):
                collect(repository)
            points = {point.run: point for point in repository.points()}
            assert restore(repository, points["kept"]) == KEPT
            assert restore(repository, points["at-work"]) == AT_WORK
            assert (check(repository.access).findings, set(points)) == ((), {"kept", "at-work"})
        finished = finished or live_size(folder)
        assert live_size(folder) < finished * 1.2, f"stopped at operation {number}"
        shutil.rmtree(folder)


def test_what_was_settled_for_a_list_that_is_gone_holds_for_no_other(
    template: tuple[Path, str], tmp_path: Path
) -> None:
    """While a list can't be read nobody can back up: sooner or later somebody removes it."""
    source, result = template
    start = Path(shutil.copytree(source, tmp_path / "start"))
    with Repository.open(LocalStore(start), CREDENTIAL) as repository:
        commit(repository, result, run="at-work", vm=OTHER)
    whole = FaultyStore(LocalStore(Path(shutil.copytree(start, tmp_path / "whole"))), only_writes=True)
    collect_through(whole)
    removed = 0

    for number in range(whole.operations):
        folder = Path(shutil.copytree(start, tmp_path / f"{number}"))
        with contextlib.suppress(StoppedError):
            collect_through(FaultyStore(LocalStore(folder), stop_at=number, only_writes=True))
        for condemned in (folder / "condemned").glob("*"):
            condemned.unlink()
            removed += 1
        with Repository.open(LocalStore(folder), CREDENTIAL) as repository:
            point = back_up(repository, OLD, run="new")  # finds what is left of its blocks
            for _ in range(2):
                collect(repository)
            assert restore(repository, point) == OLD, f"stopped at operation {number}"
        shutil.rmtree(folder)
    assert removed > 1
