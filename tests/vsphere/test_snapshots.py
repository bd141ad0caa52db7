"""Snapshots: ours are made, recognised and removed; a user's stay."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import Any

import pytest
from pyVmomi import vim

from proxy_worker.contract.errors import CancelledError
from proxy_worker.vsphere.faults import DatastoreFullError, MissingPrivilegeError
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import SnapshotNode, Vm
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import (
    ForeignSnapshotError,
    Mark,
    Quiesce,
    QuiesceError,
    SnapshotError,
    create,
    left_behind,
    ours,
    remove,
    tree,
)
from proxy_worker.vsphere.tasks import Waiting, finish
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm

_journal = itertools.count(1)


@pytest.fixture
def vm(session: Session) -> Vm:
    """A VM with two disks whose guest runs VMware Tools."""
    return dataclasses.replace(make_vm(session, MIB, 2 * MIB), tools_running=True)


@pytest.fixture
def mark() -> Mark:
    """What this installation's journal says."""
    return Mark("installation-1", f"run-{next(_journal)}")


def by_user(session: Session, vm: Vm, name: str = "before the upgrade") -> str:
    """A snapshot that a user makes; its managed object id."""
    machine = vim.VirtualMachine(vm.ref, session.stub)
    made: Any = finish(session, name, lambda: machine.CreateSnapshot_Task(name, "mine", False, False), IMPATIENT)
    return str(made._moId)


def test_a_snapshot_is_quiesced_and_has_the_disks_as_they_are_frozen(
    vsphere: VsphereSimulator, session: Session, vm: Vm, mark: Mark
) -> None:
    made = create(session, vm, mark, waiting=IMPATIENT)
    (node,) = tree(session, vm.ref)
    assert (made.quiesced, made.warning, node.quiesced) == (True, None, True)
    assert (node.ref, Mark.of(node)) == (made.ref, mark)
    assert [disk.place for disk in made.disks] == ["scsi0:0", "scsi0:1"]
    assert [disk.uuid for disk in made.disks] == [disk.uuid for disk in vm.disks]
    assert remove(session, vm.ref, made.ref, mark.installation, IMPATIENT)
    assert tree(session, vm.ref) == ()


@pytest.mark.parametrize("fault", ["ApplicationQuiesceFault", "FilesystemQuiesceFault", "ToolsUnavailable"])
def test_a_guest_that_cannot_be_quiesced_is_taken_crash_consistent_with_a_warning(
    vsphere: VsphereSimulator, session: Session, vm: Vm, mark: Mark, fault: str
) -> None:
    vsphere.go_wrong("CreateSnapshot_Task", "fail", fault, quiesce=True)
    made = create(session, vm, mark, waiting=IMPATIENT)
    assert not made.quiesced
    assert fault in (made.warning or "")
    assert len(tree(session, vm.ref)) == 1


def test_a_guest_without_tools_is_not_asked_to_be_quiesced(session: Session, vm: Vm, mark: Mark) -> None:
    bare = dataclasses.replace(vm, tools_running=False)
    switch_on(session, vm.ref, vm.name, IMPATIENT)
    assert "VMware Tools don't run" in (create(session, bare, mark, waiting=IMPATIENT).warning or "")
    with pytest.raises(QuiesceError, match="VMware Tools don't run"):
        create(session, bare, mark, Quiesce.REQUIRE, IMPATIENT)


@pytest.mark.parametrize("quiesce", [Quiesce.PREFER, Quiesce.REQUIRE])
def test_a_vm_that_is_off_is_at_rest_without_being_quiesced(
    session: Session, vm: Vm, mark: Mark, quiesce: Quiesce
) -> None:
    switch_off(session, vm.ref, vm.name, IMPATIENT)
    made = create(session, dataclasses.replace(vm, tools_running=False), mark, quiesce, IMPATIENT)
    assert (made.quiesced, made.warning) == (False, None)


def test_quiescing_that_is_required_or_never_wanted_is_taken_at_its_word(
    vsphere: VsphereSimulator, session: Session, vm: Vm, mark: Mark
) -> None:
    never = create(session, vm, mark, Quiesce.NEVER, IMPATIENT)
    assert (never.quiesced, never.warning) == (False, None)
    vsphere.go_wrong("CreateSnapshot_Task", "fail", "ApplicationQuiesceFault", quiesce=True)
    with pytest.raises(QuiesceError, match="ApplicationQuiesceFault"):
        create(session, vm, Mark("installation-1", "required"), Quiesce.REQUIRE, IMPATIENT)
    assert len(tree(session, vm.ref)) == 1


