"""The step `remove`: remove a snapshot of ours, and go up the clean-up ladder once where that doesn't help."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.subjects import Frozen
from proxy_worker.vsphere.cleanup import Step, Trace, decide, look, take
from proxy_worker.vsphere.faults import (
    DiskLockedError,
    VcenterUnreachableError,
    VmBusyError,
    VsphereObjectGoneError,
    is_locked_out,
)
from proxy_worker.vsphere.lookup import find_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.snapshots import Mark, remove_marked
from scheduler.vcenters.steps import Access, StepKind

_PASSING: Final = (VcenterUnreachableError, VmBusyError, DiskLockedError)
"""Failures that say nothing of the snapshot: the same is tried again soon, no further step is taken."""


class RemoveRequest(Frozen):
    """Which snapshot is to go: the one that is marked so."""

    vm_ref: str
    vm_id: str
    vm_name: str
    journal: str


class Removed(Frozen):
    """What became of it."""

    clean: bool
    """Whether neither the snapshot nor anything of it is left."""
    taken: tuple[Step, ...] = ()
    """The rungs of the ladder that were taken."""
    failure: TaskFailure | None = None
    """What the last of them ended with, if it isn't clean."""


def remove(access: Access, request: RemoveRequest) -> Removed:
    """Remove what bears the mark; other snapshots stay, ours that another run needs among them."""
    try:
        vm = find_vm(access.session, request.vm_ref, request.vm_id, request.vm_name)
    except VsphereObjectGoneError:
        return Removed(clean=True)
    mark = Mark(access.installation, request.journal)
    taken: list[Step] = []
    failure: TaskFailure | None = None
    while True:
        trace = replace(_trace(access, vm, mark), taken=tuple(taken))
        step = decide(trace, now=0.0).step
        if step is Step.NOTHING:
            return Removed(clean=True, taken=tuple(taken))
        if step not in {Step.REMOVE, Step.CONSOLIDATE, Step.DELETE_ALL}:
            return Removed(clean=False, taken=tuple(taken), failure=failure)
        taken.append(step)
        try:
            _take(access, vm, step, mark)
        except _PASSING:
            raise
        except ProxyfleetError as error:
            if is_locked_out(error):
                raise
            failure = TaskFailure.of(error)


def _trace(access: Access, vm: Vm, mark: Mark) -> Trace:
    """What the VM has of this very mark: anything else on it counts as somebody else's."""
    nodes, needs_consolidation = look(access.session, vm.ref)
    mine = sum(1 for node in nodes if Mark.of(node) == mark)
    return Trace(mine, len(nodes) - mine, needs_consolidation)


def _take(access: Access, vm: Vm, step: Step, mark: Mark) -> None:
    if step is Step.REMOVE:
        remove_marked(access.session, vm.ref, mark, access.waiting)
    else:
        take(access.session, vm, step, mark, access.waiting)


REMOVE: Final = StepKind("remove", RemoveRequest, remove)
