"""Runs of copy jobs: what they copy, in which order, and what they leave out."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from proxy_worker.contract.copying import (
    CopyState,
)
from proxy_worker.contract.specification import RepositoryCommit
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.planning.copies import CopyTerms
from scheduler.planning.retention import Retention
from scheduler.state.models import (
    DiskTask,
    Point,
    Request,
    RunState,
)
from tests.scheduler.copying import NOW, Copies, copies

__all__ = ["copies"]


def test_a_run_copies_what_is_missing_and_the_next_has_nothing_to_do(copies: Copies) -> None:
    copies.declare(copy_from=CopyTerms(repository="main"))
    for vm, day in (("web01", 1), ("web01", 2), ("db01", 1)):
        copies.add_point(vm, day)

    assert copies.run() == (RunState.SUCCEEDED, None)

    assert sorted(copies.copied()) == ["db01-1 as db01-1", "web01-2 as web01-2"]
    with copies.state.read() as session:
        found = session.scalars(select(Point).where(Point.repository == "second").order_by(Point.point)).all()
        assert [(row.point, row.vm_name, row.job) for row in found] == [
            ("db01-1", "db01", "offsite"),
            ("web01-2", "web01", "offsite"),
        ]
    commits = [one.body for one in copies.world.fleet.specifications if isinstance(one.body, RepositoryCommit)]
    assert {(body.started_at, body.copy_of is not None) for body in commits} == {(NOW - 60, True)}
    assert copies.run() == (RunState.SUCCEEDED, "nothing to copy: repository second has all of them")


def test_points_of_one_vm_are_copied_one_after_the_other_oldest_first(copies: Copies) -> None:
    copies.declare()
    for day in (2, 1, 3):
        copies.add_point("web01", day)
    together: list[int] = []
    copies.world.fleet.when_handled["disk.copy web01 scsi0:0"] = lambda: together.append(
        sum(task.kind.takes_slot for task in copies.world.fleet.ledger.view().tasks.values())
    )

    assert copies.run() == (RunState.SUCCEEDED, None)

    assert copies.copied() == ["web01-1 as web01-1", "web01-2 as web01-2", "web01-3 as web01-3"]
    assert together == [1, 1, 1]


def test_what_retention_gave_up_in_the_target_is_not_copied_again(copies: Copies) -> None:
    copies.declare(retention=Retention(points=2))
    for day in (1, 2):
        copies.add_point("web01", day)
    copies.run()
    copies.add_point("web01", 3)
    copies.run()
    service = copies.world.start()
    copies.world.turn_until(service, lambda: _points(copies) == 2)

    assert copies.run() == (RunState.SUCCEEDED, "nothing to copy: repository second has all of them")

    assert copies.copied() == [f"web01-{day} as web01-{day}" for day in (1, 2, 3)]


def _points(copies: Copies) -> int:
    with copies.state.read() as session:
        return len(session.scalars(select(Point).where(Point.repository == "second")).all())


def test_a_target_that_was_made_anew_gets_everything_again(copies: Copies) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    copies.run()
    copies.second.points.clear()
    with copies.state.write() as session:  # as a rescan does
        session.delete(session.get_one(Point, ("second", "id-web01", "web01-1")))

    assert copies.run() == (RunState.SUCCEEDED, None)

    assert copies.copied() == ["web01-1 as web01-1"] * 2


def test_points_that_are_gone_removed_or_there_are_left_out_and_damaged_ones_fail_by_name(copies: Copies) -> None:
    copies.declare()
    for vm in ("gone", "removed", "there", "damaged", "web01"):
        copies.add_point(vm, 1)
    copies.states = {f"{state.value}-1": state for state in CopyState}

    assert copies.run() == (RunState.PARTLY_FAILED, "1 of 2 restore points failed")

    assert copies.copied() == ["web01-1 as web01-1"]
    assert copies.reasons() == {"damaged": "its entry is damaged"}
    with copies.state.read() as session:
        assert [request.repository for request in session.scalars(select(Request))] == ["second"]


@pytest.mark.parametrize("needs_read_key", [True, False])
def test_a_proxy_with_a_write_key_copies_between_twins_only(copies: Copies, needs_read_key: bool) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    copies.needs_read_key = needs_read_key
    copies.world.fleet.join("proxy-1", credentials={"main": "write", "second": "write"})
    service = copies.world.start()
    run_id = copies.ask()

    def waits_or_ended() -> bool:
        return copies.ended(run_id) or bool(_waiting(copies))

    copies.world.turn_until(service, waits_or_ended, wait_out_retries=False)

    if needs_read_key:
        assert _waiting(copies) == [
            "waiting: no proxy that reaches repository second holds the read key of repository main (main)"
        ]
    else:
        assert copies.outcome(run_id) == (RunState.SUCCEEDED, None)


def _waiting(copies: Copies) -> list[str]:
    with copies.state.read() as session:
        if session.scalars(select(DiskTask)).first() is None:
            return []
        reasons = waiting_reasons(session, copies.world.fleet.ledger.view(), copies.world.clock())
        return [reason for task_id, reason in reasons.items() if "about to be" not in reason]
