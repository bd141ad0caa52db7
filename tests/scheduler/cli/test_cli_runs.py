"""`scheduler job start` and `scheduler run`: from asking to the outcome, with and without waiting."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.ledger import Claim
from scheduler.service import Service
from tests.scheduler.cli.conftest import Program, serving
from tests.scheduler.conftest import World
from tests.simulators.proxies import DISK_BYTES, disk_report

DISKS = [("app01", "scsi0:0"), ("web01", "scsi0:0"), ("web01", "scsi0:1")]


@pytest.fixture
def joined(applied: Program, world: World) -> Program:
    """The command, with a fleet of one proxy of two slots."""
    world.fleet.join("proxy-1")
    return applied


def test_without_a_service_a_run_is_recorded_and_said_to_wait(applied: Program) -> None:
    started = applied("job", "start", "nightly")
    assert started.code == 0
    assert re.match(r"Requested run \d{8}T\d{6}Z-[0-9a-f]{8} of job nightly\.\n", started.out)
    assert "No `scheduler serve` is running: the run starts once it does." in started.err
    assert [run["state"] for run in applied("run", "list", "--json").json] == ["requested"]


def test_waiting_without_a_service_is_refused_and_nothing_is_recorded(applied: Program) -> None:
    refused = applied("job", "start", "nightly", "--wait")
    assert (refused.code, refused.out) == (9, "")
    assert "no `scheduler serve` is running" in refused.err
    assert applied("run", "list", "--json").json == []


def test_a_second_run_of_a_job_is_refused_while_one_is_under_way(applied: Program) -> None:
    applied("job", "start", "nightly")
    refused = applied("job", "start", "nightly")
    assert refused.code == 9
    assert "is still requested. Wait for it, or `scheduler run cancel" in refused.err


def test_waiting_ends_with_0_and_the_run_as_json_when_every_disk_succeeded(joined: Program, world: World) -> None:
    with serving(world):
        ended = joined("job", "start", "nightly", "--wait", "--json")
    assert (ended.code, ended.err) == (0, "")
    run = ended.json
    assert (run["job"], run["state"], run["trigger"]) == ("nightly", "succeeded", "manual")
    assert [(disk["vm"], disk["disk"]) for disk in run["disks"]] == DISKS
    for disk in run["disks"]:
        assert (disk["state"], disk["proxy"], disk["mode"]) == ("succeeded", "proxy-1", "direct_storage")
        assert (disk["attempts"], disk["reason"]) == (1, None)
    assert {vm["vm"]: bool(vm["point"]) for vm in run["vms"]} == {"app01": True, "web01": True}
    assert run["size_bytes"] == run["processed_bytes"] == 3 << 30


def test_where_there_is_no_terminal_progress_is_lines_and_the_summary_plain_text(
    joined: Program, world: World
) -> None:
    with serving(world):
        ended = joined("job", "start", "nightly", "--wait")
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert not re.search(r" $", ended.out, re.MULTILINE)
    for vm, disk in DISKS:
        assert re.search(
            rf"^{vm} {disk}: succeeded, 100% of 1.0 GiB, .*direct_storage, on proxy-1$", ended.out, re.M
        )
    for figure in ("processed", "read", "transferred", "stored", "rate", "bottleneck"):
        assert re.search(rf"^{figure} +\S", ended.out, re.MULTILINE)
    assert re.search(r"^web01 +scsi0:1 +succeeded .* proxy-1$", ended.out, re.MULTILINE)


def test_waiting_ends_with_1_when_a_disk_failed_and_says_why(joined: Program, world: World) -> None:
    world.fleet.failures["disk.backup web01 scsi0:1"] = 9
    with serving(world):
        ended = joined("job", "start", "nightly", "--wait")
        assert ended.code == 1
        assert "failed web01 scsi0:1: disk.backup web01 scsi0:1: the datastore did not answer" in ended.out
        run = joined("run", "list", "--json").json[0]
        assert run["state"] == "partly failed"
        assert [disk["state"] for disk in run["disks"]] == ["succeeded", "succeeded", "failed"]

        world.fleet.failures.clear()
        assert joined("run", "retry", run["run"], "--wait").code == 0
        again = joined("run", "retry", run["run"])
    assert again.code == 9
    assert "there is nothing to retry" in again.err


def test_waiting_includes_the_retries(joined: Program, world: World) -> None:
    joined(
        "job",
        "create",
        "patient",
        "--vm",
        "app01",
        "--repository",
        "main",
        "--retries",
        "1",
        "--retry-wait",
        "0.01",
    )
    world.fleet.failures["disk.backup app01 scsi0:0"] = 1
    with serving(world):
        ended = joined("job", "start", "patient", "--wait")
    assert ended.code == 0
    assert (
        "app01 scsi0:0: waiting, on proxy-1: disk.backup app01 scsi0:0: the datastore did not answer" in ended.out
    )
    assert joined("run", "list", "--json").json[0]["disks"][0]["attempts"] == 2


def test_a_vm_that_does_not_exist_fails_the_run_by_name(joined: Program, world: World) -> None:
    joined("job", "create", "typo", "--vm", "wbe01", "--repository", "main")
    with serving(world):
        ended = joined("job", "start", "typo", "--wait")
    assert ended.code == 1
    assert "failed wbe01: no VM has that name" in ended.out


def test_a_cancelled_run_ends_the_waiting_with_11(applied: Program, world: World) -> None:
    with serving(world):  # and no proxy, so that it goes on until it is cancelled
        applied("job", "start", "nightly")
        run_id = applied("run", "list", "--json").json[0]["run"]
        assert applied("run", "cancel", run_id).err == f"Run {run_id} is being cancelled.\n"
        assert applied("run", "watch", run_id).code == 11
        assert applied("run", "cancel", run_id).code == 9


def test_stopping_a_job_cancels_its_run(applied: Program) -> None:
    applied("job", "start", "nightly")
    run_id = applied("run", "list", "--json").json[0]["run"]
    assert f"Run {run_id} is being cancelled." in applied("job", "stop", "nightly").err


def test_a_run_is_found_by_the_start_of_its_id(applied: Program) -> None:
    applied("job", "start", "nightly")
    run_id = applied("run", "list", "--json").json[0]["run"]
    assert applied("run", "show", run_id[:-4], "--json").json["run"] == run_id


def test_what_runs_shows_live_progress_and_what_waits_its_reason(applied: Program, world: World) -> None:
    world.fleet.join("proxy-1", slots=1)
    service = world.start()
    applied("job", "start", "nightly")
    claim = _claim_first_disk(world, service)
    progress = DiskProgress(
        size_bytes=1 << 30, processed_bytes=1 << 28, read_bytes=1 << 27, stored_bytes=1 << 20,
        rate=float(1 << 27), mode=TransportMode.NETWORK,
    )  # fmt: skip
    world.fleet.ledger.renew(claim.fence, None, progress)

    run = applied("run", "list", "--json").json[0]
    running = [disk for disk in run["disks"] if disk["state"] == "running"]
    assert [(disk["proxy"], disk["mode"], disk["processed_bytes"]) for disk in running] == [
        ("proxy-1", "network", 1 << 28)
    ]
    assert {disk["reason"] for disk in run["disks"] if disk["state"] == "queued"} == {
        "proxy proxy-1 is full (1 of 1 slots)"
    }
    status = applied("status").out
    assert re.search(r"scsi0:0 +25% of 1.0 GiB +128 MiB/s +0:06 +proxy-1 +network", status)
    assert "2 tasks waiting: proxy proxy-1 is full (1 of 1 slots)" in status
    assert re.search(r"proxy-1 +primary +up +1 of 1", status)
    shown = applied("status", "--json").json
    assert (shown["ledger"], shown["slots"], shown["used"], shown["serving"]) == ("ok", 1, 1, False)
    assert shown["waiting"] == [{"reason": "proxy proxy-1 is full (1 of 1 slots)", "tasks": 2}]
    assert "works on\n  disk.backup" in applied("proxy", "show", "proxy-1").out


def test_a_run_that_looks_for_its_vms_says_what_that_waits_for(applied: Program, world: World) -> None:
    service = world.start()  # and no proxy that could look
    applied("job", "start", "nightly")
    service.turn()

    run = applied("run", "list", "--json").json[0]

    assert (run["state"], run["reason"]) == ("scanning", "no proxy is running")
    assert "no proxy is running" in applied("run", "show", run["run"]).out


def test_a_disk_that_is_done_does_not_look_queued_until_it_is_recorded(applied: Program, world: World) -> None:
    world.fleet.join("proxy-1", slots=1)
    claim = _claim_first_disk_of_a_run(applied, world)
    world.fleet.ledger.complete(claim.fence, DiskBackupResult(report=disk_report(), sealed_result="sealed"))

    (done,) = [disk for disk in applied("run", "list", "--json").json[0]["disks"] if disk["processed_bytes"]]

    assert (done["state"], done["processed_bytes"]) == ("running", DISK_BYTES)


def _claim_first_disk_of_a_run(applied: Program, world: World) -> Claim:
    service = world.start()
    applied("job", "start", "nightly")
    return _claim_first_disk(world, service)


def _claim_first_disk(world: World, service: Service) -> Claim:
    """Take turns until a disk is announced, and have its proxy begin it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        service.turn()
        disks = [message for message in world.lanes.messages if message.kind is TaskKind.DISK_BACKUP]
        if disks:
            held = world.fleet.claim(disks[0])
            assert held is not None
            return held[1]
        world.fleet.work()
    raise AssertionError("no disk was announced")


def test_ctrl_c_leaves_the_run_running_and_says_how_to_go_on(
    applied: Program, world: World, configured: Path
) -> None:
    with serving(world):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "job", "start", "nightly", "--wait"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert waiting.stdout is not None
        assert "of job nightly" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=120)
        run = applied("run", "list", "--json").json[0]
    assert waiting.returncode == 130
    assert f"Run {run['run']} goes on." in said
    assert f"scheduler run watch {run['run']}" in said
    assert f"scheduler run cancel {run['run']}" in said
    assert run["state"] not in {"cancelled", "failed"}


def test_redis_going_away_does_not_end_the_waiting(
    joined: Program, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(world):
        monkeypatch.setenv("SCHEDULER_REDIS__URL", "redis://127.0.0.1:1/0")  # as this command sees it
        assert joined("job", "start", "nightly", "--wait", "--json").json["state"] == "succeeded"
