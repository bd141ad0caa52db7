"""What the demo shows, in order: vCenter, fleet, full backup, incremental by changed blocks, a restored VM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ops.demo import fleet
from ops.demo.errors import DemoError
from ops.demo.machines import Disk, Machine
from ops.demo.processes import Supervisor
from ops.demo.summary import RunFigures, show_disks, show_runs
from ops.demo.terminal import Shell, heading, say
from ops.demo_vsphere.layout import PROXIES, USER, VCENTER, VsphereLayout
from ops.demo_vsphere.machines import MACHINES, Account, guest_disk, guest_disks, let_a_day_pass, make_machines
from ops.demo_vsphere.summary import show_next_steps, show_reading
from ops.demo_vsphere.vcenter import environment_of_vddk, nbdkit_folder, start_vcenter, thumbprint
from tests.simulators.vsphere.program import VsphereSimulator, build

JOB = "nightly"
RESTORED = "web01-restored"


class VsphereStory:
    """One telling of it, in one state folder."""

    def __init__(self, layout: VsphereLayout, supervisor: Supervisor) -> None:
        self._layout = layout
        self._supervisor = supervisor
        self._shell = Shell(supervisor.environment({"SCHEDULER_CONFIG": str(layout.scheduler_config)}))

    def tell(self, *, keep: bool) -> None:
        """All of it; raises `DemoError` where something isn't as it should be."""
        say("[bold yellow]The vCenter and VMware's VDDK in this demo are simulated;[/] all else is real.")
        self._layout.write_secrets()
        simulator = self._start_vcenter()
        self._start_fleet(simulator)
        self._add_the_vcenter(simulator)
        first = self._back_up("full")
        self._let_a_day_pass(simulator)
        second = self._back_up("incremental")
        self._restore_a_vm(simulator)
        heading("Summary (vCenter and VDDK simulated)")
        show_runs([first, second])
        show_disks([first, second])
        show_reading(first, second)
        self._show_what_is_left(simulator)
        show_next_steps(self._layout, kept=keep)

    def _start_vcenter(self) -> VsphereSimulator:
        heading("A simulated vCenter with three VMs and five disks")
        try:
            program = build()
        except (OSError, subprocess.CalledProcessError) as error:
            raise DemoError(f"the simulated vCenter can't be built: {error}; `make system` installs Go") from error
        simulator = start_vcenter(self._supervisor, self._layout, program)
        say(f"  vcenter        https://{simulator.host}:{simulator.port}/sdk, account {USER}")
        make_machines(Account(simulator, self._layout.vcenter_password.read_text().strip()), self._layout.scratch)
        for machine, disk in _disks():
            what = f"ext4 with {disk.content_mib} MiB of files" if disk.filesystem else "raw and sparse"
            say(f"  {machine.datastore:<11} {machine.name:<9} {disk.key:<8} {disk.size_mib:>5} MiB  {what}")
        return simulator

    def _start_fleet(self, simulator: VsphereSimulator) -> None:
        layout = self._layout
        layout.write_server_files()
        layout.write_fleet_files(port=str(simulator.port), thumbprint=thumbprint(simulator))
        heading("An encrypted repository; proxies get a key that can write and not read")
        fleet.make_repository(self._shell, layout)
        heading("A backup server, three proxies and Flower")
        path = f"{nbdkit_folder()}:{os.environ['PATH']}"
        extra = environment_of_vddk(layout, simulator) | {"PATH": path}
        fleet.start_server(self._supervisor, layout, extra=extra)
        for proxy in PROXIES:
            fleet.start_proxy(self._supervisor, proxy.name, layout.write_proxy(proxy), extra=extra)
            say(f"  {proxy.name:<14} proxy-worker run, 2 slots: {proxy.reaches} (simulated)")
        fleet.start_flower(self._supervisor, layout)
        self._shell.run("scheduler", "apply", "-f", str(layout.place_file))
        fleet.wait_for_proxies(self._supervisor, self._shell, [proxy.name for proxy in PROXIES])

    def _add_the_vcenter(self, simulator: VsphereSimulator) -> None:
        heading("The vCenter, its certificate pinned; the password is a file of its own")
        self._shell.run(
            *("scheduler", "vcenter", "add", VCENTER, "--host", simulator.host, "--port", str(simulator.port)),
            *("--user", USER, "--credential", VCENTER, "--thumbprint", thumbprint(simulator)),
        )
        self._shell.run("scheduler", "vcenter", "check", VCENTER)
        self._shell.run("scheduler", "vcenter", "rescan", VCENTER)
        self._shell.run("scheduler", "vm", "list")
        heading("The fleet as one file declares it: datastores, a job for all VMs")
        self._shell.run("scheduler", "apply", "-f", str(self._layout.fleet_file))
        heading("Which proxy would read which disk how, and why")
        self._shell.run("scheduler", "proxy", "explain", "--vm", "web01")

    def _back_up(self, title: str) -> RunFigures:
        heading(f"Backup: {title}")
        return fleet.back_up(self._supervisor, self._shell, self._layout, JOB, title)

    def _let_a_day_pass(self, simulator: VsphereSimulator) -> None:
        heading("A day passes on the VMs")
        for machine, disk in _disks():
            what = let_a_day_pass(simulator, machine, disk, self._layout.scratch)
            say(f"  {machine.name:<9} {disk.key:<8} {what}")

    def _restore_a_vm(self, simulator: VsphereSimulator) -> None:
        heading("A VM restored under another name, its disks compared by SHA-256")
        self._shell.run("scheduler", "restore", "vm", "--vm", "web01", "--name", RESTORED, "--wait")
        machine = MACHINES[0]
        restored = guest_disks(simulator, RESTORED)
        if len(restored) != len(machine.disks):
            raise DemoError(f"{RESTORED} has {len(restored)} disks, {machine.name} has {len(machine.disks)}")
        for disk, copy in zip(machine.disks, restored, strict=True):
            source = guest_disk(simulator, machine, disk)
            frozen = _last_frozen(simulator, source.path)
            digest = fleet.sha256(copy.file)
            fleet.compare(f"{RESTORED} {disk.key} with what the snapshot froze", fleet.sha256(frozen), digest)
            fleet.compare(f"{RESTORED} {disk.key} with web01, unchanged since", fleet.sha256(source.file), digest)
        self._shell.run("scheduler", "vm", "show", "web01")

    def _show_what_is_left(self, simulator: VsphereSimulator) -> None:
        left = [folder.name for folder in simulator.frozen.glob("snapshot-*")]
        if left:
            raise DemoError(f"snapshots are left in the vCenter: {', '.join(left)}")
        say("\nSnapshots left in the vCenter: none.")


def _last_frozen(simulator: VsphereSimulator, path: str) -> Path:
    """What the newest snapshot froze, of a disk that is in `path` now."""
    snapshots = sorted(simulator.removed.iterdir(), key=lambda folder: int(folder.name.rpartition("-")[2]))
    found = [frozen for each in snapshots if (frozen := simulator.frozen_disk(each.name, path)).exists()]
    return found[-1]


def _disks() -> list[tuple[Machine, Disk]]:
    return [(machine, disk) for machine in MACHINES for disk in machine.disks]
