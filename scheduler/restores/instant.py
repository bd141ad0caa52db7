"""What follows what when a VM runs from its restore point while its disks move to production.

`PLACING -> SERVING -> MOUNTING -> CREATING -> STARTING -> RUNNING -> MIGRATING -> RELEASING -> SUCCEEDED`. A proxy
serves the point's disks, a host mounts them, the VM is made with them and started. What fails or is cancelled
before the disks have moved is undone: the VM is deleted by the restore's mark, and what it wrote is forgotten. In
the end, either way, the host unmounts and the proxy lets go.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.contract.subjects import DiskKey
from proxy_worker.contract.using import PointReleaseResult, PointServeResult
from scheduler.dispatch.fleet import Placement
from scheduler.restores import flow, tasks
from scheduler.restores.instant_steps import (
    MOUNT,
    MOVE,
    START,
    UNMOUNT,
    InstantDone,
    MountRequest,
    MoveRequest,
    StartRequest,
)
from scheduler.runs.journal import Journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.steps import try_later
from scheduler.state.errors import NoSuchRepositoryError
from scheduler.state.models import (
    DiskTaskState,
    LedgerTask,
    VcenterStep,
    VmRestore,
    VmRestoreState,
    WorkState,
)
from scheduler.vcenters.steps import StepOutcome

TRIES: Final = 20
"""How often a host's mount, a start or a move is tried that fails for something that passes."""
SOON_S: Final = 15.0
LATEST_S: Final = 600.0
"""What must be let go of is tried again after `SOON_S`, and then ever later up to this, until it is."""
NOBODY: Final = "no-such-vcenter"
"""How a step fails whose vCenter isn't declared any more."""


def unservable(journal: Journal, restore: VmRestore) -> TaskFailure | None:
    """Why no proxy that runs could serve the disks."""
    placement = Placement(TaskKind.POINT_SERVE, repository=restore.repository, needs_read_key=True)
    obstacle = journal.obstacle(placement)
    if obstacle is None:
        return None
    what = f"running {restore.vm_name} from repository {restore.repository}"
    return TaskFailure(code="no-proxy", what=what, why=obstacle, exit_code=NotFoundError.exit_code)


def serve(journal: Journal, restore: VmRestore) -> None:
    """PLACING -> SERVING: from here on a failure has to be undone."""
    try:
        repository = flow.repository_of(journal, restore)
    except NoSuchRepositoryError as error:
        flow.end(journal, restore, VmRestoreState.FAILED, TaskFailure.of(error))
        return
    restore.state, restore.touched = VmRestoreState.SERVING, True
    journal.open(tasks.serve_task(restore, repository, journal.now))


def record_serve(journal: Journal, restore: VmRestore, outcome: Outcome, failure: TaskFailure | None) -> None:
    """SERVING -> MOUNTING."""
    restore.served_by = outcome.proxy or restore.served_by
    if not isinstance(outcome.result, PointServeResult) or restore.cancel_requested:
        flow.undo(journal, restore, None if restore.cancel_requested else failure)
        return
    restore.served, restore.state = outcome.result, VmRestoreState.MOUNTING
    request = _mount(restore)
    flow.open_restore_step(journal, restore, MOUNT.name, request, f"mounting {request.datastore}")


def start(journal: Journal, restore: VmRestore) -> None:
    """CREATING -> STARTING, now that the VM is made."""
    restore.state = VmRestoreState.STARTING
    request = StartRequest(
        restore=restore.id,
        vm_ref=restore.vm_ref or "",
        instance_uuid=restore.instance_uuid,
        name=restore.target_name,
    )
    flow.open_restore_step(journal, restore, START.name, request, f"starting {restore.target_name}")


def go_on(journal: Journal, restore: VmRestore) -> None:
    """Leave RUNNING, where that is wanted: for production, or back."""
    if restore.state is not VmRestoreState.RUNNING:
        return
    if restore.cancel_requested:
        flow.undo(journal, restore, None)
    elif restore.move_requested:
        restore.state, restore.move_requested, restore.failure = VmRestoreState.MIGRATING, False, None
        request = MoveRequest(
            restore=restore.id,
            vm_ref=restore.vm_ref or "",
            instance_uuid=restore.instance_uuid,
            name=restore.target_name,
            datastore=flow.served_datastore(restore),
            to=_production(journal, restore),
            disk_format=restore.wishes.disk_format,
        )
        title = f"moving the disks of {restore.target_name} to production"
        flow.open_restore_step(journal, restore, MOVE.name, request, title)


def going_on() -> ColumnElement[bool]:
    """Whether `go_on` would do anything."""
    wanted = VmRestore.cancel_requested | VmRestore.move_requested
    return (VmRestore.state == VmRestoreState.RUNNING) & wanted


def let_go(journal: Journal, restore: VmRestore) -> bool:
    """Have the host unmount, and the proxy serve no more; False if there is nothing to let go of."""
    if restore.share is None or restore.served_by is None:
        return False
    if restore.served is None:
        _release(journal, restore)
        return True
    request = _mount(restore)
    flow.open_restore_step(journal, restore, UNMOUNT.name, request, f"unmounting {request.datastore}")
    return True


