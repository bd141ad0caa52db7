"""Redis gone, hung, slow, read-only, emptied: disks pause or move on, none is lost, none is committed twice."""

from __future__ import annotations

import shutil
import time

import redis

from proxy_worker.ledger import TaskState
from scheduler.state.models import RunState
from tests.surviving.fleet import HurtFleet
from tests.surviving.relay import Wire
from tests.system.live_fleet import wait_until
from tests.tasks.fleet import QUICK


def test_a_proxy_cut_off_for_longer_than_its_lease_stops_and_others_do_its_disks(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1")
    refused = fleet.view().refused_fences

    fleet.wires["proxy-1"].wire = Wire.CUT
    wait_until(lambda: not fleet.running("proxy-1"), "its leases to run out")
    fleet.wires["proxy-1"].wire = Wire.WHOLE

    assert fleet.end_run(run) is RunState.SUCCEEDED
    wait_until(lambda: fleet.view().refused_fences > refused, "what it still says to be refused")
    assert max(disk.attempts for disk in fleet.disks_of(run)) == 2
    fleet.assert_safe()


def test_a_proxy_whose_wire_hangs_is_done_without_and_comes_back(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-2")

    fleet.wires["proxy-2"].wire = Wire.HUNG
    wait_until(lambda: not fleet.view().proxies["proxy-2"].live, "it not to be heard")
    assert fleet.end_run(run) is RunState.SUCCEEDED
    fleet.wires["proxy-2"].wire = Wire.WHOLE

    wait_until(lambda: fleet.view().proxies["proxy-2"].live, "it to be heard again")
    again = fleet.begin_run("proxy-2")
    assert fleet.end_run(again) is RunState.SUCCEEDED
    fleet.assert_safe()


def test_a_redis_200_ms_away_slows_nothing_down_but_words(fleet: HurtFleet) -> None:
    def slow(delay_s: float) -> None:
        for wire in fleet.wires.values():
            wire.answer_delay_s = delay_s

    slow(0.2)
    run = fleet.begin_run()
    assert fleet.end_run(run) is RunState.SUCCEEDED
    slow(0)

    assert {disk.attempts for disk in fleet.disks_of(run)} == {1}, "no lease was lost"
    fleet.assert_safe()


def test_a_redis_that_takes_no_writes_is_waited_out(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1", "proxy-2")
    with redis.Redis(port=fleet.valkey.port, password=fleet.valkey.password) as client:
        client.config_set("min-replicas-to-write", 1)
        wait_until(lambda: "takes no writes" in fleet.log("scheduler"), "the scheduler to say so")
        wait_until(lambda: "takes no writes" in fleet.log("proxy-1"), "a proxy to say so")
        time.sleep(QUICK.lease_s)  # nobody may draw a conclusion from it, however long it lasts
        client.config_set("min-replicas-to-write", 0)

    assert fleet.end_run(run) is RunState.SUCCEEDED
    wait_until(fleet.all_up, "every proxy to go on")
    fleet.assert_safe()


def test_a_redis_restarted_empty_is_filled_again_from_the_database(fleet: HurtFleet) -> None:
    run = fleet.begin_run("proxy-1", "proxy-2", "proxy-3")
    epoch = fleet.view().epoch
    assert epoch is not None

    fleet.valkey.kill()
    shutil.rmtree(fleet.valkey.folder / "appendonlydir")
    fleet.valkey.start()

    wait_until(lambda: fleet.view().epoch == epoch + 1, "a new epoch")
    assert not any(task.state is TaskState.RUNNING for task in fleet.view().tasks.values())
    assert fleet.end_run(run) is RunState.SUCCEEDED
    fleet.assert_safe()
