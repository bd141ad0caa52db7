"""Snapshots that nobody needs any more: removed at once, or by the clean-up ladder over hours; orphans too.

Nothing waits for a removal: one that fails is retried, and told as a warning of its VM run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.vsphere.cleanup import BETWEEN_TRIES_S, TRIES
from scheduler.runs.journal import Journal
from scheduler.runs.steps import StepHandling, open_step, try_later
from scheduler.runs.waiting import REMOVE, step_id
from scheduler.runs.warnings import unwarn, warn
from scheduler.state.models import SnapshotEntry, SnapshotState, VcenterStep, VmRun
from scheduler.vcenters.removal import Removed, RemoveRequest
from scheduler.vcenters.scanning import OurSnapshot
from scheduler.vcenters.steps import StepOutcome

logger = logging.getLogger(__name__)

SOON_S: Final = 60.0
LATEST_S: Final = 600.0
"""A vCenter that is gone, or a VM that is busy, is asked again after `SOON_S`, and then ever later up to this."""
BUSY_TRIES: Final = 5
"""So often a VM may be busy before that counts as a rung of the ladder."""
GIVEN_UP_FOR_S: Final = 24 * 3600.0
"""How long a snapshot that the ladder didn't remove is left to people, before a scan that sees it begins anew."""
_BUSY: Final = frozenset({"vm-busy", "disk-locked"})
_NOBODY: Final = "no-such-vcenter"


def thaw(journal: Journal, entry_id: str | None) -> None:
    """Have the snapshot of an entry removed, if there is one; needs repeating by nobody."""
    entry = journal.session.get(SnapshotEntry, entry_id) if entry_id is not None else None
    if entry is not None and entry.state.open:
        _open_removal(journal, entry)


def discard(journal: Journal, entry: SnapshotEntry) -> None:
    """Have removed what may have been made for an entry; one for which nothing was done is forgotten."""
    if entry.state is SnapshotState.PLANNED:
        journal.session.delete(entry)
    elif entry.state.open:
        _open_removal(journal, entry)


def sweep(journal: Journal, vcenter: str, found: Iterable[OurSnapshot], *, seen_at: float) -> None:
    """Have removed what a vCenter shows of ours and no run needs: what a crash, or a lost database, left.

    What was removed since it was `seen_at` (Unix seconds) is over.
    """
    for one in found:
        entry = journal.session.get(SnapshotEntry, one.journal)
        if entry is None:
            entry = SnapshotEntry(
                id=one.journal,
                vcenter=vcenter,
                vm_ref=one.vm_ref,
                vm_id=one.vm_id,
                vm_name=one.vm_name,
                datastores=one.datastores,
                created_at=journal.now,
                tries=0,
            )
            journal.session.add(entry)
        elif not _is_over(entry, journal.now, seen_at):
            continue
        logger.warning("VM %s of vCenter %s has snapshot %s of ours left", one.vm_name, vcenter, one.journal)
        entry.tries, entry.last_try_at = 0, None
        entry.vcenter, entry.vm_ref = vcenter, one.vm_ref  # it may have got another name, or another vCenter the VM
        _open_removal(journal, entry)


def _is_over(entry: SnapshotEntry, now: float, seen_at: float) -> bool:
    """Whether the journal has nothing more to do with a snapshot that was there then."""
    if entry.state is SnapshotState.GIVEN_UP:
        if entry.failure is not None and entry.failure.code == _NOBODY:
            return True  # nothing was tried
        return now - (entry.last_try_at or 0.0) >= GIVEN_UP_FOR_S
    return entry.state is SnapshotState.GONE and (entry.removed_at or 0.0) < seen_at


def _open_removal(journal: Journal, entry: SnapshotEntry) -> None:
    entry.state = SnapshotState.REMOVING
    if journal.session.get(VcenterStep, step_id(REMOVE, entry.id)) is None:
        open_step(
            journal,
            REMOVE,
            vcenter=entry.vcenter,
            subject=entry.id,
            title=f"removal of the snapshot of {entry.vm_name}",
            request=RemoveRequest(vm_ref=entry.vm_ref, vm_id=entry.vm_id, vm_name=entry.vm_name, journal=entry.id),
            vm_ref=entry.vm_ref,
        )


def _record(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    entry = journal.session.get_one(SnapshotEntry, step.subject)
    removed = outcome.answer
    if isinstance(removed, Removed) and removed.clean:
        entry.state, entry.removed_at = SnapshotState.GONE, journal.now
        _tell(journal, entry, None)
        journal.close_step(step)
        return
    failure = removed.failure if isinstance(removed, Removed) else outcome.failure
    entry.failure = failure
    busy_too_long = failure is not None and failure.code in _BUSY and step.tries >= BUSY_TRIES
    if failure is not None and failure.code == _NOBODY:
        _give_up(journal, entry, step)
    elif isinstance(removed, Removed) or busy_too_long:
        entry.tries, entry.last_try_at = entry.tries + 1, journal.now
        if entry.tries >= TRIES:
            _give_up(journal, entry, step)
            return
        _tell(journal, entry, "tried again in 4 hours")
        try_later(journal, step, failure, BETWEEN_TRIES_S)
        step.tries = 1
    else:
        _tell(journal, entry, "tried again until it is")
        try_later(journal, step, failure, min(SOON_S * 2 ** (step.tries - 1), LATEST_S))


def _give_up(journal: Journal, entry: SnapshotEntry, step: VcenterStep) -> None:
    entry.state, entry.last_try_at = SnapshotState.GIVEN_UP, journal.now
    _tell(journal, entry, "given up; remove it, or consolidate the VM's disks, in vCenter")
    journal.close_step(step)


def _tell(journal: Journal, entry: SnapshotEntry, prospect: str | None) -> None:
    """Say in the VM run's warning what holds now; None: nothing does any more."""
    vm_run = journal.session.get(VmRun, entry.vm_run_id) if entry.vm_run_id is not None else None
    said, entry.warning = entry.warning, None
    if vm_run is not None and said is not None:
        unwarn(vm_run, said)
    if prospect is None:
        entry.failure = None
        return
    why = _why(entry.failure)
    about = {"vm": entry.vm_name, "point": entry.id}
    logger.warning("snapshot %s of VM %s is not removed: %s", entry.id, entry.vm_name, why, extra=about)
    if vm_run is not None and vm_run.repository_run == entry.id and entry.made_at is not None:
        entry.warning = f"its snapshot is not removed yet ({prospect}): {why}"
        warn(vm_run, entry.warning)


def _why(failure: TaskFailure | None) -> str:
    return str(failure) if failure is not None else "vCenter reports success, and its disks still hang on it"


REMOVING: Final = StepHandling(_record)