def record_release(journal: Journal, row: LedgerTask, restore: VmRestore, outcome: Outcome) -> None:
    """The last step."""
    failure, done = outcome.failure or row.failure, isinstance(outcome.result, PointReleaseResult)
    if not done and failure is not None and failure.retryable and not row.cancelling:
        row.state, row.failure, row.retry_at = WorkState.WAITING, failure, journal.now + SOON_S
        journal.keep(row)
        return
    journal.close(row)
    if not done:
        why = f": {failure}" if failure is not None else ""
        restore.warnings = (*restore.warnings, f"{left_on_proxy(restore)}{why}")
    if restore.state is VmRestoreState.RELEASING:
        flow.end(journal, restore, VmRestoreState.SUCCEEDED)
    else:
        flow.end_undone(journal, restore)


def record_mount(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    """MOUNTING -> CREATING."""
    restore = _settled(journal, step, outcome)
    if restore is not None:
        flow.create(journal, restore)


def record_start(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    """STARTING -> RUNNING, and on from there unless it is to stay."""
    restore = _settled(journal, step, outcome)
    if restore is not None:
        restore.state, restore.move_requested = VmRestoreState.RUNNING, not restore.wishes.stay
        go_on(journal, restore)


def record_move(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    """MIGRATING -> RELEASING; a move that fails leaves the VM running as it did."""
    restore = journal.session.get_one(VmRestore, step.subject)
    if isinstance(outcome.answer, InstantDone):
        journal.close_step(step)
        restore.state = VmRestoreState.RELEASING
        for disk in flow.disks_of(journal, restore):
            disk.state = DiskTaskState.SUCCEEDED
        let_go(journal, restore)
        return
    if _may_pass(step, outcome.failure, restore):
        try_later(journal, step, outcome.failure, _wait_s(step))
        return
    journal.close_step(step)
    restore.state, restore.failure = VmRestoreState.RUNNING, outcome.failure
    go_on(journal, restore)


def record_unmount(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> None:
    """Then the proxy lets go. While the host has it mounted, something may be in use there."""
    restore = journal.session.get_one(VmRestore, step.subject)
    nobody = outcome.failure is not None and outcome.failure.code == NOBODY
    if not isinstance(outcome.answer, InstantDone) and not nobody:
        try_later(journal, step, outcome.failure, _wait_s(step))
        return
    go_on_unmounted(journal, step, restore)


def go_on_unmounted(journal: Journal, step: VcenterStep, restore: VmRestore) -> None:
    """Have the proxy let go, now that no host is waited for any more; it is waited for until told otherwise."""
    restore.given_up = False
    journal.close_step(step)
    _release(journal, restore)


def left_on_proxy(restore: VmRestore) -> str:
    """Where what the VM wrote is, if its proxy isn't told to forget it."""
    share = f"{(restore.share or '')[:8]}…"
    return (
        f"what {restore.target_name} wrote is left on proxy {restore.served_by}, in its served folder, as {share}"
    )


def _settled(journal: Journal, step: VcenterStep, outcome: StepOutcome) -> VmRestore | None:
    """The restore of a step that is done; tries it again, or undoes all, where it isn't."""
    restore = journal.session.get_one(VmRestore, step.subject)
    if _may_pass(step, outcome.failure, restore):
        try_later(journal, step, outcome.failure, _wait_s(step))
        return None
    journal.close_step(step)
    if isinstance(outcome.answer, InstantDone) and not restore.cancel_requested:
        return restore
    flow.undo(journal, restore, None if restore.cancel_requested else outcome.failure)
    return None


def _may_pass(step: VcenterStep, failure: TaskFailure | None, restore: VmRestore) -> bool:
    """Whether what failed is worth another try."""
    return failure is not None and failure.retryable and step.tries < TRIES and not restore.cancel_requested


def _release(journal: Journal, restore: VmRestore) -> None:
    try:
        repository = flow.repository_of(journal, restore)
    except NoSuchRepositoryError as error:
        restore.warnings = (*restore.warnings, f"{left_on_proxy(restore)}: {error}")
        ends = restore.state is VmRestoreState.RELEASING
        flow.end(journal, restore, VmRestoreState.SUCCEEDED) if ends else flow.end_undone(journal, restore)
        return
    journal.open(tasks.release_task(restore, repository, journal.now))


def _mount(restore: VmRestore) -> MountRequest:
    served = restore.served
    return MountRequest(
        restore=restore.id,
        host=(restore.place.host if restore.place is not None else None) or "",
        datastore=flow.served_datastore(restore),
        server=served.host if served is not None else "",
        path=served.path if served is not None else "",
    )


def _production(journal: Journal, restore: VmRestore) -> dict[DiskKey, str]:
    """Where each disk is to be in the end, as vCenter calls it."""
    home = restore.place.datastore if restore.place is not None else ""
    chosen = restore.wishes.disk_datastores
    return {disk.disk_key: chosen.get(disk.disk_key, home) for disk in flow.disks_of(journal, restore)}


def _wait_s(step: VcenterStep) -> float:
    return min(SOON_S * 2.0 ** min(step.tries - 1, 10), LATEST_S)
