"""Proxies frozen, blind, full, out of memory, with a wrong clock or an old version; disks that kill processes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ops.demo.machines import MIB
from proxy_worker.contract.versions import CONTRACT_VERSION, OLDEST_SERVED
from scheduler.state.models import RunState
from tests.simulators.memory_group import memory_group
from tests.surviving.fleet import HurtFleet
from tests.system.live_fleet import wait_until


def test_a_proxy_frozen_for_longer_than_its_lease_wakes_up_and_does_no_harm(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1")
    refused = fleet.view().refused_fences
    points = len(list(fleet.real_repository.glob("points/*/*")))

    frozen = fleet.freeze("proxy-1")
    wait_until(lambda: not fleet.running("proxy-1"), "its leases to run out")
    ended = fleet.end_run(run)
    fleet.thaw(frozen)

    assert ended is RunState.SUCCEEDED
    wait_until(lambda: fleet.view().refused_fences > refused, "what it says to be refused")
    wait_until(fleet.all_up, "it to come back")
    assert len(list(fleet.real_repository.glob("points/*/*"))) == points + len(fleet.machines)
    fleet.assert_safe()


def test_a_proxy_that_lost_its_mount_keeps_the_others_from_nothing(fleet: HurtFleet) -> None:
    fleet.hide_repository("proxy-1")
    for machine, disk in fleet.disks:  # something to store, wherever a disk is done
        with fleet.flat(machine, disk).open("r+b") as flat:
            flat.write(os.urandom(MIB))
    run = fleet.start_run()
    wait_until(lambda: "is its file system mounted?" in fleet.log("proxy-1").lower(), "it to notice")
    assert fleet.end_run(run) is RunState.SUCCEEDED
    fleet.show_repository("proxy-1")

    fleet.assert_safe()


def test_a_repository_whose_disk_is_full_fails_by_name_and_the_run_is_retried(fleet: HurtFleet) -> None:
    for machine, disk in fleet.disks:
        with fleet.flat(machine, disk).open("r+b") as flat:
            flat.write(os.urandom(4 * MIB))
    balloon = fleet.fill_repository(leave_bytes=8 * MIB)

    run = fleet.start_run()
    assert fleet.end_run(run) in {RunState.FAILED, RunState.PARTLY_FAILED}
    failures = {disk.failure.code for disk in fleet.disks_of(run) if disk.failure is not None}
    assert failures == {"store-full"}

    balloon.unlink()
    fleet.command("scheduler", "run", "retry", run)
    assert fleet.end_run(run, from_final=True) is RunState.SUCCEEDED
    fleet.assert_safe()


def test_a_proxy_without_room_for_its_state_takes_nothing_and_says_why(fleet: HurtFleet) -> None:
    state = fleet.layout.state / "proxies" / "proxy-3"
    fleet.crowd_state("proxy-3")

    wait_until(lambda: fleet.view().proxies["proxy-3"].draining, "it to be unfit")
    run = fleet.start_run()
    assert fleet.end_run(run) is RunState.SUCCEEDED
    assert {disk.proxy for disk in fleet.disks_of(run)} <= {"proxy-1", "proxy-2"}
    [shown] = [row for row in fleet.read_json("scheduler", "proxy", "list", "--json") if row["name"] == "proxy-3"]
    assert (shown["state"], shown["note"]) == (
        "unfit",
        f"1 MiB are free for its state folder {state}, and 16 are needed",
    )

    fleet.clear_state("proxy-3")
    wait_until(lambda: not fleet.view().proxies["proxy-3"].draining, "it to be fit again")


def test_a_process_that_gets_no_memory_fails_by_name_and_the_disk_is_done(fleet: HurtFleet) -> None:
    starved = fleet.starve("proxy-2")

    run = fleet.start_run()
    ended = fleet.end_run(run)
    fleet.feed(starved)

    assert ended is RunState.SUCCEEDED
    assert "has no memory left for it" in fleet.log("proxy-2")
    assert "Traceback" not in fleet.log("proxy-2")
    fleet.assert_safe()


def test_a_process_that_the_kernel_kills_for_its_memory_is_named_and_the_disk_is_done(
    fleet: HurtFleet, tmp_path: Path
) -> None:
    def killed_in_a_run() -> bool:
        # All but one: no disk can kill three in a row, and be quarantined. Whoever is killed before it has claimed
        # a disk, or once its lease has run out, is in no history, and has a successor with all the memory it wants.
        for process in fleet.pool("proxy-2")[1:]:
            with suppress(ProcessLookupError):  # it has just ended by itself
                members.write_text(str(process.pid))
        run = fleet.start_run()
        assert fleet.end_run(run) is RunState.SUCCEEDED
        notes = [attempt.note for disk in fleet.disks_of(run) for attempt in disk.history]
        return any("SIGKILL" in note and "the kernel has just killed for want of it" in note for note in notes)

    with memory_group(tmp_path, 2 * MIB) as members:
        wait_until(killed_in_a_run, "a disk to be given to a process that has too little", timeout_s=600)

    fleet.assert_safe()


def test_a_disk_that_gives_io_errors_fails_by_name_and_is_done_once_it_reads(fleet: HurtFleet) -> None:
    machine, disk = fleet.disks[0]
    run = fleet.start_run()
    fleet.break_disk(machine, disk)

    wait_until(lambda: any(row.failure for row in fleet.disks_of(run)), "it to fail")
    [broken] = [row.failure for row in fleet.disks_of(run) if row.failure is not None]
    fleet.break_disk(machine, disk, on=False)

    assert "input/output error" in broken.why.lower()
    assert fleet.end_run(run) is RunState.SUCCEEDED
    fleet.assert_safe()


def test_a_database_without_room_is_waited_out(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1")
    balloon = fleet.fill_database()
    try:
        wait_until(lambda: "its file system is full" in fleet.log("scheduler"), "it to be said")
    finally:
        balloon.unlink()

    assert fleet.end_run(run) is RunState.SUCCEEDED
    fleet.assert_safe()


def test_clocks_that_jump_move_no_lease(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1", "proxy-2")

    fleet.set_clock("proxy-1", 26 * 3600)
    fleet.set_clock("proxy-2", -26 * 3600)
    fleet.set_clock("scheduler", 3600)
    assert fleet.end_run(run) is RunState.SUCCEEDED
    assert {disk.attempts for disk in fleet.disks_of(run)} == {1}

    for name, wrong in {"proxy-1": "26.0 h ahead of Redis'", "proxy-2": "26.0 h behind Redis'"}.items():
        wait_until(lambda name=name, wrong=wrong: wrong in fleet.view().proxies[name].note, "the wrong clock")
    again = fleet.start_run()
    assert fleet.end_run(again) is RunState.SUCCEEDED
    assert {disk.proxy for disk in fleet.disks_of(again)}.isdisjoint({"proxy-1", "proxy-2"})
    fleet.heal()
    for name in ("proxy-1", "proxy-2"):
        wait_until(lambda name=name: not fleet.view().proxies[name].note, "the right clock")
    fleet.assert_safe()


def test_a_disk_that_kills_every_process_is_quarantined_with_its_log(fleet: HurtFleet) -> None:
    machine, disk = fleet.disks[0]
    fleet.poison(machine, disk)

    run = fleet.start_run()
    assert fleet.end_run(run) is RunState.PARTLY_FAILED
    fleet.poison(machine, disk, on=False)

    [bad] = [ended for ended in fleet.disks_of(run) if ended.failure is not None]
    assert bad.failure is not None
    assert (bad.failure.code, bad.failure.retryable) == ("quarantined", False)
    assert bad.attempts >= 3, "more where a lease ran out before its parent saw the process die"
    assert "3 processes in a row died over it" in bad.failure.why
    assert "was killed by SIGKILL" in bad.failure.why
    assert any("disk.backup vm0 scsi0:0: begins" in line for line in bad.failure.log)
    others = [ended for ended in fleet.disks_of(run) if ended.failure is None]
    assert {(ended.state.value, ended.attempts) for ended in others} == {("succeeded", 1)}
    fleet.command("scheduler", "run", "retry", run)
    assert fleet.end_run(run, from_final=True) is RunState.SUCCEEDED
    fleet.assert_safe()


def test_proxies_are_upgraded_one_by_one_and_those_of_unknown_versions_refused(fleet: HurtFleet) -> None:
    for name, version in {
        "proxy-1": OLDEST_SERVED,
        "proxy-2": OLDEST_SERVED - 1,
        "proxy-3": CONTRACT_VERSION + 1,
    }.items():
        fleet.as_old_as[name] = version
        fleet.terminate(name)
        fleet.start(name)
    wait_until(lambda: sum(proxy.live for proxy in fleet.view().proxies.values()) == 4, "them to come back")
    shown = {row["name"]: row for row in fleet.read_json("scheduler", "proxy", "list", "--json")}
    assert [shown[name]["state"] for name in ("proxy-1", "proxy-2", "proxy-3")] == ["up", "refused", "refused"]
    served = f"{OLDEST_SERVED} to {CONTRACT_VERSION}"
    assert shown["proxy-2"]["note"].endswith(f"this scheduler serves {served}: upgrade the proxy")
    assert shown["proxy-3"]["note"].endswith(f"this scheduler {CONTRACT_VERSION}: upgrade the scheduler")

    run = fleet.start_run()
    fleet.as_old_as.clear()
    for name in ("proxy-2", "proxy-3"):
        fleet.terminate(name)
        fleet.start(name)
    assert fleet.end_run(run) is RunState.SUCCEEDED
    assert {disk.attempts for disk in fleet.disks_of(run)} == {1}
    fleet.terminate("proxy-1")
    fleet.start("proxy-1")
    wait_until(fleet.all_up, "all to be of this version")
    fleet.assert_safe()
