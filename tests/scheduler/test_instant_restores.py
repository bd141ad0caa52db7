"""VMs that run from their restore points: what follows what, and what is left of it in the end."""

from __future__ import annotations

import pytest

from proxy_worker.vsphere.inventory import read_vm
from scheduler.planning.retention import HeldPoint, Retention
from scheduler.restores.asking import NotInstantError, WishConflictError, ask_to_move
from scheduler.runs.retention import verdicts
from scheduler.state.asking import ask_to_delete, find_point, pin
from scheduler.state.errors import PointInUseError, PointLeavingError, PointPinnedError
from scheduler.state.models import (
    Job,
    Point,
    VmRestore,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.scheduler.instant_restoring import (
    IMAGES,
    INSTANT,
    KEYS,
    Serving,
    asked,
    disk_files,
    mounts,
    move,
    nothing_is_left,
    proxy,
    running,
    stays,
    write,
)
from tests.scheduler.vcenters import OFFER
from tests.scheduler.vm_restoring import Restoring, mark_is_off

__all__ = ["asked", "proxy"]


def test_it_starts_from_the_point_and_its_disks_move_to_production(asked: Restoring, proxy: Serving) -> None:
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.row.failure, asked.row.warnings) == (VmRestoreState.SUCCEEDED, None, ())
    vm = read_vm(asked.one.session, asked.made() or "")
    assert (vm.powered_on, {(disk.path or "").split()[0] for disk in vm.disks}) == (True, {"[LocalDS_1]"})
    assert [file.read_bytes() for file in disk_files(asked)] == list(IMAGES.values())
    assert mark_is_off(asked)
    assert nothing_is_left(proxy, asked)


def test_one_that_is_to_stay_moves_when_told_with_what_it_has_written(asked: Restoring, proxy: Serving) -> None:
    service = running(asked)
    vm = read_vm(asked.one.session, asked.made() or "")
    assert (vm.powered_on, {(disk.path or "").split()[0] for disk in vm.disks}) == (True, {f"[{mounts(asked)[0]}]"})
    write(proxy, asked, 70_000, b"written while it ran from the repository")
    move(asked)
    asked.one.world.turn_until(service, asked.settled)

    assert asked.row.state is VmRestoreState.SUCCEEDED
    expected = bytearray(IMAGES[KEYS[0]])
    expected[70_000:70_040] = b"written while it ran from the repository"
    assert disk_files(asked)[0].read_bytes() == expected
    assert nothing_is_left(proxy, asked)


def test_its_point_stays_while_it_runs_whoever_unpins_it(asked: Restoring) -> None:
    service = running(asked)
    with open_state(asked.one.world.url).write() as database:
        point = find_point(database, asked.vm.instance_uuid or "")
        pin(database, point, pinned=False)
        job = Job(name=point.job, repository=point.repository, timezone="UTC", retention=Retention(points=0))
        older = HeldPoint(point.point, point.created_at, used=True)
        with pytest.raises(PointInUseError, match=f"by restore {asked.restore_id}"):
            ask_to_delete(database, point, now=0)
        newer = Point(
            repository=point.repository,
            vm_id=point.vm_id,
            vm_name="web",
            point="newer",
            job=job.name,
            created_at=point.created_at + 1,
            disks=(),
        )
        database.add(newer)
        found = verdicts(database, job, point.vm_id, now=point.created_at + 2)
        assert [(verdict.point, verdict.why) for verdict in found if verdict.point == older] == [
            (older, "a VM runs from it")
        ]
        database.delete(newer)

    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)
    assert not stays(asked)


def test_a_pin_that_somebody_has_made_meanwhile_outlives_it(asked: Restoring) -> None:
    service = running(asked)
    with open_state(asked.one.world.url).write() as database:
        pin(database, find_point(database, asked.vm.instance_uuid or ""), pinned=True)
    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)

    with asked.one.read() as database, pytest.raises(PointPinnedError):
        ask_to_delete(database, find_point(database, asked.vm.instance_uuid or ""), now=0)


def test_no_vm_starts_from_a_point_that_is_being_removed(asked: Restoring) -> None:
    with open_state(asked.one.world.url).write() as database:
        ask_to_delete(database, find_point(database, asked.vm.instance_uuid or ""), now=0)
    with pytest.raises(PointLeavingError):
        asked.ask(wishes=INSTANT)


def test_cancelled_while_it_runs_nothing_of_it_is_left(asked: Restoring, proxy: Serving) -> None:
    service = running(asked)
    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.failure, asked.made()) == (VmRestoreState.CANCELLED, None, None)
    assert nothing_is_left(proxy, asked)


@pytest.mark.parametrize(
    ("goes_wrong", "why"),
    [
        ("CreateNasDatastore", "PlatformConfigFault"),
        ("CreateVM_Task", "GenericVmConfigFault"),
        ("PowerOnVM_Task", ""),
    ],
)
def test_what_goes_wrong_before_it_runs_is_undone(
    asked: Restoring, proxy: Serving, goes_wrong: str, why: str
) -> None:
    mode = "refuse" if goes_wrong == "CreateNasDatastore" else "fail"
    asked.one.simulator.go_wrong(goes_wrong, mode, why or "GenericVmConfigFault", times=0)
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.made()) == (VmRestoreState.FAILED, None)
    assert why in str(asked.row.failure)
    assert nothing_is_left(proxy, asked)


def test_a_move_that_fails_leaves_it_running_and_can_be_asked_for_again(asked: Restoring, proxy: Serving) -> None:
    asked.one.simulator.go_wrong("RelocateVM_Task", "fail", "NoDiskSpace")
    asked.ask(wishes=INSTANT)
    service = asked.one.world.start()
    asked.one.world.turn_until(service, lambda: asked.row.failure is not None)
    assert (asked.row.state, "NoDiskSpace" in str(asked.row.failure)) == (VmRestoreState.RUNNING, True)
    assert read_vm(asked.one.session, asked.made() or "").powered_on

    with open_state(asked.one.world.url).write() as database:
        ask_to_move(database.get_one(VmRestore, asked.restore_id))
    asked.one.world.turn_until(service, asked.settled)
    assert (asked.row.state, asked.row.failure) == (VmRestoreState.SUCCEEDED, None)
    assert nothing_is_left(proxy, asked)


def test_what_can_not_be_is_refused_at_once(asked: Restoring) -> None:
    with pytest.raises(WishConflictError, match="--instant with --overwrite"):
        asked.ask(wishes=INSTANT, overwrite=True)
    asked.ask()
    with pytest.raises(NotInstantError), open_state(asked.one.world.url).write() as database:
        ask_to_move(database.get_one(VmRestore, asked.restore_id))
    asked.one.world.fleet.join("proxy-1", datastores={}, vsphere=OFFER)
    asked.ask(wishes=INSTANT, name="another")
    asked.one.world.turn_until(asked.one.world.start(), lambda: asked.row.state.final)
    assert "has [instant_restore] in its proxy.toml" in str(asked.row.failure)
    assert not stays(asked)
