"""Two schedulers on one PostgreSQL: one leads, the other takes over from whatever has become of it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, make_machines
from scheduler.state.access import DatabaseAccess
from scheduler.state.lock import servers_of
from scheduler.state.models import DiskTask, DiskTaskState, Run, RunState
from scheduler.state.store import reach_state
from tests.postgresql_server import PASSWORD, PostgresqlServer
from tests.system.commands import BIN
from tests.system.live_fleet import SCHEDULER, LiveFleet, explained, wait_until

OTHER = "scheduler-b"
MACHINES = tuple(
    Machine(f"vm{number}", "ds", tuple(Disk(f"scsi0:{unit}", 48, 36, filesystem=False) for unit in range(3)))
    for number in range(3)
)
PROXIES = tuple(ProxyPlace(f"proxy-{number}", "primary", "ds") for number in (1, 2))
JOBS = """
[[job]]
name = "everything"
vms = ["vm*"]
repository = "main"
transport_mode = "network"
retries = { count = 20, wait_minutes = 0.02 }
"""
NBD_MIB_S = 0.5
"""So slow that disks wait for a slot for minutes, until all has happened that is to."""

TAKE_OVER_S = 15
"""What is promised: a lease that has just been renewed, a look a second, and the answers of the database."""
BUSY = 2
"""How much longer it may take while the whole suite keeps the machine busy."""


class SharedFleet(LiveFleet):
    """A fleet whose database is PostgreSQL, with a second scheduler that has the same signing key."""

    def __init__(self, state: Path, postgresql: PostgresqlServer) -> None:
        super().__init__(state, PROXIES, JOBS, nbd_mib_s=NBD_MIB_S)
        self.postgresql = postgresql

    def _write_files(self) -> None:
        super()._write_files()
        self.layout.write_secret(self.layout.secrets("server") / "database", PASSWORD)
        own = self.layout.scheduler_config
        url = self.postgresql.new_database()
        self.state = reach_state(DatabaseAccess(url, PASSWORD))
        text = f'database_url = "{url}"\ndatabase_credential = "database"\n{own.read_text()}'
        own.write_text(text)
        self.other_config = own.with_name("scheduler-b.toml")
        text = text.replace(f'"{self.layout.state}/scheduler"', f'"{self.layout.state}/scheduler-b"')
        self.other_config.write_text(text.replace("enabled = true", "enabled = false"))

    def start_other(self) -> None:
        """Start the second scheduler."""
        folder = self.layout.state / "scheduler-b"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.layout.public_key.with_name("signing.key"), folder)
        command = [str(BIN / "scheduler"), "serve", "--config", str(self.other_config)]
        self._services[OTHER] = self.supervisor.start(OTHER, command)

    def status(self) -> str:
        """What `scheduler status` says beside the scheduler that stands by."""
        return self.command("scheduler", "--config", str(self.other_config), "status", "--once")

    def leads(self, process: int) -> bool:
        """Whether the scheduler with that process id leads, as the database says."""
        return f"process {process} on" in str(servers_of(self.state).leader)

    def stands_by(self, process: int) -> bool:
        """Whether it waits for its turn."""
        return f"process {process} on" in str(servers_of(self.state).standing_by)

    def states(self) -> set[RunState | DiskTaskState]:
        """The states of runs and disks."""
        with self.state.read() as session:
            return {*session.scalars(select(Run.state)), *session.scalars(select(DiskTask.state))}

    def log(self, name: str) -> str:
        """What a scheduler has said."""
        return (self.layout.state / "logs" / f"{name}.log").read_text()


def test_a_run_goes_on_whatever_becomes_of_the_scheduler_that_leads(tmp_path: Path) -> None:
    make_machines(MACHINES, tmp_path / "datastores", tmp_path / "scratch")
    with (
        PostgresqlServer() as postgresql,
        SharedFleet(tmp_path, postgresql) as fleet,
        explained(fleet),
    ):
        fleet.start_other()
        first, second = fleet.main_process(SCHEDULER), fleet.main_process(OTHER)
        wait_until(lambda: fleet.stands_by(second), "the second scheduler to stand by")
        assert fleet.leads(first)
        assert f"standing by: process {first} on" in fleet.log(OTHER)
        status = fleet.status()
        assert f"scheduler: serving (process {first} on" in status
        assert f"standing by: process {second} on" in status

        fleet.command("scheduler", "job", "start", "everything")
        wait_until(lambda: DiskTaskState.QUEUED in fleet.states(), "disks to be read")
        _take_over(fleet, second, lambda: fleet.kill(SCHEDULER, whole_group=False))
        wait_until(lambda: "joined epoch 1 of the ledger" in fleet.log(OTHER), "what runs to go on")

        fleet.start(SCHEDULER)
        first = fleet.main_process(SCHEDULER)
        wait_until(lambda: fleet.stands_by(first), "the first scheduler to stand by")
        _take_over(fleet, first, lambda: os.kill(second, signal.SIGSTOP))
        os.kill(second, signal.SIGCONT)
        wait_until(lambda: fleet.stands_by(second), "the frozen one to stand by")
        assert fleet.leads(first)
        assert f"process {second} on" in fleet.log(OTHER).split("stops leading")[0].splitlines()[-1]
        assert DiskTaskState.QUEUED in fleet.states(), "the run was over too soon to show anything"

        postgresql.stop(signal.SIGQUIT)
        postgresql.start()
        fleet.hurry_nbd()
        wait_until(lambda: not fleet.states() & {RunState.RUNNING}, "the run to end")
        run = fleet.newest_run()
        assert run["state"] == "succeeded", run
        assert [disk["state"] for disk in run["disks"]] == ["succeeded"] * 9
        passphrase = ("--passphrase-file", str(fleet.layout.passphrase))
        repository = str(fleet.layout.repository)
        points = fleet.read_json("proxy-worker", "repository", "list", repository, *passphrase, "--json")
        assert sorted(point["vm"] for point in points) == [machine.name for machine in MACHINES]
        for name in (SCHEDULER, OTHER):
            assert "Traceback" not in fleet.log(name)
            assert PASSWORD not in fleet.log(name)


def _take_over(fleet: SharedFleet, successor: int, happen: Callable[[], None]) -> None:
    began = time.monotonic()
    happen()
    wait_until(lambda: fleet.leads(successor), "the other to take over", timeout_s=BUSY * TAKE_OVER_S)
    print(f"taken over within {time.monotonic() - began:.1f} s")
