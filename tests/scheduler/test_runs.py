"""Runs from request to end, with proxies that move no data: what is recorded, retried, abandoned, cancelled."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from proxy_worker.contract.disks import DiskBackup
from scheduler.fleet.editing import withdraw
from scheduler.service import UNSERVED_S
from scheduler.state.asking import ask_for_restore, ask_for_upkeep, ask_to_cancel
from scheduler.state.models import (
    DiskTask,
    DiskTaskState,
    Job,
    LedgerTask,
    Point,
    Repository,
    Request,
    RequestKind,
    Restore,
    Run,
    RunState,
    VmRun,
    VmRunState,
    WorkState,
)
from scheduler.state.store import open_state
from tests.scheduler.conftest import World, vm
from tests.scheduler.nightly_runs import ask, read, run_ended


def test_a_run_ends_with_a_restore_point_per_vm(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED
        assert {point.vm_name for point in session.scalars(select(Point))} == {"app01", "web01"}
        disks = session.scalars(select(DiskTask)).all()
        assert [(disk.proxy, disk.attempts) for disk in disks] == [("proxy-1", 1)] * 3


def test_a_pattern_that_matches_nothing_fails_by_name_and_harms_nobody(world: World) -> None:
    world.declare(vms=("web*", "nosuch*"))
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.reason) == (RunState.PARTLY_FAILED, "1 of 2 VMs failed")
        failed = session.scalars(select(VmRun).where(VmRun.state == VmRunState.FAILED)).one()
        assert (failed.name, failed.reason) == ("nosuch*", "no VM matches 'nosuch*'")


def test_only_the_failed_disk_is_tried_again_under_the_same_name(world: World) -> None:
    world.declare(vms=("web01",))
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup web01 scsi0:1"] = 2
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    backups = [one.body for one in world.fleet.specifications if isinstance(one.body, DiskBackup)]
    assert [body.disk.key for body in backups] == ["scsi0:0", "scsi0:1", "scsi0:1", "scsi0:1"]
    assert len({body.run for body in backups}) == 1
    assert world.clock.ahead_s >= 2 * 600
    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED
        disk = session.scalars(select(DiskTask).where(DiskTask.disk_key == "scsi0:1")).one()
        assert (disk.tries, disk.attempts) == (3, 3)


def test_a_disk_that_keeps_failing_fails_its_vm_alone_and_leaves_a_tombstone(world: World) -> None:
    world.declare(retry_count=1)
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup web01 scsi0:1"] = 99
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.PARTLY_FAILED
        web = session.scalars(select(VmRun).where(VmRun.name == "web01")).one()
        assert web.reason == "1 of 2 disks failed"
        assert world.fleet.repository.tombstones == {("id-web01", web.repository_run)}
        assert session.scalars(select(Point.vm_name)).all() == ["app01"]


def test_a_cancelled_run_stops_what_waits_and_ends_as_cancelled(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1", slots=1)
    service = world.start()
    run_id = ask(world)
    state = open_state(world.url)

    def disks_are_open() -> bool:
        with state.read() as session:
            return session.scalar(select(DiskTask.id).limit(1)) is not None and bool(world.lanes.messages)

    while not disks_are_open():
        world.fleet.work()
        service.turn()
    with state.write() as session:
        ask_to_cancel(session, run_id)
    world.turn_until(service, lambda: run_ended(world, run_id))

    with state.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.reason) == (RunState.CANCELLED, "0 of 2 VMs were backed up by then")
        assert {disk.state for disk in session.scalars(select(DiskTask))} == {DiskTaskState.CANCELLED}
        assert session.scalars(select(Point)).all() == []


def test_a_cancelled_run_does_not_wait_for_ever_for_a_proxy_that_commits(world: World) -> None:
    world.declare(vms=("app01",))
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)
    while ("proxy-1", "disk.backup app01 scsi0:0") not in world.fleet.handled:
        service.turn()
        world.fleet.work()
    world.fleet.ledger.depart(world.fleet.identities.pop("proxy-1"))
    state = open_state(world.url)
    with state.write() as session:
        ask_to_cancel(session, run_id)
    for _ in range(4):
        service.turn()
    assert not run_ended(world, run_id), "its commit may still find a proxy"

    for _ in range(10):
        world.clock.ahead_s += UNSERVED_S
        service.turn()

    with state.read() as session:
        assert session.get_one(Run, run_id).state is RunState.CANCELLED
        assert session.scalars(select(LedgerTask)).all() == []


@pytest.mark.parametrize("when", ["disk.backup app01 scsi0:0", "repository.commit app01"])
def test_a_run_whose_repository_is_removed_ends_with_that_reason(world: World, when: str) -> None:
    world.declare(vms=("app01", "web01"))
    world.fleet.join("proxy-1", slots=1)
    service = world.start()

    def move_to_another() -> None:
        world.fleet.lost_answers.add(when)  # it is to be tried again
        with open_state(world.url).write() as session:
            session.add(Repository(name="second", location="/second", site="primary", prove_days=0))
            session.flush()
            session.get_one(Job, "nightly").repository = "second"
            session.flush()
            withdraw(session, "repository", "main")

    world.fleet.when_handled[when] = move_to_another
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state in {RunState.FAILED, RunState.PARTLY_FAILED}
        told = [f"{one.reason} {one.warning}" for one in session.scalars(select(VmRun))]
        told += [str(disk.failure) for disk in session.scalars(select(DiskTask))]
    assert any("repository main is not declared any more" in text for text in told)
    assert not any("cancelled" in text for text in told)


def test_a_restore_goes_to_the_proxy_that_was_asked_for(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    world.fleet.join("proxy-2")
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    state = open_state(world.url)
    with state.write() as session:
        restore_id = ask_for_restore(
            session,
            vm="web01",
            disk_key="scsi0:1",
            proxy="proxy-2",
            target_path="/restored/disk",
            now=world.clock(),
        ).id

    def ended() -> bool:
        with state.read() as session:
            return session.get_one(Restore, restore_id).state.final

    world.turn_until(service, ended)
    with state.read() as session:
        assert session.get_one(Restore, restore_id).state is WorkState.SUCCEEDED
    assert world.fleet.handled[-1] == ("proxy-2", "disk.restore web01 scsi0:1")


def test_a_restore_to_a_proxy_that_nobody_knows_fails_by_name(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    state = open_state(world.url)
    with state.write() as session:
        restore_id = ask_for_restore(
            session, vm="web01", disk_key="scsi0:1", proxy="nobody", target_path="/restored/disk", now=world.clock()
        ).id

    def ended() -> bool:
        with state.read() as session:
            return session.get_one(Restore, restore_id).state.final

    world.turn_until(service, ended)
    with state.read() as session:
        failure = session.get_one(Restore, restore_id).failure
        assert str(failure) == "disk.restore web01 scsi0:1: proxy nobody has not registered"


@pytest.mark.parametrize("server_too", [False, True], ids=["proxy", "proxy and server"])
def test_a_restore_that_is_long_under_way_waits_for_its_proxy_to_start_again(
    world: World, *, server_too: bool
) -> None:
    world.declare(vms=("app01",))
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    disk = {"vm": "app01", "disk_key": "scsi0:0", "proxy": "proxy-1", "target_path": "/restored/disk"}
    with world.writing() as session:
        restore_id = ask_for_restore(session, **disk, now=world.clock()).id
    while not world.lanes.messages:
        service.turn()
    _, claim = world.fleet.claim(world.lanes.messages.pop()) or pytest.fail("nobody takes it")
    world.clock.ahead_s += 3600

    world.fleet.ledger.release(claim.fence, None, "handed back")
    world.fleet.ledger.depart(world.fleet.identities.pop("proxy-1"))
    service = world.start() if server_too else service
    for _ in range(4):
        service.turn()
        world.clock.ahead_s += UNSERVED_S / 5
    world.fleet.join("proxy-1")

    def ended() -> bool:
        with read(world) as session:
            return session.get_one(Restore, restore_id).state.final

    world.turn_until(service, ended)
    with read(world) as session:
        restore = session.get_one(Restore, restore_id)
        assert (restore.state, restore.failure) == (WorkState.SUCCEEDED, None)


def test_a_rescan_brings_back_restore_points_and_removes_those_that_are_gone(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)
    world.turn_until(service, lambda: run_ended(world, run_id))
    state = open_state(world.url)
    with state.write() as session:
        session.delete(session.scalars(select(Point).where(Point.vm_name == "web01")).one())
        session.add(Point(repository="main", vm_id="x", point="old", vm_name="x", job="", created_at=1.0, disks=()))
        request_id = ask_for_upkeep(session, RequestKind.RESCAN, "main", now=world.clock()).id

    def ended() -> bool:
        with state.read() as session:
            return session.get_one(Request, request_id).state.final

    world.turn_until(service, ended)
    with state.read() as session:
        assert set(session.scalars(select(Point.vm_name))) == {"app01", "web01"}
        request = session.get_one(Request, request_id)
        assert request.summary == "2 restore points, 1 of them new; 1 gone"


def test_a_vm_with_a_problem_fails_with_it(world: World) -> None:
    world.fleet.inventory["ds1"] = (vm("good", "scsi0:0"), vm("bad", problem="bad.vmx is truncated"))
    world.declare()
    world.fleet.join("proxy-1")
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.PARTLY_FAILED
        bad = session.scalars(select(VmRun).where(VmRun.name == "bad")).one()
        assert bad.reason == "bad.vmx is truncated"


def test_a_scan_that_fails_is_tried_again(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    world.fleet.failures["inventory.scan ds1"] = 2
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED


def test_a_commit_that_fails_is_tried_again_and_its_disks_are_not_read_again(world: World) -> None:
    world.declare(vms=("app01",))
    world.fleet.join("proxy-1")
    world.fleet.failures["repository.commit app01"] = 2
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED
        assert session.scalars(select(DiskTask)).one().attempts == 1


def test_a_commit_whose_answer_was_lost_counts_when_the_tombstone_finds_the_point(world: World) -> None:
    world.declare(vms=("app01",), retry_count=0)
    world.fleet.join("proxy-1")
    world.fleet.lost_answers.add("repository.commit app01")
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.SUCCEEDED
        (point,) = session.scalars(select(Point)).all()
        assert [(disk.key, disk.stored_bytes) for disk in point.disks] == [("scsi0:0", 1)]
        assert "but the restore point exists" in (session.scalars(select(VmRun.warning)).one() or "")


def test_a_run_that_is_cancelled_between_tries_does_not_wait_for_the_next(world: World) -> None:
    world.declare(vms=("web01",))
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup web01 scsi0:1"] = 99
    service = world.start()
    run_id = ask(world)
    state = open_state(world.url)

    def waits() -> bool:
        with state.read() as session:
            return DiskTaskState.WAITING in session.scalars(select(DiskTask.state)).all()

    world.turn_until(service, waits, wait_out_retries=False)
    with state.write() as session:
        ask_to_cancel(session, run_id)
    world.turn_until(service, lambda: run_ended(world, run_id), wait_out_retries=False)

    with state.read() as session:
        assert session.get_one(Run, run_id).state is RunState.CANCELLED
        web = session.scalars(select(VmRun)).one()
        assert ("id-web01", web.repository_run) in world.fleet.repository.tombstones


def test_a_datastore_that_no_proxy_reaches_is_named_and_the_rest_goes_on(world: World) -> None:
    world.fleet.inventory["far"] = ()
    world.declare()
    world.fleet.join("proxy-1", datastores={"ds1": ("direct_storage",)})  # type: ignore[dict-item]
    service = world.start()
    run_id = ask(world)

    world.turn_until(service, lambda: run_ended(world, run_id))

    with read(world) as session:
        assert session.get_one(Run, run_id).state is RunState.PARTLY_FAILED
        far = session.scalars(select(VmRun).where(VmRun.name == "datastore far")).one()
        assert "reaches datastore far" in (far.reason or "")