@pytest.mark.parametrize(
    ("fault", "error"), [("SnapshotFault", SnapshotError), ("NoDiskSpace", DatastoreFullError)]
)
def test_a_creation_that_fails_after_all_leaves_nothing_behind(
    vsphere: VsphereSimulator, session: Session, vm: Vm, fault: str, error: type[Exception]
) -> None:
    mark = Mark("installation-1", "fails")
    users = by_user(session, vm)
    vsphere.go_wrong("CreateSnapshot_Task", "fail_after", fault, times=0)
    with pytest.raises(error, match=f"snapshot of {vm.name}"):
        create(session, vm, mark, waiting=IMPATIENT)
    assert [node.ref for node in tree(session, vm.ref)] == [users]


def test_a_creation_that_is_cancelled_leaves_nothing_behind(
    vsphere: VsphereSimulator, session: Session, vm: Vm, mark: Mark
) -> None:
    vsphere.go_wrong("CreateSnapshot_Task", "slow", polls=1000)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        create(session, vm, mark, waiting=Waiting(cancelled=cancelled, first_pause_s=0.01))
    assert tree(session, vm.ref) == ()


def test_a_missing_privilege_makes_no_snapshot_and_is_named(
    vsphere: VsphereSimulator, session: Session, vm: Vm, mark: Mark
) -> None:
    vsphere.revoke(["VirtualMachine.State.CreateSnapshot"])
    with pytest.raises(MissingPrivilegeError, match=r"VirtualMachine\.State\.CreateSnapshot"):
        create(session, vm, mark, waiting=IMPATIENT)


@pytest.mark.parametrize("name", ["before the upgrade", "proxyfleet backup run-7"])
def test_a_users_snapshot_is_never_removed_whatever_its_name(session: Session, vm: Vm, name: str) -> None:
    users = by_user(session, vm, name)
    with pytest.raises(ForeignSnapshotError, match="a user made it"):
        remove(session, vm.ref, users, "installation-1", IMPATIENT)
    assert [node.ref for node in tree(session, vm.ref)] == [users]


def test_another_installations_snapshot_is_left_alone(session: Session, vm: Vm) -> None:
    theirs = create(session, vm, Mark("installation-2", "run-1"), waiting=IMPATIENT)
    with pytest.raises(ForeignSnapshotError, match="installation-2 made it"):
        remove(session, vm.ref, theirs.ref, "installation-1", IMPATIENT)


def test_ours_below_and_above_a_users_are_removed_and_the_users_stays(session: Session, vm: Vm, mark: Mark) -> None:
    create(session, vm, mark, waiting=IMPATIENT)
    users = by_user(session, vm)
    create(session, vm, mark, waiting=IMPATIENT)
    for node in ours(tree(session, vm.ref), mark.installation):
        assert remove(session, vm.ref, node.ref, mark.installation, IMPATIENT)
    assert [node.ref for node in tree(session, vm.ref)] == [users]


def test_a_snapshot_that_is_gone_already_is_no_error(session: Session, vm: Vm, mark: Mark) -> None:
    made = create(session, vm, mark, waiting=IMPATIENT)
    remove(session, vm.ref, made.ref, mark.installation, IMPATIENT)
    assert remove(session, vm.ref, made.ref, mark.installation, IMPATIENT) is False


def test_what_a_crash_left_is_found_in_the_inventory(session: Session, vm: Vm) -> None:
    left = create(session, vm, Mark("installation-3", "run-1"), waiting=IMPATIENT)
    by_user(session, vm)
    found = left_behind(read_inventory(session), "installation-3")
    assert [(machine.ref, node.ref) for machine, node in found] == [(vm.ref, left.ref)]
    assert len(read_vm(session, vm.ref).snapshots) == 2


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("proxyfleet backup x", ""),
        ("proxyfleet backup x", "see [proxyfleet a/b]"),
        ("mine", "[proxyfleet a/b]"),
        ("proxyfleet backup x", "[proxyfleet a]"),
    ],
)
def test_only_name_and_mark_together_make_a_snapshot_ours(name: str, description: str) -> None:
    assert Mark.of(SnapshotNode("snapshot-1", name, description, None, 0.0, quiesced=False)) is None
