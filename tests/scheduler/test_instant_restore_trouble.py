"""VMs that run from their restore points, when hosts, proxies or schedulers fail: waited out, taken up, left."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import pytest
from sqlalchemy import select

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.using import PointRelease
from proxy_worker.vsphere.nfs_datastore import unmount
from proxy_worker.vsphere.session import Session
from scheduler.restores import instant_steps
from scheduler.restores.giving_up import NothingToGiveUpError, ask_to_give_up
from scheduler.restores.instant_steps import UNMOUNT
from scheduler.state.models import (
    LedgerTask,
    StepState,
    VcenterStep,
    VmRestore,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.scheduler.instant_restoring import (
    IMAGES,
    INSTANT,
    Serving,
    asked,
    disk_files,
    mounts,
    move,
    nothing_is_left,
    proxy,
    running,
    stays,
)
from tests.scheduler.vm_restoring import Restoring, died_at, mark_is_off

__all__ = ["asked", "proxy"]


def give_up(asked: Restoring, refused: str = "") -> None:
    with open_state(asked.one.world.url).write() as database, ExitStack() as stack:
        if refused:
            stack.enter_context(pytest.raises(NothingToGiveUpError, match=refused))
        ask_to_give_up(database, database.get_one(VmRestore, asked.restore_id))


def releasing(asked: Restoring) -> LedgerTask | None:
    with asked.one.read() as database:
        return database.scalars(select(LedgerTask).where(LedgerTask.kind == TaskKind.POINT_RELEASE)).first()


def unmounting_waits(asked: Restoring) -> bool:
    with asked.one.read() as database:
        waits = VcenterStep.state == StepState.WAITING
        return (
            database.scalars(select(VcenterStep).where(VcenterStep.kind == UNMOUNT.name, waits)).first() is not None
        )


def test_what_passes_is_waited_out(asked: Restoring, proxy: Serving) -> None:
    """A move that waits for another task, a datastore in use, a proxy that can't let go yet."""
    asked.one.simulator.go_wrong("RelocateVM_Task", "fail", "TaskInProgress", times=2)
    asked.one.simulator.go_wrong("RemoveDatastore", "refuse", "ResourceInUse", times=2)
    proxy.fails = {PointRelease: 2}
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.row.warnings) == (VmRestoreState.SUCCEEDED, ())
    assert nothing_is_left(proxy, asked)


def test_a_proxy_that_is_gone_for_good_is_given_up_by_a_scheduler_that_was_started_anew(asked: Restoring) -> None:
    world, service = asked.one.world, running(asked)
    give_up(asked, "it is running, and isn't waiting")
    world.fleet.identities.clear()
    asked.cancel()
    world.turn_until(service, lambda: releasing(asked) is not None)
    assert stays(asked)

    give_up(asked)
    world.turn_until(world.start(), asked.settled)

    assert (asked.row.state, mounts(asked), stays(asked)) == (VmRestoreState.CANCELLED, [], False)
    assert "wrote is left on proxy proxy-1, in its served folder" in asked.row.warnings[-1]


def test_a_host_and_a_proxy_that_fail_again_and_again_are_given_up_one_by_one(
    asked: Restoring, proxy: Serving
) -> None:
    asked.one.simulator.go_wrong("RemoveDatastore", "refuse", "ResourceInUse")
    proxy.fails = {PointRelease: 1000}
    world, service = asked.one.world, running(asked)
    move(asked)
    world.turn_until(service, lambda: unmounting_waits(asked), wait_out_retries=False)

    give_up(asked)
    world.turn_until(service, lambda: proxy.fails[PointRelease] < 1000, wait_out_retries=False)
    assert (asked.row.state, len(mounts(asked))) == (VmRestoreState.RELEASING, 1)
    give_up(asked)
    world.turn_until(service, asked.settled, wait_out_retries=False)

    assert asked.row.state is VmRestoreState.SUCCEEDED
    host, kept = asked.row.warnings
    assert f"may keep datastore {mounts(asked)[0]} mounted" in host
    assert "on proxy proxy-1" in kept
    place = asked.row.place
    assert place is not None
    unmount(asked.one.session, place.host or "", mounts(asked)[0])


def test_a_host_that_unmounts_just_as_it_is_given_up_leaves_the_rest_to_the_proxy(
    asked: Restoring, proxy: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up_meanwhile(session: Session, host: str, datastore: str) -> None:
        give_up(asked)
        unmount(session, host, datastore)

    world, service = asked.one.world, running(asked)
    monkeypatch.setattr(instant_steps, "unmount", given_up_meanwhile)
    move(asked)
    world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.warnings) == (VmRestoreState.SUCCEEDED, ())
    assert nothing_is_left(proxy, asked)


@pytest.mark.parametrize("ends", ["in production", "cancelled"])
def test_a_scheduler_that_dies_at_each_of_its_steps_comes_to_the_same(
    asked: Restoring, proxy: Serving, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """It dies before and after its transactions, an early one, then a later one; each time another life goes on."""
    if ends == "cancelled":
        running(asked)
        asked.cancel()
    else:
        asked.ask(wishes=INSTANT)
    deaths = 0
    for number in itertools.islice(itertools.cycle(range(2, 6)), 60):
        if not died_at(asked, asked.one.world.start(), number, monkeypatch):
            break
        deaths += 1

    assert 2 < deaths < 60
    assert nothing_is_left(proxy, asked)
    if ends == "in production":
        assert asked.row.state is VmRestoreState.SUCCEEDED
        assert [file.read_bytes() for file in disk_files(asked)] == list(IMAGES.values())
        assert mark_is_off(asked)
    else:
        assert (asked.row.state, asked.made()) == (VmRestoreState.CANCELLED, None)
