"""The clean-up ladder: what to do next about a snapshot of ours that doesn't go away.

`decide` is pure; `take` does one step. A try goes up the ladder until the VM is clean: remove, consolidate, then
make a snapshot and delete all, which also takes what no snapshot shows any more, but only where the user has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pyVmomi import vim

from proxy_worker.contract.names import Quiesce
from proxy_worker.vsphere.model import SnapshotNode, Vm
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import (
    ForeignSnapshotError,
    Mark,
    create,
    ours,
    remove,
    tree,
)
from proxy_worker.vsphere.tasks import Waiting, finish

TRIES: Final = 4
BETWEEN_TRIES_S: Final = 4 * 3600.0


class Step(StrEnum):
    """What can be done about it."""

    NOTHING = "nothing"
    REMOVE = "remove"
    CONSOLIDATE = "consolidate"
    DELETE_ALL = "make a snapshot and delete all"
    WAIT = "wait"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Trace:
    """What a VM still has of ours, and what has been tried."""

    ours: int
    """Snapshots of this installation."""
    others: int
    """Snapshots of a user or of somebody else."""
    needs_consolidation: bool
    """vSphere says that disks hang on deltas that no snapshot shows."""
    taken: tuple[Step, ...] = ()
    """Steps of the present try, which didn't help."""
    tries: int = 0
    """Tries that have gone all the way up."""
    last_try_at: float = 0.0
    """When the last of them ended (Unix seconds)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, and from when on (Unix seconds)."""

    step: Step
    reason: str
    not_before: float = 0.0


def decide(trace: Trace, now: float) -> Decision:
    """The next step of the ladder at `now` (Unix seconds)."""
    if not trace.ours and not trace.needs_consolidation:
        return Decision(Step.NOTHING, "the VM is clean")
    if trace.tries >= TRIES:
        return Decision(Step.GIVE_UP, f"{TRIES} tries didn't help: consolidate the VM's disks in vCenter")
    due = trace.last_try_at + BETWEEN_TRIES_S if trace.tries else 0.0
    if not trace.taken and now < due:
        return Decision(Step.WAIT, f"try {trace.tries} of {TRIES} didn't help", due)
    return _next_rung(trace, now)


def _next_rung(trace: Trace, now: float) -> Decision:
    if trace.ours and Step.REMOVE not in trace.taken:
        return Decision(Step.REMOVE, f"{trace.ours} of our snapshots are left")
    if Step.CONSOLIDATE not in trace.taken:
        return Decision(Step.CONSOLIDATE, "disks hang on deltas that should be gone")
    if not trace.others and Step.DELETE_ALL not in trace.taken:
        return Decision(Step.DELETE_ALL, "consolidation didn't help, and the user has no snapshots")
    return Decision(Step.WAIT, "every step was taken", now + BETWEEN_TRIES_S)


def look(session: Session, vm: str) -> tuple[tuple[SnapshotNode, ...], bool]:
    """A VM's snapshots, and whether vSphere says that it needs consolidation."""
    machine = vim.VirtualMachine(vm, session.stub)
    found = session.call(
        f"reading the snapshots of {vm}",
        lambda: read(session, [machine], ["runtime.consolidationNeeded"]),
        repeatable=True,
    )
    return tree(session, vm), bool(found[0]["runtime.consolidationNeeded"])


def take(session: Session, vm: Vm, step: Step, mark: Mark, waiting: Waiting | None = None) -> None:
    """Do one step; raises the named error of what failed, and then the ladder goes on."""
    if step is Step.REMOVE:
        for node in ours(tree(session, vm.ref), mark.installation):
            remove(session, vm.ref, node.ref, mark.installation, waiting)
    elif step is Step.CONSOLIDATE:
        machine = vim.VirtualMachine(vm.ref, session.stub)
        finish(session, f"consolidating the disks of {vm.name}", machine.ConsolidateVMDisks_Task, waiting)
    elif step is Step.DELETE_ALL:
        _refuse_others(vm, tree(session, vm.ref), mark)
        create(session, vm, mark, Quiesce.NEVER, waiting)
        _refuse_others(vm, tree(session, vm.ref), mark)
        machine = vim.VirtualMachine(vm.ref, session.stub)
        finish(
            session, f"deleting all snapshots of {vm.name}", lambda: machine.RemoveAllSnapshots_Task(True), waiting
        )


def _refuse_others(vm: Vm, nodes: tuple[SnapshotNode, ...], mark: Mark) -> None:
    mine = ours(nodes, mark.installation)
    if other := next((node for node in nodes if node not in mine), None):
        raise ForeignSnapshotError(
            f"deleting all snapshots of {vm.name}",
            why=f"{other.name!r} isn't ours",
            remedy="Consolidate the VM's disks in vCenter.",
        )
