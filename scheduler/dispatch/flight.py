"""What the ledger shows in flight, as the policy counts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from proxy_worker.ledger import FleetView, TaskState, TaskView
from scheduler.dispatch.fleet import InFlight
from scheduler.dispatch.pending import OpenTask


def begun_vms(view: FleetView, tasks: Mapping[str, OpenTask]) -> set[str]:
    """The VM runs that have a disk in flight, or had the one that is ready again."""
    begun = (
        tasks[task_id].vm_run_id
        for task_id, seen in view.tasks.items()
        if task_id in tasks and (flies(seen) or seen.attempts)
    )
    return {vm_run_id for vm_run_id in begun if vm_run_id is not None}


def at_rest(view: FleetView, name: str) -> bool:
    """Whether a proxy takes nothing more and has nothing left to do.

    One that isn't heard of may be at work all the same, until the leases of its tasks have run out; so may all that
    were, when Redis has lost its data.
    """
    if view.epoch is None or view.quiet_s > 0 or any(task.proxy == name for task in view.tasks.values()):
        return False
    seen = view.proxies.get(name)
    return seen is None or not (seen.slots_used or (seen.live and seen.orders.enabled))


def flies(seen: TaskView) -> bool:
    """Whether a task was released and has not ended."""
    return seen.state in {TaskState.RESERVED, TaskState.DISPATCHED, TaskState.RUNNING}


def in_flight(view: FleetView, tasks: Mapping[str, OpenTask]) -> Iterable[InFlight]:
    """What has been released and hasn't ended, as the policy counts it."""
    for task_id, seen in view.tasks.items():
        if flies(seen):
            task = tasks.get(task_id)
            yield InFlight(
                lane=seen.lane or "",
                proxy=seen.proxy,
                takes_slot=seen.kind.takes_slot,
                job=task.job if task is not None else "",
                caps=task.new.caps if task is not None else (),
            )
