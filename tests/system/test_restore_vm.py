"""VMs restored to a vCenter on real processes: elsewhere, in their own place, over what is there; or not at all."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyVmomi import vim

from ops.demo.processes import marked
from proxy_worker.export.nfs.protocol import Status
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.power import is_on, switch_on
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.restored import mark_of
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import finish
from tests.export.nfs_client import Client
from tests.system.live_fleet import SCHEDULER, wait_until
from tests.system.vsphere_fleet import NFS, VMFS, VsphereFleet, snapshots_of_ours, vsphere_fleet
from tests.vsphere.machines import MIB, make_vm

SIZES = (24 * MIB, 8 * MIB)
CARD = """ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:11:22:33"
"""
JOB = """
[[job]]
name = "{name}"
vms = ["{name}"]
repository = "main"
"""
FOLDER = """[[datastore]]
name = "ds"
site = "primary"
"""
NAMES = ("elsewhere", "gone", "rolled-back", "cancelled", "killed", "failing", "target", "refused", "instant")
NFS_PORT = 12_000 + os.getpid() % 18_000
"""Not one that the kernel gives to clients, who would have it when the server is away for a moment."""
SLOW_S = "1"
"""Each write; so slow that a restore lasts until it is cancelled, or killed."""
_chance = random.Random(5)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, vsphere_program: Path) -> Iterator[tuple[VsphereFleet, Session]]:
    state = tmp_path_factory.mktemp("restore-vm")
    jobs = "".join(JOB.format(name=name) for name in NAMES)
    with vsphere_fleet(state, vsphere_program, jobs, nfs_port=NFS_PORT) as (fleet, session):
        declared = fleet.layout.fleet_file
        declared.write_text(declared.read_text().replace(FOLDER, ""))  # nobody has it
        fleet.command("scheduler", "apply", "-f", str(declared))
        yield fleet, session


@pytest.fixture
def fleet(made: tuple[VsphereFleet, Session]) -> Iterator[VsphereFleet]:
    fleet, _ = made
    yield fleet
    for trouble in ("bad", "slow", "written"):
        (fleet.simulator.frozen / trouble).unlink(missing_ok=True)
    fleet.simulator.reset()


@pytest.fixture
def session(made: tuple[VsphereFleet, Session]) -> Session:
    return made[1]


def backed_up(fleet: VsphereFleet, session: Session, name: str) -> tuple[Vm, list[bytes]]:
    """A VM with two disks and a network card, backed up; and what its disks held then."""
    vm = make_vm(session, *SIZES, name=name, track_changes=True)
    scribble(fleet, vm)
    with flat(fleet, vm.configuration_path or "").open("a") as vmx:
        vmx.write(CARD)
    images = contents(fleet, vm)
    fleet.command("scheduler", "vcenter", "rescan", "vc1")
    fleet.command("scheduler", "job", "start", name, "--wait")
    wait_until(lambda: snapshots_of_ours(session) == [], "the snapshot to be removed")
    return vm, images


def scribble(fleet: VsphereFleet, vm: Vm, *offsets: int) -> None:
    """Write something on every disk, at some offsets or anywhere."""
    for disk in vm.disks:
        places = offsets or [_chance.randrange(disk.size_bytes - 70_000) for _ in range(20)]
        fleet.simulator.write(disk.path or "", *((at, _chance.randbytes(60_000)) for at in places))


def flat(fleet: VsphereFleet, path: str) -> Path:
    """Where a file of a datastore lies; of a VMDK, what holds its bytes."""
    datastore, _, name = path[1:].partition("] ")
    return fleet.simulator.datastores[datastore] / name.replace(".vmdk", "-flat.vmdk")


def contents(fleet: VsphereFleet, vm: Vm) -> list[bytes]:
    return [flat(fleet, disk.path or "").read_bytes() for disk in sorted(vm.disks, key=lambda disk: disk.place)]


def restore(fleet: VsphereFleet, *words: str) -> dict[str, Any]:
    """Restore a VM, or a disk into one, and wait for it."""
    shown: dict[str, Any] = fleet.read_json("scheduler", "restore", *words, "--wait", "--json")
    assert shown["state"] == "succeeded", shown
    return shown


def refused(fleet: VsphereFleet, *words: str) -> tuple[int, str]:
    """The exit code and what a command that fails says."""
    done = fleet.attempt("scheduler", "restore", *words)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def vm_named(session: Session, name: str) -> Vm | None:
    return next((vm for vm in read_inventory(session).vms.values() if vm.name == name), None)


def written_bytes(fleet: VsphereFleet) -> int:
    path = fleet.simulator.frozen / "written"
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def destroy(session: Session, vm: Vm) -> None:
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "test", machine.Destroy_Task)


def test_elsewhere_under_another_name(fleet: VsphereFleet, session: Session) -> None:
    vm, images = backed_up(fleet, session, "elsewhere")

    shown = restore(
        fleet,
        *("vm", "--vm", vm.name, "--name", "copy", "--datastore", NFS, "--datastore", f"scsi0:1={VMFS}"),
        *("--network", "VM Network=DC0_DVPG0", "--disk-format", "eager", "--power-on"),
    )

    copy = read_vm(session, shown["target_ref"])
    assert (copy.name, copy.powered_on, mark_of(session, copy.ref)) == ("copy", True, None)
    assert copy.instance_uuid != vm.instance_uuid
    assert [(disk.path or "").partition("]")[0][1:] for disk in copy.disks] == [NFS, VMFS]
    assert contents(fleet, copy) == images
    assert contents(fleet, vm) == images
    nvram = [flat(fleet, (one.configuration_path or "").replace(".vmx", ".nvram")) for one in (vm, copy)]
    assert nvram[0].read_bytes() == nvram[1].read_bytes(), "the simulator gives a new VM others"
    devices = read(session, [vim.VirtualMachine(copy.ref, session.stub)], ["config.hardware.device"])[0]
    (card,) = [one for one in devices["config.hardware.device"] if isinstance(one, vim.vm.device.VirtualVmxnet3)]
    assert isinstance(card.backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo)
    assert {disk["mode"] for disk in shown["disks"]} == {"network"}
    assert [disk["state"] for disk in shown["disks"]] == ["succeeded"] * 2


def test_in_its_own_place_once_it_is_gone(fleet: VsphereFleet, session: Session) -> None:
    vm, images = backed_up(fleet, session, "gone")
    code, words = refused(fleet, "vm", "--vm", vm.name, "--wait")
    assert (code, "still exists" in words) == (9, True)
    destroy(session, vm)

    shown = restore(fleet, "vm", "--vm", vm.name)

    back = read_vm(session, shown["target_ref"])
    assert (back.name, back.instance_uuid, back.folder) == (vm.name, vm.instance_uuid, vm.folder)
    assert not back.powered_on
    assert contents(fleet, back) == images


def test_over_what_is_there_only_changed_blocks_are_written(fleet: VsphereFleet, session: Session) -> None:
    vm, images = backed_up(fleet, session, "rolled-back")
    scribble(fleet, vm, 5 * MIB)
    switch_on(session, vm.ref, vm.name)
    code, words = refused(fleet, "vm", "--vm", vm.name, "--overwrite", "--wait")
    assert (code, "powered on" in words) == (9, True)

    shown = restore(fleet, "vm", "--vm", vm.name, "--overwrite", "--power-off", "--power-on")

    after = read_vm(session, vm.ref)
    assert contents(fleet, after) == images
    assert (is_on(session, vm.ref), after.tracks_changes, after.snapshots) == (True, True, ())
    assert [disk["full_write_reason"] for disk in shown["disks"]] == [None, None]
    assert 0 < written_bytes(fleet) <= 2 * 2 * MIB
    assert sum(disk["written_bytes"] for disk in shown["disks"]) == written_bytes(fleet)

    again = restore(fleet, "vm", "--vm", vm.name, "--overwrite", "--power-off")
    assert all("reset" in (disk["full_write_reason"] or "") for disk in again["disks"])
    assert contents(fleet, read_vm(session, vm.ref)) == images


def test_cancelled_in_the_middle_no_half_vm_is_left(fleet: VsphereFleet, session: Session) -> None:
    vm, _ = backed_up(fleet, session, "cancelled")
    (fleet.simulator.frozen / "slow").write_text(SLOW_S)
    asked = fleet.read_json("scheduler", "restore", "vm", "--vm", vm.name, "--name", "half", "--json")

    def show() -> dict[str, Any]:
        shown: dict[str, Any] = fleet.read_json("scheduler", "restore", "show", asked["restore"], "--json")
        return shown

    wait_until(lambda: any(disk["state"] == "running" for disk in show()["disks"]), "a disk to be written")
    fleet.command("scheduler", "restore", "cancel", asked["restore"])
    wait_until(lambda: show()["state"] == "cancelled", "the restore to end")

    assert show()["exit_code"] == 11
    assert vm_named(session, "half") is None
    assert list(fleet.simulator.datastores[VMFS].glob("half*/*.vmdk")) == []
    wait_until(lambda: fleet.nbdkits() == [], "every nbdkit to end")


def test_scheduler_and_proxy_killed_while_disks_are_written_finish_it(
    fleet: VsphereFleet, session: Session
) -> None:
    vm, images = backed_up(fleet, session, "killed")
    (fleet.simulator.frozen / "slow").write_text(SLOW_S)
    asked = fleet.read_json("scheduler", "restore", "vm", "--vm", vm.name, "--name", "revived", "--json")

    def show() -> dict[str, Any]:
        shown: dict[str, Any] = fleet.read_json("scheduler", "restore", "show", asked["restore"], "--json")
        return shown

    wait_until(lambda: any(disk["state"] == "running" for disk in show()["disks"]), "a disk to be written")
    fleet.kill(SCHEDULER, whole_group=True)
    (fleet.simulator.frozen / "slow").unlink()
    fleet.start(SCHEDULER)

    wait_until(lambda: show()["state"] == "succeeded", "the restore to be finished")
    revived = read_vm(session, show()["target_ref"])
    assert contents(fleet, revived) == images
    assert mark_of(session, revived.ref) is None


def test_a_disk_that_fails_undoes_the_vm(fleet: VsphereFleet, session: Session) -> None:
    vm, _ = backed_up(fleet, session, "failing")
    (fleet.simulator.frozen / "bad").touch()

    code, words = refused(fleet, "vm", "--vm", vm.name, "--name", "half", "--wait")

    assert code == 12, words
    assert "input/output error" in words
    assert vm_named(session, "half") is None


def test_a_disk_into_a_vm(fleet: VsphereFleet, session: Session) -> None:
    vm, images = backed_up(fleet, session, "target")
    other = make_vm(session, MIB, name="receiver")
    fleet.command("scheduler", "vcenter", "rescan", "vc1")

    shown = restore(fleet, "disk", "--vm", vm.name, "--disk", "scsi0:1", "--to-vm", "receiver")

    added = [disk for disk in read_vm(session, other.ref).disks if disk.path == shown["disks"][0]["target"]]
    assert [(disk.place, disk.size_bytes) for disk in added] == [("scsi0:1", SIZES[1])]
    assert flat(fleet, added[0].path or "").read_bytes() == images[1]

    code, words = refused(
        fleet, "disk", "--vm", vm.name, "--disk", "scsi0:0", "--to-vm", "receiver", "--overwrite", "--wait"
    )
    assert (code, f"it has {MIB} bytes" in words) == (9, True)
    scribble(fleet, read_vm(session, other.ref), 4096)
    restore(fleet, "disk", "--vm", vm.name, "--disk", "scsi0:1", "--to-vm", "receiver", "--overwrite")
    assert flat(fleet, added[0].path or "").read_bytes() == images[1]


def test_at_once_from_the_repository_with_all_that_it_writes_meanwhile(
    fleet: VsphereFleet, session: Session
) -> None:
    """It runs on while the server that it runs from is killed, and keeps what it had flushed."""
    vm, images = backed_up(fleet, session, "instant")
    shown = fleet.read_json(
        *("scheduler", "restore", "vm", "--vm", vm.name, "--name", "at-once", "--datastore", VMFS),
        *("--instant", "--stay", "--wait", "--json"),
    )
    assert (shown["state"], shown["served_by"]) == ("running", "server")
    now = read_vm(session, shown["target_ref"])
    assert (now.powered_on, mark_of(session, now.ref) is not None) == (True, True)
    (served,) = fleet.layout.state.glob("**/served/*")

    def marks() -> set[str]:
        """Of whoever reads, or was killed while it read."""
        return {mark.name for mark in (fleet.layout.repository / "readers").iterdir()}

    with Client(NFS_PORT, served.name) as client:
        disk = client.look_up("scsi0-0-flat.vmdk")
        assert client.write(disk, 12_345, b"while it ran from the repository")[0] is Status.OK
    (server,) = [one for one in marked(fleet.layout.state) if "serve-points" in one.cmdline()]
    server.kill()
    wait_until(lambda: _answers(NFS_PORT, after=server), "the next server")
    left = marks()
    with Client(NFS_PORT, served.name) as client:
        disk = client.look_up("scsi0-0-flat.vmdk")
        assert client.read(disk, 12_345, 32) == b"while it ran from the repository"

    done = fleet.read_json("scheduler", "restore", "migrate", shown["restore"], "--wait", "--json")

    assert (done["state"], done["warnings"]) == ("succeeded", [])
    expected = bytearray(images[0])
    expected[12_345 : 12_345 + 32] = b"while it ran from the repository"
    moved = read_vm(session, now.ref)
    assert contents(fleet, moved) == [bytes(expected), images[1]]
    assert {(disk.path or "").partition("]")[0][1:] for disk in moved.disks} == {VMFS}
    assert (moved.powered_on, mark_of(session, now.ref)) == (True, None)
    assert list(served.parent.iterdir()) == []
    wait_until(lambda: marks() == left, "the server to let go of the restore point")
    assert contents(fleet, vm) == images


def _answers(port: int, *, after: psutil.Process) -> bool:
    """Whether a server takes connections that isn't the one that was killed: threads of that may last a moment."""
    if after.is_running():
        return False
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_what_is_not_there_is_refused_by_name(fleet: VsphereFleet, session: Session) -> None:
    vm, _ = backed_up(fleet, session, "refused")

    for words, code, said in (
        (("--name", "x", "--host", "nowhere"), 4, "host 'nowhere'"),
        (("--name", "x", "--datastore", "nowhere"), 4, "datastore 'nowhere'"),
        (("--name", "x", "--network", "VM Network=nowhere"), 4, "network 'nowhere'"),
        (("--name", "x", "--network", "LAN=VM Network"), 4, "network 'LAN'"),
        (("--name", vm.name), 9, "has a VM of that name"),
        (("--name", "x", "--network", "nonsense"), 3, "NAME=VALUE"),
        (("--overwrite", "--host", "x"), 3, "--host with --overwrite"),
        (("--point", "20200101T000000Z-00000000"), 4, "is not known"),
    ):
        exit_code, told = refused(fleet, "vm", "--vm", vm.name, *words, "--wait")
        assert (exit_code, said in told) == (code, True), told
    fleet.simulator.revoke(["VirtualMachine.Inventory.Create"])
    exit_code, told = refused(fleet, "vm", "--vm", vm.name, "--name", "x", "--wait")
    assert (exit_code, "VirtualMachine.Inventory.Create" in told) == (6, True), told
    assert vm_named(session, "x") is None
    assert json.loads(fleet.command("scheduler", "restore", "list", "--json"))
