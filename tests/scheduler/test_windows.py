"""Windows that close in the middle of a run: what has begun is finished, whatever happens to it meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.planning.window import Window
from scheduler.service import Service
from scheduler.state.asking import ask_for_run, ask_to_retry
from scheduler.state.models import DiskTask, DiskTaskState, Run, RunState
from scheduler.state.store import open_state
from tests.scheduler.conftest import World

_CLOSED_S = 6 * 3600.0
"""After so long the window is closed."""


def _begin(world: World, *, retry_count: int = 1) -> tuple[Service, str]:
    """A run of `web01`, which has two disks, while the window is open, for two hours more at most."""
    hour = datetime.now(UTC).hour
    window = Window(hours=(f"{(hour - 1) % 24}:00-{(hour + 2) % 24}:00",))
    world.declare(vms=("web01",), window=window, retry_count=retry_count)
    world.fleet.join("proxy-1", slots=1)
    with open_state(world.url).write() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id
    return world.start(), run_id


def _disks(world: World) -> dict[str, DiskTaskState]:
    with Session(open_state(world.url).engine) as session:
        return {disk.disk_key: disk.state for disk in session.scalars(select(DiskTask))}


@pytest.mark.parametrize("restarted", [False, True], ids=["by the same scheduler", "by one that was restarted"])
def test_a_disk_is_tried_again_though_its_window_is_closed_by_then(world: World, *, restarted: bool) -> None:
    service, run_id = _begin(world)
    world.fleet.failures["disk.backup web01 scsi0:1"] = 1
    world.turn_until(
        service,
        lambda: _disks(world) == {"scsi0:0": DiskTaskState.SUCCEEDED, "scsi0:1": DiskTaskState.WAITING},
        wait_out_retries=False,
    )

    world.clock.ahead_s = _CLOSED_S
    service = world.start() if restarted else service
    world.turn_until(service, lambda: _ended(world, run_id), wait_out_retries=False)

    with Session(open_state(world.url).engine) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED


def test_a_vm_that_has_not_begun_waits_for_the_window_after_a_retry_too(world: World) -> None:
    service, run_id = _begin(world, retry_count=0)
    world.fleet.failures["disk.backup web01 scsi0:1"] = 1
    world.turn_until(service, lambda: _ended(world, run_id))
    world.fleet.handled.clear()

    world.clock.ahead_s = _CLOSED_S
    with open_state(world.url).write() as session:
        ask_to_retry(session, run_id)
    for _ in range(20):
        service.turn()
        world.fleet.work()

    assert set(_disks(world).values()) == {DiskTaskState.QUEUED}
    assert [title for _, title in world.fleet.handled if title.startswith("disk.backup")] == []


def _ended(world: World, run_id: str) -> bool:
    with Session(open_state(world.url).engine) as session:
        return session.get_one(Run, run_id).state.final
