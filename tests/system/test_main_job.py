"""The main job on real processes: back up, back up again, restore what was and what is, and stop in order."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, change, flat_path, make_machines
from tests.system.commands import BIN
from tests.system.live_fleet import SCHEDULER, LiveFleet, explained, wait_until

MACHINES = (
    Machine("web01", "ds", (Disk("scsi0:0", 48, 8), Disk("scsi0:1", 32, 8, filesystem=False))),
    Machine("db01", "ds", (Disk("scsi0:0", 64, 16, filesystem=False),)),
)
DISKS = [(machine, disk) for machine in MACHINES for disk in machine.disks]
JOBS = """
[[job]]
name = "everything"
vms = ["web*", "db01"]
repository = "main"
[[job]]
name = "partly"
vms = ["db01", "broken", "nosuch*"]
repository = "main"
retries = { count = 1, wait_minutes = 0.02 }
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    state = tmp_path_factory.mktemp("main-job")
    make_machines(MACHINES, state / "datastores", state / "scratch")
    with LiveFleet(state, [ProxyPlace("proxy-1", "primary", "ds")], JOBS) as fleet, explained(fleet):
        yield fleet


def _flat(fleet: LiveFleet, machine: Machine, disk: Disk) -> Path:
    return flat_path(fleet.layout.datastores / machine.datastore / machine.name, disk)


def _digests(fleet: LiveFleet) -> list[str]:
    return [hashlib.sha256(_flat(fleet, machine, disk).read_bytes()).hexdigest() for machine, disk in DISKS]


def _restored_digests(fleet: LiveFleet, folder: Path, points: dict[str, str]) -> list[str]:
    folder.mkdir()
    digests = []
    for machine, disk in DISKS:
        target = folder / f"{machine.name}-{disk.key}"
        fleet.command(
            *("scheduler", "restore", "disk", "--vm", machine.name, "--disk", disk.key),
            *("--point", points[machine.name], "--to", str(target), "--wait"),
        )
        digests.append(hashlib.sha256(target.read_bytes()).hexdigest())
    return digests


def test_full_backup_incremental_and_restores_of_both(fleet: LiveFleet, tmp_path: Path) -> None:
    before = _digests(fleet)
    full = fleet.read_json("scheduler", "job", "start", "everything", "--wait", "--json")
    for machine, disk in DISKS:
        change(machine, disk, fleet.layout.datastores, tmp_path / "scratch")
    after = _digests(fleet)
    incremental = fleet.read_json("scheduler", "job", "start", "everything", "--wait", "--json")

    assert [full["state"], incremental["state"]] == ["succeeded", "succeeded"]
    assert {disk["attempts"] for disk in full["disks"] + incremental["disks"]} == {1}
    points = [{vm["vm"]: vm["point"] for vm in run["vms"]} for run in (full, incremental)]
    assert {disk["parent"] for disk in incremental["disks"]} == set(points[0].values())
    stored = [sum(disk["stored_bytes"] for disk in run["disks"]) for run in (full, incremental)]
    assert stored[1] < stored[0] / 2
    assert _restored_digests(fleet, tmp_path / "old", points[0]) == before
    assert _restored_digests(fleet, tmp_path / "new", points[1]) == after


def test_a_deleted_point_gives_its_room_back_and_takes_nothing_from_the_others(
    fleet: LiveFleet, tmp_path: Path
) -> None:
    def points() -> list[str]:
        listed = fleet.read_json("scheduler", "point", "list", "--vm", "web01", "--json")
        return [point["point"] for point in listed]

    with _flat(fleet, MACHINES[0], MACHINES[0].disks[1]).open("r+b") as raw:
        raw.write(os.urandom(8 << 20))
    fleet.command("scheduler", "job", "start", "everything", "--wait")
    newest, *older = points()
    before = _stored_bytes(fleet)
    for point in older:
        fleet.command("scheduler", "point", "delete", "web01", point)
    wait_until(lambda: points() == [newest], "the points to be gone")
    fleet.command("scheduler", "repository", "collect", "main", "--wait")

    assert _stored_bytes(fleet) < before
    checked = fleet.read_json("scheduler", "repository", "check", "main", "--json")
    assert (checked["state"], checked["damage"]) == ("succeeded", [])
    left = {point["vm"]: point["point"] for point in fleet.read_json("scheduler", "point", "list", "--json")[::-1]}
    assert _restored_digests(fleet, tmp_path / "left", left) == _digests(fleet)


def _stored_bytes(fleet: LiveFleet) -> int:
    return sum(path.stat().st_size for path in fleet.layout.repository.rglob("packs/*/*"))


def test_what_fails_is_named_and_harms_nobody(fleet: LiveFleet) -> None:
    broken = fleet.layout.datastores / "ds" / "broken"
    broken.mkdir()
    (broken / "broken.vmx").write_text(
        'displayName = "broken"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "no.vmdk"\n'
    )

    done = fleet.attempt("scheduler", "job", "start", "partly", "--wait", "--json")

    assert done.returncode == 1, done.stdout + done.stderr
    run = fleet.newest_run()
    states = {vm["vm"]: vm["state"] for vm in run["vms"]}
    assert run["state"] == "partly failed"
    assert states == {"db01": "succeeded", "broken": "failed", "nosuch*": "failed"}


def test_a_second_scheduler_is_refused_by_name(fleet: LiveFleet) -> None:
    second = subprocess.run(
        [str(BIN / "scheduler"), "serve", "--config", str(fleet.layout.scheduler_config)],
        env=fleet.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert second.returncode == 9
    assert f"another scheduler serves from it: process {fleet.main_process(SCHEDULER)}" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_scheduler_goes_on_with_what_runs_after_it_was_killed(fleet: LiveFleet) -> None:
    fleet.command("scheduler", "job", "start", "everything")
    fleet.kill(SCHEDULER, whole_group=False)
    fleet.start(SCHEDULER)

    wait_until(lambda: fleet.newest_run()["state"] == "succeeded", "the run to end")
    assert {disk["attempts"] for disk in fleet.newest_run()["disks"]} == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_ends_its_own_proxy_and_leaves_no_process(fleet: LiveFleet, number: signal.Signals) -> None:
    scheduler = psutil.Process(fleet.main_process(SCHEDULER))
    wait_until(lambda: bool(scheduler.children(recursive=True)), "the server's own proxy")
    family = scheduler.children(recursive=True)

    scheduler.send_signal(number)

    _, alive = psutil.wait_procs([scheduler, *family], timeout=120)
    assert alive == []
    fleet.start(SCHEDULER)
    wait_until(fleet.all_up, "the server's own proxy to be back")
