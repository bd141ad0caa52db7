"""What tasks do besides disks, when their holder is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from proxy_worker.contract.errors import CancelledError, NotFoundError
from proxy_worker.contract.outcome import (
    PointDeleteResult,
    RepositoryCollectResult,
    RepositoryListResult,
    RepositoryProveResult,
)
from proxy_worker.contract.specification import (
    PointDelete,
    RepositoryCheck,
    RepositoryCollect,
    RepositoryList,
    RepositoryProve,
)
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.ledger import Claim, Fence
from proxy_worker.mover.control import Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.bodies import perform
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.repository.points import point_name
from proxy_worker.repository.repository import Repository, new_run_id
from tests.repository.making import back_up, make_repository, noise

CLAIM = Claim(Fence("t1", 1, 1, "token"), "repository.check main", b"", None, server_time=0, lease_s=30)


class Told:
    """A keeper whose verdict is given."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = lambda: verdict


class OneRepository:
    """A bench with one repository on it."""

    def __init__(self, repository: Repository) -> None:
        self.repository = lambda _reference, _need: repository
        self.store = lambda _reference: repository.access.store


@pytest.mark.parametrize("scrub_only", [False, True])
def test_a_check_stops_when_it_is_told_to(tmp_path: Path, scrub_only: bool) -> None:
    with make_repository(tmp_path / "main", encrypted=False) as repository:
        back_up(repository, noise(3), run=new_run_id())
        body = RepositoryCheck(
            repository=RepositoryReference(name="main", location=str(tmp_path / "main")), scrub_only=scrub_only
        )
        bench = cast("Bench", OneRepository(repository))

        assert perform(body, bench, CLAIM, cast("LeaseKeeper", Told(Verdict.RUN))).kind == "repository.check"
        with pytest.raises(CancelledError, match=r"repository.check main: it was told to stop"):
            perform(body, bench, CLAIM, cast("LeaseKeeper", Told(Verdict.STOP)))


def test_a_point_is_removed_and_its_space_collected(tmp_path: Path) -> None:
    with make_repository(tmp_path / "main", encrypted=False) as repository:
        point = back_up(repository, noise(3), run=new_run_id())
        reference = RepositoryReference(name="main", location=str(tmp_path / "main"))
        bench, run = cast("Bench", OneRepository(repository)), cast("LeaseKeeper", Told(Verdict.RUN))
        vm = VmIdentity(vm_id=point.vm_id, name=point.vm_name)
        delete = PointDelete(repository=reference, vm=vm, run=point.run)
        collect = RepositoryCollect(repository=reference)

        assert perform(delete, bench, CLAIM, run) == PointDeleteResult(found=True)
        assert perform(delete, bench, CLAIM, run) == PointDeleteResult(found=True)
        with pytest.raises(CancelledError, match="the next collection goes on"):
            perform(collect, bench, CLAIM, cast("LeaseKeeper", Told(Verdict.STOP)))
        collected = perform(collect, bench, CLAIM, run)
        assert isinstance(collected, RepositoryCollectResult)
        assert (collected.freed_packs, collected.live_bytes, collected.kept) == (2, 0, ())
        assert collected.freed_bytes > len(noise(3))


def test_a_list_names_restore_points_that_cannot_be_read(tmp_path: Path) -> None:
    with make_repository(tmp_path / "main", encrypted=False) as repository:
        lost, whole = (back_up(repository, noise(3), run=new_run_id()) for _ in range(2))
        place = tmp_path / "main" / point_name(lost.vm_id, lost.run)
        place.chmod(0o600)
        place.write_bytes(place.read_bytes()[:-1])
        body = RepositoryList(repository=RepositoryReference(name="main", location=str(tmp_path / "main")))
        bench = cast("Bench", OneRepository(repository))

        listed = perform(body, bench, CLAIM, cast("LeaseKeeper", Told(Verdict.RUN)))

    assert isinstance(listed, RepositoryListResult)
    assert [point.run for point in listed.points] == [whole.run]
    assert listed.unreadable == ((lost.vm_id, lost.run),)


def test_a_repository_is_proven_with_what_is_linked_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    with (
        make_repository(tmp_path / "main", encrypted=False) as repository,
        make_repository(tmp_path / "vault", encrypted=False) as vault,
    ):
        point = back_up(repository, noise(3), run=new_run_id())
        back_up(vault, noise(3), run=new_run_id())
        opened = {"main": repository, "vault": vault}

        class Bench:
            def repository(self, reference: RepositoryReference, _: str) -> Repository:
                if reference.name not in opened:
                    raise NotFoundError(f"repository {reference.name}", why="it is away")
                return opened[reference.name]

        names = ("main", "vault", "elsewhere")
        main, *linked = (RepositoryReference(name=name, location=str(tmp_path / name)) for name in names)
        for pack in (tmp_path / "main" / "packs").glob("*/*"):
            pack.unlink()
        body = RepositoryProve(repository=main, linked=tuple(linked), period_s=1000.0)
        bench, run = cast("Any", Bench()), cast("LeaseKeeper", Told(Verdict.RUN))

        with pytest.raises(CancelledError, match="the next proof goes on"):
            perform(body, bench, CLAIM, cast("LeaseKeeper", Told(Verdict.STOP)))
        proven = perform(body, bench, CLAIM, run)

        assert isinstance(proven, RepositoryProveResult)
        assert [(known.run, known.damaged) for known in proven.points] == [(point.run, True)]  # its map is gone
        assert any("it is not there; needed by web01" in line for line in proven.damage)
        assert proven.notes == ("linked repository elsewhere isn't used: repository elsewhere: it is away",)
