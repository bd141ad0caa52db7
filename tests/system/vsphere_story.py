"""A story for tests: what people do to VMs while they are backed up, and VMs that can't be backed up at all.

One job's VMs are held in the middle of being read; another's wait for their turn meanwhile; then vCenter is gone
for a while, and what happened is looked at by backups that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyVmomi import vim

from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import finish
from tests.simulators.loop_devices import mounted
from tests.simulators.vsphere.program import PASSWORD, running
from tests.system.live_fleet import wait_until
from tests.system.vsphere_fleet import NFS, VMFS, VsphereFleet, vsphere_fleet
from tests.vsphere.machines import MIB, device, disk, make_vm
from tests.vsphere.test_trust import make_certificate

BUSY, LOST = "LocalDS_2", "LocalDS_3"
"""Datastores: one whose VMs are being read when others' turn would come, and one that the hosts have lost."""
LARGE_BYTES = (2 << 40) + (1 << 30)
WRITTEN = (((2 << 40) - 5, b"over the edge"), (LARGE_BYTES - 7, b"the end"))
JOBS = """
[[job]]
name = "busy"
vms = ["read-*"]
repository = "main"
transport_mode = "network"
[[job]]
name = "everything"
vms = ["*", "pattern"]
exclude = [{ vm = "read-*" }, { vm = "proxy-*" }, { vm = "stored" }]
repository = "main"
transport_mode = "network"
retries = { count = 2, wait_minutes = 0.02 }
[[job]]
name = "stored"
vms = ["stored"]
repository = "main"
[[job]]
name = "again"
vms = ["read-*", "called-*", "calm-*", "late-*"]
repository = "main"
transport_mode = "network"
[[job]]
name = "locked-out"
select = [{ vcenter = "vc1", vm = "calm-1" }]
repository = "main"
transport_mode = "network"
"""
ELSEWHERE = """
[[vcenter]]
name = "{name}"
host = "{host}"
port = {port}
user = "backup@vsphere.local"
credential = "{credential}"
site = "primary"
{trust}
"""


