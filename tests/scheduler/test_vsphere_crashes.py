"""The scheduler killed at every journalled step of a vSphere VM run, and started again.

Enumerated, not sampled: before and after each commit, before and after each call to vCenter, until a run outlives
them all. `make fuzz` has each kind of moment in a first backup and in one by what changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pyVmomi import vim
from sqlalchemy import select

from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.tasks import finish
from scheduler.state.models import (
    ChangeBaseOfPoint,
    Point,
    Run,
    RunState,
    ServiceMark,
    SnapshotEntry,
    SnapshotState,
    VmRun,
)
from scheduler.state.store import open_state
from tests.scheduler.mortality import EVERY_DEATH, MOMENTS, Calls, Life, calls, outlive
from tests.scheduler.vcenters import VsphereWorld
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm, write

__all__ = ["calls"]


@dataclass
class Story:
    """What a run is to live through: a first backup, or one by what changed; perhaps cancelled; perhaps failing."""

    incremental: bool = False
    cancelled: bool = False
    failing: bool = False

    def prepare(self, one: VsphereWorld, vm: Vm) -> str:
        """Bring the world to where the run begins, in a life that doesn't end; the run's id."""
        track(one, vm, on=self.incremental)
        one.declare(vm.name, retry_count=1)
        one.world.fleet.lost_answers.clear()
        if self.incremental:
            service = one.world.start()
            before = one.ask()
            one.world.turn_until(service, lambda: one.settled(before))
            write(one.simulator, vm.disks[0].path or "", MIB, before.encode())
        one.world.fleet.specifications.clear()
        run_id = one.ask()
        failing = f"disk.backup {vm.name} scsi0:1"
        if self.failing or self.cancelled:
            one.world.fleet.failures[failing] = 9
        if self.cancelled:
            one.world.fleet.when_handled[failing] = lambda: cancel(one, run_id)
        return run_id

    @property
    def end(self) -> RunState:
        """How the run ends."""
        return RunState.CANCELLED if self.cancelled else RunState.FAILED if self.failing else RunState.SUCCEEDED


def cancel(one: VsphereWorld, run_id: str) -> None:
    """As `scheduler run cancel` does."""
    with open_state(one.world.url).write() as database:
        database.get_one(Run, run_id).cancel_requested = True


def track(one: VsphereWorld, vm: Vm, *, on: bool) -> None:
    """Switch change tracking of a VM on or off."""
    machine = vim.VirtualMachine(vm.ref, one.session.stub)
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=on)
    finish(one.session, "tracking", lambda: machine.ReconfigVM_Task(spec), IMPATIENT)


@pytest.fixture
def vm(session: object) -> Vm:
    """A VM with two disks."""
    return make_vm(session, 2 * MIB, 2 * MIB)  # type: ignore[arg-type]


STORIES = {
    "first": Story(),
    "incremental": Story(incremental=True),
    "failing": Story(failing=True),
    "cancelled": Story(cancelled=True),
}

MATRIX = [
    *(
        itertools.product(("first", "incremental"), MOMENTS)
        if EVERY_DEATH
        else zip(itertools.cycle(("incremental", "first")), MOMENTS)
    ),
    ("failing", "after commit"),
    ("cancelled", "after commit"),
]


@pytest.mark.parametrize(("name", "moment"), MATRIX)
def test_killed_at_any_moment_the_inventory_is_as_it_was_and_the_run_ends_as_it_would_have(
    new_vsphere_world: Callable[[], VsphereWorld], vm: Vm, calls: Calls, name: str, moment: str
) -> None:
    story = STORIES[name]
    for deadly in itertools.count(1):
        life = Life(moment, deadly)
        one = new_vsphere_world()
        _live(one, vm, story, calls, life)
        if not life.over.is_set():
            break
    assert deadly > 2


def _live(one: VsphereWorld, vm: Vm, story: Story, calls: Calls, life: Life) -> None:
    calls.life = Life()
    run_id = story.prepare(one, vm)
    outlive(one, run_id, calls, life)
    told = f"{life.moment} {life.deadly} ({life.last})"
    assert one.snapshots(vm) == (), told
    with one.read() as database:
        run = database.get_one(Run, run_id)
        assert run.state is story.end, f"{told}: {run.reason}"
        (vm_run,) = database.scalars(select(VmRun).where(VmRun.run_id == run_id)).all()
        entries = database.scalars(select(SnapshotEntry)).all()
        assert {entry.state for entry in entries} <= {SnapshotState.GONE}, told
        points = set(database.scalars(select(Point.point)))
        assert (vm_run.repository_run in points) is (run.state is RunState.SUCCEEDED), told
        bases = database.scalars(
            select(ChangeBaseOfPoint.disk_key).where(ChangeBaseOfPoint.point == vm_run.repository_run)
        )
        assert sorted(bases) == (["scsi0:0", "scsi0:1"] if run.state is RunState.SUCCEEDED else []), told
        assert database.get_one(ServiceMark, 1).installation
    if story.incremental:
        changed = {body.disk.key: body.changed_areas for body in one.backups()}
        assert [len(changed[key] or ()) for key in ("scsi0:0", "scsi0:1")] == [1, 0], told
        assert None not in changed.values(), told
