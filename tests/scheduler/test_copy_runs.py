"""Runs of copy jobs from request to end, with proxies that move no data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from proxy_worker.contract.copying import (
    CopyOf,
    CopyPlan,
    CopyPlanResult,
    CopyState,
    DiskCopy,
    PlannedCopy,
    PointToCopy,
)
from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.outcome import (
    DiskBackupResult,
    PointDisk,
    RepositoryAbandonResult,
    RepositoryCommitResult,
    TaskFailure,
)
from proxy_worker.contract.specification import DiskAddress, DiskIdentity, RepositoryAbandon, RepositoryCommit
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.planning.copies import CopyTerms, PointChoice
from scheduler.planning.retention import Retention
from scheduler.state.asking import ask_for_run, ask_to_cancel, ask_to_retry
from scheduler.state.models import (
    DiskTask,
    Job,
    JobKind,
    LedgerTask,
    Point,
    Repository,
    Request,
    Run,
    RunState,
    VmRun,
    VmRunState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
from tests.scheduler.mortality import Killed, Life, MortalState
from tests.simulators.proxies import DISK_BYTES, SimulatedRepository, disk_report

NOW = 1_700_000_000.0
DISKS = (PointDisk(key="scsi0:0", size_bytes=DISK_BYTES, stored_bytes=1),)


@dataclass
class Copies:
    """A world with a repository `second`, the job `offsite` that copies to it, and what proxies find there."""

    world: World
    state: State
    second: SimulatedRepository = field(default_factory=SimulatedRepository)
    states: dict[str, CopyState] = field(default_factory=dict)
    """What the repositories themselves say of points, where that isn't `missing` or `there`."""
    needs_read_key: bool = True

    def __post_init__(self) -> None:
        self.world.fleet.answers |= {
            CopyPlan: self.plan,
            DiskCopy: lambda body: DiskBackupResult(report=disk_report(), sealed_result=body.run),
            RepositoryCommit: self.commit,
            RepositoryAbandon: self.abandon,
        }

    def plan(self, body: CopyPlan) -> CopyPlanResult:
        return CopyPlanResult(points=tuple(map(self._planned, body.points)))

    def _planned(self, wanted: PointToCopy) -> PlannedCopy:
        vm_id, point = wanted.vm.vm_id, wanted.point
        number = 1
        while (vm_id, _copy_name(point, number)) in self.second.tombstones:
            number += 1
        run = _copy_name(point, number)
        there = CopyState.THERE if (vm_id, run) in self.second.points else CopyState.MISSING
        state = self.states.get(point, there)
        return PlannedCopy(
            vm=wanted.vm,
            point=point,
            state=state,
            problem="its entry is damaged" if state is CopyState.DAMAGED else None,
            run=run,
            original=CopyOf(
                point=point, sequence=1, created_at=NOW, started_at=NOW - 60, needs_read_key=self.needs_read_key
            ),
            disks=(DiskIdentity(key="scsi0:0", address=DiskAddress(), size_bytes=DISK_BYTES),),
        )

    def commit(self, body: RepositoryCommit) -> RepositoryCommitResult | TaskFailure:
        assert body.repository.name == "second"
        answer = self.second.commit(body)
        assert isinstance(answer, RepositoryCommitResult)
        return answer

    def abandon(self, body: RepositoryAbandon) -> RepositoryAbandonResult:
        answer = self.second.abandon(body)
        assert isinstance(answer, RepositoryAbandonResult)
        return answer

    def add_point(self, vm: str, day: int) -> None:
        """A restore point of `nightly` in `main`."""
        with self.state.write() as session:
            session.add(
                Point(
                    repository="main",
                    vm_id=f"id-{vm}",
                    point=f"{vm}-{day}",
                    vm_name=vm,
                    job="nightly",
                    created_at=NOW + day,
                    disks=DISKS,
                )
            )

    def declare(self, **changes: object) -> None:
        with self.state.write() as session:
            session.add(
                Repository(name="second", location="/second", site="primary", credential="second", prove_days=0)
            )
            session.flush()
            job: dict[str, object] = {
                "name": "offsite",
                "kind": JobKind.COPY,
                "vms": (),
                "copy_from": CopyTerms(repository="main", points=PointChoice.ALL),
                "repository": "second",
                "retry_count": 1,
            }
            session.add(Job(**{**job, **changes}))

    def ask(self) -> str:
        with self.state.write() as session:
            return ask_for_run(session, "offsite", now=self.world.clock()).id

    def ended(self, run_id: str) -> bool:
        with self.state.read() as session:
            return session.get_one(Run, run_id).state.final and not session.scalars(select(LedgerTask)).all()

    def run(self) -> tuple[RunState, str | None]:
        """Run the job to its end."""
        service = self.world.start()
        run_id = self.ask()
        self.world.turn_until(service, lambda: self.ended(run_id))
        return self.outcome(run_id)

    def outcome(self, run_id: str) -> tuple[RunState, str | None]:
        with self.state.read() as session:
            run = session.get_one(Run, run_id)
            return run.state, run.reason

    def reasons(self) -> dict[str, str | None]:
        """By VM, why it failed."""
        with self.state.read() as session:
            failed = session.scalars(select(VmRun).where(VmRun.state == VmRunState.FAILED))
            return {row.name: row.reason for row in failed}

    def copied(self) -> list[str]:
        """What the disks' tasks copied, in order."""
        return [
            f"{one.body.original.point} as {one.body.run}"
            for one in self.world.fleet.specifications
            if isinstance(one.body, DiskCopy)
        ]


def _copy_name(point: str, number: int) -> str:
    return point if number == 1 else f"{point}.{number}"


@pytest.fixture
def copies(world: World) -> Copies:
    world.declare()
    made = Copies(world, open_state(world.url))
    world.fleet.join("proxy-1", credentials={"main": "read", "second": "write"})
    return made


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
    assert copies.run() == (RunState.SUCCEEDED, "nothing to copy: repository second lacks none of them")


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

    assert copies.run() == (RunState.SUCCEEDED, "nothing to copy: repository second lacks none of them")

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
