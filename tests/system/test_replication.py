"""A VM replicated from one site to another by real processes, failed over to, changed there, and brought back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.demo.layout import ProxyPlace
from ops.demo.machines import MIB, Disk, Machine, flat_path, make_machines
from ops.demo.processes import marked
from ops.demo.valkey import free_port
from proxy_worker.transport.inventory import scan_datastore
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.power import switch_off
from proxy_worker.vsphere.session import Session
from tests.simulators.vsphere.program import PASSWORD, VsphereSimulator, running
from tests.system.live_fleet import LiveFleet, explained, wait_until
from tests.system.vsphere_fleet import VMFS, declared, vddk_environment, write_password
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import make_vm

WEB01 = Machine("web01", "ds", (Disk("scsi0:0", 16, 12, filesystem=False), Disk("scsi0:1", 8, 2, filesystem=False)))
IDLE = Machine("idle", "ds-far", (Disk("scsi0:0", 1, 0, filesystem=False),))
PLACES = (ProxyPlace("near", "primary", "ds"), ProxyPlace("far", "remote", "ds-far"))
AWAY = """
[[site]]
name = "remote"
[[datastore]]
name = "ds-far"
site = "remote"
[[job]]
name = "away"
kind = "replication"
vms = ["web*"]
[job.replica]
datastore = "ds-far"
points = 2
"""
TO_VCENTER = """
[[site]]
name = "remote"
[[job]]
name = "to-vcenter"
kind = "replication"
vms = ["web*"]
[job.replica]
datastore = "LocalDS_1"
points = 1
[[datastore]]
name = "ds-far"
site = "remote"
[[job]]
name = "from-vcenter"
kind = "replication"
vms = ["app01"]
proxies = ["near"]
[job.replica]
datastore = "ds-far"
networks = { production = "Remote" }
points = 2
[[job]]
name = "within-vcenter"
kind = "replication"
vms = ["app02"]
[job.replica]
datastore = "LocalDS_1"
points = 2
"""
BLOCK = 256 << 10


class TwoSites(LiveFleet):
    """A proxy with a datastore at each of two sites; both have a certificate, and take replicas from the other."""

    def _write_files(self) -> None:
        super()._write_files()
        (self.layout.datastores / "ds-far").mkdir()
        self.command("scheduler", "pki", "init")
        for place in self.proxies:
            self.command(
                *("scheduler", "pki", "issue", place.name, "--role", "proxy", "--address", "127.0.0.1"),
                *("--out", str(self.layout.state / f"pki-{place.name}")),
            )

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        pki, port = self.layout.state / f"pki-{proxy.name}", free_port()
        config = self.layout.proxy_config(proxy.name)
        config.write_text(
            f"{config.read_text()}\n[link]\n"
            f'certificate = "{pki / proxy.name}.pem"\nkey = "{pki / proxy.name}-key.pem"\n'
            f'ca_file = "{pki}/ca.pem"\n'
            f'[replication]\nhost = "127.0.0.1"\nports = [{port}, {min(port + 50, 65_535)}]\n'
        )

    def run(self, job: str = "away") -> dict[str, Any]:
        """Run a job to its end."""
        ended: dict[str, Any] = self.read_json("scheduler", "job", "start", job, "--wait", "--json")
        return ended

    def replica(self, vm: str = "web01") -> dict[str, Any]:
        """What is known of it."""
        shown: dict[str, Any] = self.read_json("scheduler", "replica", "show", vm, "--json")
        return shown

    def operate(self, *words: str) -> str:
        """Have something done with the replica; the state that it is in then."""
        shown = self.read_json("scheduler", "replica", *words, "--wait", "--json")
        return str(shown["state"])


def test_a_vm_is_replicated_fails_over_and_comes_back_with_what_was_changed(tmp_path: Path) -> None:
    make_machines([WEB01], tmp_path / "datastores", tmp_path / "scratch")
    with TwoSites(tmp_path, PLACES, AWAY) as fleet, explained(fleet):
        original = [flat_path(tmp_path / "datastores/ds/web01", disk) for disk in WEB01.disks]
        folder = tmp_path / "datastores/ds-far/web01_replica"
        replica = [folder / "web01_replica-flat.vmdk", folder / "web01_replica_1-flat.vmdk"]

        first = fleet.run()
        assert {(disk["proxy"], disk["target_proxy"]) for disk in first["disks"]} == {("near", "far")}
        assert _content(replica) == _content(original)

        _change(original[0], seed=1)
        second = fleet.run()
        assert sum(disk["stored_bytes"] for disk in second["disks"]) <= 2 * BLOCK
        assert _content(replica) == _content(original)
        kept = _content(original)

        assert fleet.operate("failover", "web01") == "failed over"
        _change(replica[1], seed=2)
        fleet.command("scheduler", "replica", "failback", "web01")
        fleet.kill("scheduler", whole_group=True)
        fleet.start("scheduler")
        wait_until(lambda: fleet.replica()["state"] == "failed back", "the failback to go on")
        assert _content(original) == _content(replica) != kept

        assert fleet.operate("commit", "web01") == "standby"
        wait_until(lambda: len(fleet.replica()["points"]) == 2, "the oldest point to go")
        assert list((tmp_path / "datastores/ds/web01/.points").iterdir()) == []


class ToVcenter(TwoSites):
    """The same, where the second site has a vCenter."""

    def __init__(self, state: Path, simulator: VsphereSimulator) -> None:
        super().__init__(state, PLACES, declared(simulator) + TO_VCENTER)
        self.extra = vddk_environment(simulator)

    def _write_files(self) -> None:
        super()._write_files()
        write_password(self.layout)


@dataclass(frozen=True)
class WithVcenter:
    """A fleet of two sites, and its vCenter."""

    fleet: ToVcenter
    simulator: VsphereSimulator
    session: Session
    root: Path

    def vm(self, name: str) -> Vm:
        """A VM of the vCenter as it is now."""
        return next(vm for vm in read_inventory(self.session).vms.values() if vm.name == name)

    def content(self, name: str) -> list[bytes]:
        """What its disks hold."""
        places = [(disk.path or "").removeprefix("[").partition("] ") for disk in self.vm(name).disks]
        folders = self.simulator.datastores
        return _content([folders[store] / path.replace(".vmdk", "-flat.vmdk") for store, _, path in places])

    def changed_by_guest(self, name: str, *, seed: int) -> None:
        """Write a block of its first disk."""
        self.simulator.write(self.vm(name).disks[0].path or "", (5 * MIB, random.Random(seed).randbytes(BLOCK)))

    def shut_down(self, name: str) -> None:
        """As an administrator does before a failback."""
        switch_off(self.session, self.vm(name).ref, name)

    def die_in_a_failback(self, name: str) -> None:
        """Kill all of the fleet once an original is kept as it was, and start it again."""
        fleet = self.fleet
        fleet.command("scheduler", "replica", "failback", name)
        wait_until(lambda: self.vm(name).snapshots != (), "the original to be kept as it is", every_s=0.02)
        for program in ("near", "far", "scheduler"):
            fleet.kill(program, whole_group=True)
        wait_until(lambda: not marked(fleet.layout.state), "the kernel to end what served disks")
        assert fleet.replica(name)["state"] == "failed over"
        for program in ("scheduler", "near", "far"):
            fleet.start(program)
        wait_until(lambda: fleet.replica(name)["state"] == "failed back", "the failback to go on")

    def require_untouched(self, name: str) -> None:
        """Nothing of the product is left in a VM."""
        vm = self.vm(name)
        assert vm.snapshots == ()
        assert replica_vm.note_of(self.session, vm.ref) is None


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory, vsphere_program: Path) -> Iterator[WithVcenter]:
    root = tmp_path_factory.mktemp("vcenter")
    make_machines([WEB01], root / "datastores", root / "scratch")
    with ExitStack() as stack:
        simulator = stack.enter_context(running(vsphere_program, root / "vcenter", "-vms", "0"))
        session = stack.enter_context(Session(endpoint_of(simulator), PASSWORD))
        fleet = stack.enter_context(ToVcenter(root, simulator))
        make_machines([IDLE], root / "datastores", root / "scratch")  # a datastore without VMs looks unmounted
        yield WithVcenter(fleet, simulator, session, root)


def test_a_vm_is_replicated_to_a_vcenter_and_runs_there(vcenter: WithVcenter) -> None:
    fleet = vcenter.fleet
    with explained(fleet):
        original = [flat_path(vcenter.root / "datastores/ds/web01", disk) for disk in WEB01.disks]

        def replica() -> Vm:
            return vcenter.vm("web01_replica")

        first = fleet.run("to-vcenter")
        assert first["state"] == "succeeded", first
        assert vcenter.content("web01_replica") == _content(original)
        _change(original[0], seed=1)
        second = fleet.run("to-vcenter")
        assert sum(disk["stored_bytes"] for disk in second["disks"]) <= 2 * BLOCK
        wait_until(lambda: len(replica().snapshots) == 1, "the oldest point to go")
        assert vcenter.content("web01_replica") == _content(original)

        assert fleet.operate("failover", "web01") == "failed over"
        assert replica().powered_on
        assert fleet.operate("undo", "web01") == "standby"
        assert not replica().powered_on
        assert vcenter.content("web01_replica") == _content(original)

        fleet.operate("failover", "web01")
        vcenter.changed_by_guest("web01_replica", seed=5)
        vcenter.shut_down("web01_replica")
        assert fleet.operate("failback", "web01") == "failed back"
        assert _content(original) == vcenter.content("web01_replica")
        assert fleet.operate("commit", "web01") == "standby"
        _change(original[0], seed=8)
        third = fleet.run("to-vcenter")
        assert third["state"] == "succeeded", third
        assert 0 < sum(disk["stored_bytes"] for disk in third["disks"]) <= 2 * BLOCK
        assert vcenter.content("web01_replica") == _content(original)


def test_a_vm_of_a_vcenter_is_replicated_to_a_folder_and_only_what_changed_is_read(vcenter: WithVcenter) -> None:
    fleet, simulator, chance = vcenter.fleet, vcenter.simulator, random.Random(3)
    with explained(fleet):
        app01 = make_vm(vcenter.session, 16 * MIB, 8 * MIB, name="app01", datastore=VMFS)
        for disk in app01.disks:
            simulator.write(disk.path or "", (MIB, chance.randbytes(6 * MIB)))
        with (simulator.datastores[VMFS] / "app01/app01.vmx").open("a") as vmx:
            vmx.write('ethernet0.present = "TRUE"\nethernet0.networkName = "production"\n')
        folder = vcenter.root / "datastores/ds-far/app01_replica"
        replica = [folder / "app01_replica-flat.vmdk", folder / "app01_replica_1-flat.vmdk"]

        first = fleet.run("from-vcenter")
        assert first["state"] == "succeeded", first
        assert {(disk["proxy"], disk["target_proxy"]) for disk in first["disks"]} == {("near", "far")}
        assert _content(replica) == vcenter.content("app01")

        simulator.write(app01.disks[0].path or "", (3 * MIB, chance.randbytes(BLOCK)))
        second = fleet.run("from-vcenter")
        assert second["state"] == "succeeded", second
        assert _compared_with(second) == {(first["vms"][0]["point"], None)}
        assert sum(disk["stored_bytes"] for disk in second["disks"]) <= 2 * BLOCK
        kept = vcenter.content("app01")
        assert _content(replica) == kept
        wait_until(lambda: vcenter.vm("app01").snapshots == (), "the original's snapshot to go")

        (found,) = (vm for vm in scan_datastore("ds-far", folder.parent) if vm.identity.name == "app01_replica")
        assert [disk.key for disk in found.disks] == ["scsi0:0", "scsi0:1"]
        assert 'ethernet0.networkname = "Remote"' in (folder / "app01_replica.vmx").read_text()

        assert fleet.operate("failover", "app01") == "failed over"
        _change(replica[0], seed=2)
        assert _content(replica) != kept
        assert fleet.operate("undo", "app01") == "standby"
        assert _content(replica) == kept

        fleet.operate("failover", "app01")
        _change(replica[0], seed=4)
        assert fleet.operate("failback", "app01") == "failed back"
        assert vcenter.content("app01") == _content(replica) != kept
        assert vcenter.vm("app01").powered_on
        assert fleet.operate("undo", "app01") == "failed over"
        assert vcenter.content("app01") == kept
        assert not vcenter.vm("app01").powered_on
        vcenter.require_untouched("app01")
        vcenter.die_in_a_failback("app01")
        assert vcenter.content("app01") == _content(replica)
        assert fleet.operate("commit", "app01") == "standby"
        assert vcenter.content("app01") == _content(replica) != kept
        vcenter.require_untouched("app01")
        third = fleet.run("from-vcenter")
        assert sum(disk["stored_bytes"] for disk in third["disks"]) == 0
        vcenter.changed_by_guest("app01", seed=6)
        fourth = fleet.run("from-vcenter")
        assert _compared_with(fourth) == {(third["vms"][0]["point"], None)}
        assert _content(replica) == vcenter.content("app01")


def test_a_vm_of_a_vcenter_is_replicated_to_a_vcenter_and_runs_there(vcenter: WithVcenter) -> None:
    fleet, chance = vcenter.fleet, random.Random(4)
    with explained(fleet):
        (disk,) = make_vm(vcenter.session, 16 * MIB, name="app02", datastore=VMFS).disks
        vcenter.simulator.write(disk.path or "", (MIB, chance.randbytes(6 * MIB)))

        first = fleet.run("within-vcenter")
        assert first["state"] == "succeeded", first
        assert vcenter.content("app02_replica") == vcenter.content("app02")

        vcenter.simulator.write(disk.path or "", (3 * MIB, chance.randbytes(BLOCK)))
        second = fleet.run("within-vcenter")
        assert _compared_with(second) == {(first["vms"][0]["point"], None)}
        assert sum(disk["stored_bytes"] for disk in second["disks"]) <= 2 * BLOCK
        kept = vcenter.content("app02")
        assert vcenter.content("app02_replica") == kept
        wait_until(lambda: vcenter.vm("app02").snapshots == (), "the original's snapshot to go", timeout_s=120)

        assert fleet.operate("failover", "app02") == "failed over"
        assert vcenter.vm("app02_replica").powered_on
        assert fleet.operate("undo", "app02") == "standby"
        assert not vcenter.vm("app02_replica").powered_on
        assert vcenter.content("app02_replica") == kept

        fleet.operate("failover", "app02")
        vcenter.changed_by_guest("app02_replica", seed=7)
        vcenter.shut_down("app02_replica")
        assert fleet.operate("failback", "app02") == "failed back"
        assert vcenter.content("app02") == vcenter.content("app02_replica") != kept
        assert vcenter.vm("app02").powered_on
        assert fleet.operate("commit", "app02") == "standby"
        vcenter.require_untouched("app02")
        third = fleet.run("within-vcenter")
        assert sum(disk["stored_bytes"] for disk in third["disks"]) == 0
        assert vcenter.content("app02") == vcenter.content("app02_replica") != kept
        fleet.operate("failover", "app02")
        assert fleet.operate("permanent", "app02") == "permanent"
        assert vcenter.vm("app02_replica").snapshots == ()


def _compared_with(run: dict[str, Any]) -> set[tuple[str | None, str | None]]:
    """Since which point its disks were told what changed, and why they were read whole."""
    return {(disk["parent"], disk["full_read_reason"]) for disk in run["disks"]}


def _content(disks: list[Path]) -> list[bytes]:
    return [disk.read_bytes() for disk in disks]


def _change(disk: Path, *, seed: int) -> None:
    """Write a block of a disk, as its guest would."""
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random(seed).randbytes(BLOCK))