@dataclass
class Story:
    """What there was, and what came of it."""

    fleet: VsphereFleet
    session: Session
    vms: dict[str, Vm] = field(default_factory=dict)
    runs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def outcome(self, run: str, name: str) -> Mapping[str, Any]:
        """What a run says of a VM or vCenter."""
        (found,) = [vm for vm in self.runs[run]["vms"] if vm["vm"] == name]
        return dict(found)

    def disks(self, run: str, name: str) -> list[Mapping[str, Any]]:
        """What a run says of a VM's disks."""
        return [disk for disk in self.runs[run]["disks"] if disk["vm"] == name]

    def reason(self, run: str, name: str) -> str:
        """Why a VM has no restore point."""
        said = self.outcome(run, name)
        assert (said["state"], said["point"]) == ("failed", None), said
        return str(said["reason"])

    def make(self, name: str, *sizes: int, datastore: str = VMFS, **more: Any) -> Vm:
        vm = self.vms[name] = make_vm(self.session, *sizes, name=name, datastore=datastore, **more)
        for one in vm.disks:
            if one.obstacle is None:
                self.fleet.simulator.write(one.path or "", (one.size_bytes // 2, name.encode() * 100))
        return vm

    def machine(self, name: str) -> Any:
        return vim.VirtualMachine(self.vms[name].ref, self.session.stub)

    def do(self, task: Callable[[], Any]) -> None:
        finish(self.session, "test", task)

    def move(self, name: str, *, host: int, datastore: str | None = None) -> None:
        """To another host of the cluster, and another datastore."""
        hosts = next(one for one in self._center.hostFolder.childEntity if len(one.host) > 1).host
        stores = {store.name: store for store in self._center.datastore}
        spec = vim.vm.RelocateSpec(host=hosts[host], datastore=stores[datastore] if datastore else None)
        self.do(lambda: self.machine(name).RelocateVM_Task(spec))

    def reconfigure(self, name: str, *changes: Any) -> None:
        spec = vim.vm.ConfigSpec(deviceChange=list(changes))
        self.do(lambda: self.machine(name).ReconfigVM_Task(spec))

    def start(self, job: str) -> str:
        return str(self.fleet.read_json("scheduler", "job", "start", job, "--json")["run"])

    def end(self, *runs: str) -> None:
        """Wait until runs have ended, and keep what they say."""
        for run in runs:
            wait_until(lambda run=run: self.show(run)["ended"] is not None, f"run {run} to end", every_s=1)
            shown = self.show(run)
            self.runs[shown["job"]] = shown

    def finish(self, *jobs: str) -> None:
        self.end(*[self.start(job) for job in jobs])

    def show(self, run: str) -> Any:
        return self.fleet.read_json("scheduler", "run", "show", run, "--json")

    def is_reading(self, name: str) -> bool:
        """Whether a proxy has begun to read a VM's disk, and is held there."""
        return (self.fleet.simulator.frozen / f"held-{self.vms[name].ref}").exists()

    def restore(self, name: str, to: Path) -> None:
        """Restore a VM's disk to a file, without vCenter."""
        layout = self.fleet.layout
        words = ("--repository", str(layout.repository), "--vm", name, "--disk", "scsi0:0", "--to", str(to))
        self.fleet.command("proxy-worker", "restore", *words, "--passphrase-file", str(layout.passphrase))

    @property
    def _center(self) -> Any:
        return self.session.content.rootFolder.childEntity[0]


def furnish(story: Story) -> None:
    """Make the VMs."""
    center = story.session.content.rootFolder.childEntity[0]
    for name in ("calm-1", "calm-2"):
        story.make(name, MIB, MIB)
    for name in ("deleted", "renamed", "moved", "vmotioned"):
        story.make(f"read-{name}", MIB, datastore=BUSY)
    for name in ("deleted", "renamed", "moved"):
        story.make(f"late-{name}", MIB, datastore=BUSY)
    story.make("stored", MIB, datastore=NFS)
    story.make("unprivileged", MIB)
    story.make("diskless")
    story.make("lost", MIB, datastore=LOST)
    story.make("encrypted", MIB)
    story.fleet.simulator.encrypt(story.vms["encrypted"].ref)
    independent = disk((1000, 5), MIB, f"[{VMFS}] mixed/d5.vmdk", diskMode="independent_persistent")
    story.make("mixed", MIB, devices=[independent])
    story.make("raw")
    story.fleet.simulator.add_raw_device(story.vms["raw"].ref)
    alone = disk((1000, 0), MIB, f"[{VMFS}] independent/d0.vmdk", diskMode="independent_persistent")
    story.make("independent", devices=[alone])
    story.make("pattern", MIB)
    story.machine("pattern").MarkAsTemplate()
    large = story.make("large", LARGE_BYTES)
    story.fleet.simulator.write(large.disks[0].path or "", *WRITTEN)
    story.make("in-maintenance", MIB)
    story.move("in-maintenance", host=2)
    hosts = next(one for one in center.hostFolder.childEntity if len(one.host) > 1).host
    story.do(lambda: hosts[2].EnterMaintenanceMode_Task(0))
    story.fleet.simulator.make_datastore_inaccessible(LOST)


def declare_others(story: Story, expired: Any, folder: Path) -> None:
    """vCenters that can't be logged in to."""
    here = {"host": story.fleet.simulator.host, "port": story.fleet.simulator.port}
    for credential, password in (("vc1", PASSWORD), ("wrong", "not the password")):
        for holder in ("server", "proxies"):
            story.fleet.layout.write_secret(story.fleet.layout.secrets(holder) / f"{credential}.password", password)
    declared = story.fleet.layout.fleet_file
    thumbprint = story.fleet.thumbprint
    declared.write_text(
        declared.read_text()
        + ELSEWHERE.format(name="password", credential="wrong", trust=f'thumbprint = "{thumbprint}"', **here)
        + ELSEWHERE.format(name="changed", credential="vc1", trust=f'thumbprint = "{"ab" * 32}"', **here)
        + ELSEWHERE.format(
            name="expired",
            credential="vc1",
            trust=f'ca_file = "{folder / "certificate.pem"}"',
            host=expired.host,
            port=expired.port,
        )
    )
    story.fleet.command("scheduler", "apply", "-f", str(declared))


def first_runs(story: Story) -> None:
    """One job's VMs are held in the middle of being read while the other's wait; things happen to both."""
    simulator = story.fleet.simulator
    held = simulator.frozen / "held"
    held.write_text("read-")
    busy = story.start("busy")
    wait_until(lambda: all(story.is_reading(name) for name in story.vms if name.startswith("read-")), "the reads")
    simulator.go_wrong("CreateSnapshot_Task", "refuse", "NoPermission", times=0, vm=story.vms["unprivileged"].ref)
    everything = story.start("everything")

    def reasons() -> dict[str, str]:
        return {vm["vm"]: f"{vm['state']}: {vm['reason']}" for vm in story.show(everything)["vms"]}

    late = [name for name in story.vms if name.startswith("late-")]
    wait_until(
        lambda: all("4 of 4 snapshots" in reasons().get(name, "") for name in late), "the others to wait", every_s=1
    )
    wait_until(lambda: "failed" in reasons()["unprivileged"], "the refused snapshot", every_s=1)
    for phase in ("read", "late"):
        story.do(story.machine(f"{phase}-deleted").Destroy_Task)
        story.do(lambda phase=phase: story.machine(f"{phase}-renamed").Rename_Task(f"called-{phase}"))
        story.move(f"{phase}-moved", host=1, datastore=VMFS)
    story.move("read-vmotioned", host=1)
    outage(story, held.unlink)
    story.end(busy, everything)


def outage(story: Story, meanwhile: Callable[[], None]) -> None:
    """Nobody gets an answer of vCenter's for a while, and when it is back it knows no session."""
    simulator = story.fleet.simulator
    simulator.go_wrong("*", "drop", times=0)
    before = sum(simulator.calls().values())
    meanwhile()
    wait_until(lambda: sum(simulator.calls().values()) > before + 5, "calls that get no answer")
    simulator.expire_sessions()
    simulator.reset()


def second_run(story: Story) -> None:
    """What became of them, and disks that came and went."""
    added = disk((1000, 3), MIB, f"[{VMFS}] calm-1/d3.vmdk")
    story.reconfigure("calm-1", added)
    gone = device.VirtualDisk(key=story.vms["calm-2"].disks[1].key)
    story.reconfigure("calm-2", vim.vm.device.VirtualDeviceSpec(operation="remove", device=gone))
    story.finish("again", "stored")


def last_run(story: Story) -> None:
    """The proxies' passwords are wrong, the scheduler's isn't."""
    story.fleet.layout.write_secret(story.fleet.layout.secrets("proxies") / "vc1.password", "not the password")
    story.finish("locked-out")


def told(state: Path, program: Path) -> Iterator[Story]:
    """The story from its beginning to its end, in a folder of its own."""
    certificate = make_certificate(state, days=1)
    options = ("-datastores", "4", "-cbt-piece", str(1 << 40))
    identity = ("-certificate", str(certificate), "-key", str(state / "key.pem"))
    with ExitStack() as stack:
        (state / "vcenter").symlink_to(stack.enter_context(mounted("btrfs", state)))
        expired = stack.enter_context(running(program, state / "expired", "-vms", "0", *identity))
        fleet, session = stack.enter_context(vsphere_fleet(state, program, JOBS, *options, provider="btrfs"))
        story = Story(fleet, session)
        furnish(story)
        declare_others(story, expired, state)
        first_runs(story)
        second_run(story)
        last_run(story)
        yield story
