"""What the demo shows, in order: fleet, first backup, a day of changes, incremental, restore, comparison; then a
replica at the other site, through a traffic rule, which takes its original's place for a while.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.demo import fleet
from ops.demo.layout import PROXIES, Layout
from ops.demo.machines import MACHINES, Disk, Machine, change, change_disk, flat_path, make_machines
from ops.demo.processes import Supervisor
from ops.demo.summary import RunFigures, show_disks, show_next_steps, show_runs
from ops.demo.terminal import Shell, heading, say

JOB = "nightly"
REPLICATED = next(machine for machine in MACHINES if machine.name == "db01")
RULE = "between-sites"
RULED_S = 8.0
"""How long the traffic rule holds."""


class Story:
    """One telling of it, in one state folder."""

    def __init__(self, layout: Layout, supervisor: Supervisor) -> None:
        self._layout = layout
        self._supervisor = supervisor
        config = {"SCHEDULER_CONFIG": str(layout.scheduler_config)}
        self._shell = Shell(supervisor.environment(config))

    def tell(self, *, keep: bool) -> None:
        """All of it; raises `DemoError` where something isn't as it should be."""
        self._make_machines()
        self._start_fleet()
        first = self._back_up("full")
        original = self._digest(*_disks()[0])
        self._let_a_day_pass()
        second = self._back_up("incremental")
        self._restore_everything()
        self._restore_the_day_before(original)
        self._replicate()
        self._fail_over_and_back()
        heading("Summary")
        show_runs([first, second])
        show_disks([first, second])
        show_next_steps(self._layout, kept=keep)

    def _make_machines(self) -> None:
        heading("Three virtual machines with five disks")
        make_machines(MACHINES, self._layout.datastores, self._layout.scratch)
        for machine, disk in _disks():
            what = f"ext4 with {disk.content_mib} MiB of files" if disk.filesystem else "raw and sparse"
            say(f"  {machine.datastore:<11} {machine.name:<9} {disk.key:<8} {disk.size_mib:>5} MiB  {what}")

    def _start_fleet(self) -> None:
        layout = self._layout
        layout.write_secrets()
        layout.write_server_files()
        heading("An encrypted repository; proxies get a key that can write and not read")
        fleet.make_repository(self._shell, layout)
        heading("A backup server, three proxies and Flower")
        fleet.start_server(self._supervisor, layout)
        fleet.make_certificates(self._shell, layout)
        fleet.start_proxies(self._supervisor, layout)
        fleet.start_flower(self._supervisor, layout)
        heading("The fleet as one file declares it")
        self._shell.run("scheduler", "apply", "-f", str(layout.fleet_file))
        fleet.wait_for_proxies(self._supervisor, self._shell, [proxy.name for proxy in PROXIES])
        self._shell.run("scheduler", "proxy", "list")
        fleet.wait_for_flower(self._supervisor, layout)

    def _back_up(self, title: str) -> RunFigures:
        heading(f"Backup: {title}")
        return fleet.back_up(self._supervisor, self._shell, self._layout, JOB, title)

    def _let_a_day_pass(self) -> None:
        heading("A day passes on the machines")
        for machine, disk in _disks():
            what = change(machine, disk, self._layout.datastores, self._layout.scratch)
            say(f"  {machine.name:<9} {disk.key:<8} {what}")

    def _restore_everything(self) -> None:
        heading("Restore of every disk, compared with its source by SHA-256")
        beside = ThreadPoolExecutor(1)
        try:
            sources = [beside.submit(self._digest, machine, disk) for machine, disk in _disks()]
            for (machine, disk), source in zip(_disks(), sources, strict=True):
                target = self._layout.restored / f"{machine.name}-{disk.key.replace(':', '-')}.img"
                self._restore(machine.name, disk.key, target)
                fleet.compare(f"{machine.name} {disk.key}", source.result(), fleet.sha256(target))
        finally:
            beside.shutdown(wait=False, cancel_futures=True)

    def _restore_the_day_before(self, original: str) -> None:
        heading("The day before is still there")
        vm, key = (_disks()[0][0].name, _disks()[0][1].key)
        points = self._shell.read_json("scheduler", "point", "list", "--vm", vm, "--json")
        oldest = min(points, key=lambda point: point["created"])
        target = self._layout.restored / f"{vm}-the-day-before.img"
        self._restore(vm, key, target, "--point", oldest["point"])
        fleet.compare(f"{vm} {key} of the first run", original, fleet.sha256(target))

    def _replicate(self) -> None:
        heading(f"A replica of {REPLICATED.name} at the remote site, held to 80 Mbit/s by a traffic rule")
        rule = ("--from", "10.1.0.0/16", "--to", "10.2.0.0/16", "--limit", "80 Mbit/s")
        self._shell.run("scheduler", "traffic-rule", "add", RULE, *rule)
        say(f"  After {RULED_S:.0f} s the rule goes, and the rate rises.")
        with ThreadPoolExecutor(1) as beside:
            removed = beside.submit(self._remove_the_rule)
            self._shell.run("scheduler", "job", "start", "away", "--wait")
            removed.result()
        self._compare_with_replica()

    def _remove_the_rule(self) -> None:
        time.sleep(RULED_S)
        self._shell.run_quietly("scheduler", "traffic-rule", "remove", RULE)

    def _fail_over_and_back(self) -> None:
        vm = REPLICATED.name
        heading(f"{vm} is lost: its replica takes over, works for a day, and gives back what it has done")
        self._shell.run("scheduler", "replica", "failover", vm, "--wait")
        for disk in REPLICATED.disks:
            what = change_disk(flat_path(self._replica, disk), disk, self._layout.scratch, day=2)
            say(f"  {self._replica.name:<12} {disk.key:<8} {what}")
        self._shell.run("scheduler", "replica", "failback", vm, "--wait")
        self._compare_with_replica()
        self._shell.run("scheduler", "replica", "commit", vm, "--wait")
        self._shell.run("scheduler", "replica", "list")

    def _compare_with_replica(self) -> None:
        for disk in REPLICATED.disks:
            found = fleet.sha256(flat_path(self._replica, disk))
            fleet.compare(f"{REPLICATED.name} {disk.key} and its replica", self._digest(REPLICATED, disk), found)

    @property
    def _replica(self) -> Path:
        """Where the replica lies."""
        return self._layout.datastores / "remote-ds" / f"{REPLICATED.name}_replica"

    def _restore(self, vm: str, key: str, target: Path, *options: str) -> None:
        target.parent.mkdir(exist_ok=True)
        self._shell.run(
            *("scheduler", "restore", "disk", "--vm", vm, "--disk", key, *options, "--to", str(target), "--wait")
        )

    def _digest(self, machine: Machine, disk: Disk) -> str:
        return fleet.sha256(flat_path(self._layout.datastores / machine.datastore / machine.name, disk))


def _disks() -> list[tuple[Machine, Disk]]:
    return [(machine, disk) for machine in MACHINES for disk in machine.disks]
