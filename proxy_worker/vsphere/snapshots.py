"""Snapshots: made for a run, recognised as ours, removed; a user's are never touched.

Ours carries a mark in its description besides its name, with the installation that made it and its entry in the
journal. So what a crash left behind is found again, and two installations leave each other's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError, ProxyfleetError, SourceError
from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.devices import VirtualDisk, disks
from proxy_worker.vsphere.faults import VsphereObjectGoneError, translate, words_of
from proxy_worker.vsphere.inventory import snapshot_nodes
from proxy_worker.vsphere.model import Inventory, SnapshotNode, Vm
from proxy_worker.vsphere.power import is_on
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import TaskFault, Waiting, attempt, finish

NAME: Final = "proxyfleet backup"
_MARK: Final = re.compile(r"^\[proxyfleet ([A-Za-z0-9-]+)/([A-Za-z0-9._-]+)\]")
_QUIESCING: Final = (vim.fault.SnapshotFault, vim.fault.ToolsUnavailable, vim.fault.GenericVmConfigFault)


class SnapshotError(SourceError):
    """A VM's snapshot couldn't be made, and none was left behind."""


class QuiesceError(SourceError):
    """A quiesced snapshot is required, and the guest couldn't be quiesced."""


class ForeignSnapshotError(ConflictError):
    """A snapshot wasn't made by this installation, and so isn't removed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Which installation made a snapshot, and for which entry of its journal."""

    installation: str
    journal: str

    def describe(self) -> str:
        """What goes into the snapshot's description."""
        return f"[proxyfleet {self.installation}/{self.journal}] Removed when the backup has read the disks."

    @classmethod
    def of(cls, node: SnapshotNode) -> Mark | None:
        """The mark of one of ours, of whatever installation; None for a user's."""
        found = _MARK.match(node.description) if node.name.startswith(NAME) else None
        return cls(found[1], found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of ours, with the disks as they are frozen in it."""

    ref: str
    vm: str
    quiesced: bool
    warning: str | None
    """Why it is only crash-consistent, where quiescing was preferred."""
    disks: tuple[VirtualDisk, ...]


def tree(session: Session, vm: str) -> tuple[SnapshotNode, ...]:
    """A VM's snapshots, parents first."""
    found = session.call(
        f"reading the snapshots of {vm}",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], ["snapshot.rootSnapshotList"]),
        repeatable=True,
    )
    return tuple(snapshot_nodes(found[0]["snapshot.rootSnapshotList"] or ()))


def create(
    session: Session, vm: Vm, mark: Mark, quiesce: Quiesce = Quiesce.PREFER, waiting: Waiting | None = None
) -> Snapshot:
    """Make a snapshot without memory. One that fails after all is removed; where that fails too, its error says so.

    A VM that is off has nothing to bring to rest: its snapshot is as good as a quiesced one. Journal `mark` first,
    so that what stays all the same is found. Raises `QuiesceError`,
    `SnapshotError`, or what `faults` names.
    """
    what = f"snapshot of {vm.name}"
    warning = None
    if quiesce is not Quiesce.NEVER and not vm.tools_running and not is_on(session, vm.ref):
        quiesce = Quiesce.NEVER
    if quiesce is not Quiesce.NEVER and not vm.tools_running:
        warning = "VMware Tools don't run in the guest"
    elif quiesce is not Quiesce.NEVER:
        try:
            return _make(session, vm, mark, quiesce=True, waiting=waiting)
        except TaskFault as failed:
            if not isinstance(failed.fault, _QUIESCING):
                raise _named(what, failed) from failed.fault
            warning = words_of(failed.fault)
    if warning and quiesce is Quiesce.REQUIRE:
        raise QuiesceError(what, why=warning, remedy="Repair VMware Tools in the guest, or let the job prefer it.")
    try:
        made = _make(session, vm, mark, quiesce=False, waiting=waiting)
    except TaskFault as failed:
        raise _named(what, failed) from failed.fault
    return Snapshot(made.ref, made.vm, quiesced=False, warning=warning, disks=made.disks)


