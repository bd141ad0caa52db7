"""A world with copy jobs, and proxies that move no data."""

from __future__ import annotations

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
from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.outcome import PointDisk, RepositoryAbandonResult, RepositoryCommitResult, TaskFailure
from proxy_worker.contract.specification import RepositoryAbandon, RepositoryCommit
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity
from scheduler.planning.copies import CopyTerms, PointChoice
from scheduler.state.asking import ask_for_run
from scheduler.state.models import (
    Job,
    JobKind,
    LedgerTask,
    Point,
    Repository,
    Run,
    RunState,
    VmRun,
    VmRunState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
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
