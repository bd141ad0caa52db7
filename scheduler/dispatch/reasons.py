"""Why tasks wait, for whoever asks: the policy is asked again, and nothing is released."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import FleetView, TaskState
from scheduler.dispatch.declared import DeclaredFleet
from scheduler.dispatch.flight import begun_vms, in_flight
from scheduler.dispatch.pending import OpenTask
from scheduler.dispatch.policy import decide
from scheduler.state.models import LedgerTask, WorkState
from scheduler.state.vm_runs import begun_vm_runs


def waiting_reasons(session: Session, view: FleetView, now: float) -> dict[str, str]:
    """By id of the journal's task (`LedgerTask.id`), why it isn't running; running ones are absent.

    `now` is in Unix seconds. Each reason is one line that starts with `waiting: `.
    """
    rows = session.scalars(select(LedgerTask).where(LedgerTask.state == WorkState.RUNNING))
    tasks = {row.id: OpenTask.of(row) for row in rows}
    declared = DeclaredFleet.load(session)
    begun = begun_vms(view, tasks) | begun_vm_runs(session)
    pending = [
        task.pending(vm_started=task.vm_run_id in begun)
        for task_id, task in tasks.items()
        if ((seen := view.tasks.get(task_id)) is None or seen.state is TaskState.READY)
        and task.new.kind is not TaskKind.DISK_RECEIVE
    ]
    decision = decide(pending, declared.fleet(view, in_flight(view, tasks)), declared.limits, now)
    reasons = dict(decision.waiting)
    for release in decision.releases:
        reasons[release.task_id] = "waiting: about to be released"
    for task_id, task in tasks.items():
        seen = view.tasks.get(task_id)
        if seen is not None and seen.state is TaskState.RESERVED:
            reasons[task_id] = "waiting: its replica's disk is being made ready to be written"
        elif seen is not None and seen.state is TaskState.DISPATCHED:
            reasons[task_id] = f"waiting: announced on lane {seen.lane}, not picked up yet"
        elif task_id in reasons and task.new.takes_slot and view.quiet_s > 0:
            reasons[task_id] = f"waiting: leases from before Redis lost its data end in {view.quiet_s:.0f} s"
        elif seen is not None and seen.state is TaskState.READY and seen.note and task_id in reasons:
            reasons[task_id] += f" (last: {seen.note})"
    return reasons
