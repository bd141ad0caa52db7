"""Runs of copy jobs that fail, are cancelled, or outlive their scheduler."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import select

from proxy_worker.contract.copying import (
    CopyPlan,
    CopyState,
)
from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.outcome import TaskFailure
from scheduler.planning.copies import CopyTerms
from scheduler.state.asking import ask_to_cancel, ask_to_retry
from scheduler.state.models import (
    Job,
    Repository,
    RunState,
    VmRun,
)
from tests.scheduler.copying import Copies, copies
from tests.scheduler.mortality import Killed, Life, MortalState

__all__ = ["copies"]


def test_a_vm_that_has_no_restore_point_fails_by_name(copies: Copies) -> None:
    copies.declare(vms=("web01", "nosuch"))
    copies.add_point("web01", 1)

    assert copies.run() == (RunState.PARTLY_FAILED, "1 of 2 restore points failed")

    assert copies.reasons() == {"nosuch": "no restore point of a VM of that name is known in repository main"}


def test_a_disk_that_fails_is_tried_again_and_a_retried_run_copies_under_another_name(copies: Copies) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    copies.world.fleet.failures["disk.copy web01 scsi0:0"] = 2
    service = copies.world.start()
    run_id = copies.ask()
    copies.world.turn_until(service, lambda: copies.ended(run_id))
    assert copies.outcome(run_id) == (RunState.FAILED, "no restore point was copied")
    assert copies.second.tombstones == {("id-web01", "web01-1")}

    with copies.state.write() as session:
        ask_to_retry(session, run_id)
    copies.world.turn_until(service, lambda: copies.ended(run_id))

    assert copies.outcome(run_id) == (RunState.SUCCEEDED, None)
    assert copies.copied() == ["web01-1 as web01-1", "web01-1 as web01-1", "web01-1 as web01-1.2"]
    with copies.state.read() as session:
        assert session.scalars(select(VmRun.attempt)).all() == [2]


def test_repositories_that_turn_out_to_be_one_fail_the_run_with_the_reason(copies: Copies) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    same = ConfigurationError("copy of /backup", why="source and target are the same repository")
    copies.world.fleet.answers[CopyPlan] = lambda _: TaskFailure.of(same)

    state, reason = copies.run()

    assert state is RunState.FAILED
    assert reason is not None
    assert reason.startswith("repositories main and second can't be compared: copy of /backup: source and target")


def test_a_target_that_is_removed_while_the_run_looks_what_is_missing_fails_it_with_the_reason(
    copies: Copies,
) -> None:
    copies.declare()
    for vm in ("there", "web01"):
        copies.add_point(vm, 1)
    copies.states = {"there-1": CopyState.THERE}

    def remove() -> None:
        with copies.state.write() as session:
            session.delete(session.get_one(Job, "nightly"))
            job = session.get_one(Job, "offsite")
            job.repository, job.copy_from = "main", CopyTerms(repository="third")
            session.delete(session.get_one(Repository, "second"))

    copies.world.fleet.when_handled["copy.plan main second"] = remove

    assert copies.run() == (RunState.FAILED, "no restore point was copied")
    assert copies.reasons() == {
        "web01": "repository 'second': no repository has that name. `scheduler repository list` shows them."
    }


def test_a_run_that_is_cancelled_while_it_looks_what_is_missing_copies_nothing(copies: Copies) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    service = copies.world.start()
    run_id = copies.ask()
    with copies.state.write() as session:
        ask_to_cancel(session, run_id)
    copies.world.turn_until(service, lambda: copies.ended(run_id))
    assert copies.outcome(run_id) == (RunState.CANCELLED, "cancelled before it began")

    run_id = copies.ask()

    def cancel() -> None:
        with copies.state.write() as session:
            ask_to_cancel(session, run_id)

    copies.world.fleet.when_handled["copy.plan main second"] = cancel
    copies.world.turn_until(service, lambda: copies.ended(run_id))

    assert copies.outcome(run_id) == (RunState.CANCELLED, "cancelled before it was planned")
    assert copies.copied() == []


def test_a_scheduler_that_is_killed_again_and_again_copies_everything_once(copies: Copies) -> None:
    copies.declare()
    for vm, day in (("web01", 1), ("web01", 2), ("db01", 1)):
        copies.add_point(vm, day)
    copies.world.fleet.failures["disk.copy web01 scsi0:0"] = 1
    run_id = copies.ask()
    lives = 0
    while not copies.ended(run_id):
        lives += 1
        with suppress(Killed):
            mortal = MortalState(copies.state.engine, Life("after commit", deadly=4))
            copies.world.turn_until(copies.world.start(mortal), lambda: copies.ended(run_id))

    assert lives > 2
    assert copies.outcome(run_id) == (RunState.SUCCEEDED, None)
    assert set(copies.second.commits.values()) == {1}
    assert sorted(copies.second.points) == [("id-db01", "db01-1"), ("id-web01", "web01-1"), ("id-web01", "web01-2")]


def test_what_nobody_can_compare_ends_the_run_with_the_reason(copies: Copies) -> None:
    copies.declare()
    copies.add_point("web01", 1)
    copies.world.fleet.join("proxy-1", credentials={"main": "read"})

    state, reason = copies.run()

    assert state is RunState.FAILED
    assert reason is not None
    assert "no proxy that is running holds the key of repository second (second)" in reason


def test_a_cancelled_run_keeps_what_was_copied_and_begins_nothing_more(copies: Copies) -> None:
    copies.declare()
    for day in (1, 2):
        copies.add_point("web01", day)
    service = copies.world.start()
    run_id = copies.ask()

    def cancel() -> None:
        with copies.state.write() as session:
            ask_to_cancel(session, run_id)

    copies.world.fleet.when_handled["repository.commit web01"] = cancel
    copies.world.turn_until(service, lambda: copies.ended(run_id))

    assert copies.outcome(run_id) == (RunState.CANCELLED, "1 of 2 restore points were copied by then")
    assert copies.copied() == ["web01-1 as web01-1"]