def _make(session: Session, vm: Vm, mark: Mark, *, quiesce: bool, waiting: Waiting | None) -> Snapshot:
    machine = vim.VirtualMachine(vm.ref, session.stub)
    try:
        made = attempt(
            session,
            f"snapshot of {vm.name}",
            lambda: machine.CreateSnapshot_Task(f"{NAME} {mark.journal}", mark.describe(), False, quiesce),
            waiting,
        )
    except (TaskFault, ProxyfleetError):
        _clear(session, vm, mark)
        raise
    return Snapshot(made._moId, vm.ref, quiesce, None, frozen_disks(session, made._moId))


def _clear(session: Session, vm: Vm, mark: Mark) -> None:
    """Remove what a failed creation made after all."""
    for node in tree(session, vm.ref):
        if Mark.of(node) == mark:
            remove(session, vm.ref, node.ref, mark.installation)


def _named(what: str, failed: TaskFault) -> ProxyfleetError:
    if isinstance(failed.fault, _QUIESCING):
        return SnapshotError(
            what, why=words_of(failed.fault), remedy="Take a snapshot by hand in vCenter to see what it says."
        )
    return translate(what, failed.fault)


def frozen_disks(session: Session, snapshot: str) -> tuple[VirtualDisk, ...]:
    """The disks of a snapshot, with the files that are frozen and where changed block tracking stood."""
    found = session.call(
        f"reading the disks of {snapshot}",
        lambda: read(session, [vim.vm.Snapshot(snapshot, session.stub)], ["config.hardware.device"]),
        repeatable=True,
    )
    return disks(found[0]["config.hardware.device"] or ())


def remove(session: Session, vm: str, snapshot: str, installation: str, waiting: Waiting | None = None) -> bool:
    """Remove a snapshot of ours, not its children; False if it is gone already.

    Raises `ForeignSnapshotError` for any that this installation didn't make.
    """
    node = next((node for node in tree(session, vm) if node.ref == snapshot), None)
    if node is None:
        return False
    what = f"removing snapshot {node.name!r} of {vm}"
    if (mark := Mark.of(node)) is None or mark.installation != installation:
        whose = "a user made it" if mark is None else f"installation {mark.installation} made it"
        raise ForeignSnapshotError(what, why=whose, remedy="Remove it in vCenter if it isn't needed.")
    target = vim.vm.Snapshot(snapshot, session.stub)
    try:
        finish(session, what, lambda: target.RemoveSnapshot_Task(False, True), waiting)
    except VsphereObjectGoneError:
        return False
    return True


def adopt(session: Session, vm: Vm, mark: Mark) -> Snapshot | None:
    """The snapshot that an earlier life made for this very entry of the journal, if `vm` shows one; the newest."""
    node = next((node for node in reversed(vm.snapshots) if Mark.of(node) == mark), None)
    if node is None:
        return None
    return Snapshot(node.ref, vm.ref, node.quiesced, None, frozen_disks(session, node.ref))


def remove_marked(session: Session, vm: str, mark: Mark, waiting: Waiting | None = None) -> int:
    """Remove every snapshot of `vm` that was made for this entry of the journal; how many there were."""
    nodes = [node for node in reversed(tree(session, vm)) if Mark.of(node) == mark]
    return sum(remove(session, vm, node.ref, mark.installation, waiting) for node in nodes)


def ours(nodes: Iterable[SnapshotNode], installation: str) -> tuple[SnapshotNode, ...]:
    """Those that this installation made, children before parents, as they are best removed."""
    mine = [node for node in nodes if (mark := Mark.of(node)) is not None and mark.installation == installation]
    return tuple(reversed(mine))


def left_behind(inventory: Inventory, installation: str) -> tuple[tuple[Vm, SnapshotNode], ...]:
    """Every snapshot of ours in an inventory, with its VM: what a crash left, if no run goes on."""
    return tuple((vm, node) for vm in inventory.vms.values() for node in ours(vm.snapshots, installation))
