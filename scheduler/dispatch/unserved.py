"""Tasks that nobody could take, however idle: those that aren't waited for without end, and why nobody can."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import FleetView, TaskState
from scheduler.dispatch.candidates import Candidates, candidates, undeclared
from scheduler.dispatch.fleet import Fleet, Placement
from scheduler.dispatch.pending import OpenTask

ANSWERED: Final = frozenset(
    {
        TaskKind.INVENTORY_SCAN,
        TaskKind.COPY_PLAN,
        TaskKind.STORAGE_SNAPSHOT_CREATE,
        TaskKind.STORAGE_SNAPSHOT_LIST,
        TaskKind.DISK_RESTORE,
        TaskKind.VM_CREATE,
        TaskKind.REPOSITORY_LIST,
        TaskKind.REPOSITORY_CHECK,
        TaskKind.REPOSITORY_COLLECT,
        TaskKind.REPOSITORY_PROVE,
        TaskKind.POINT_DELETE,
        TaskKind.POINT_BOOT,
        TaskKind.POINT_SERVE,
    }
)
"""What somebody waits to be answered about."""
_LOST_WITH_REPOSITORY: Final = frozenset(
    {TaskKind.DISK_BACKUP, TaskKind.DISK_COPY, TaskKind.REPOSITORY_COMMIT, TaskKind.REPOSITORY_ABANDON}
)
"""What a run consists of: without its repository it has nothing to wait for."""


def without_repository(
    tasks: Mapping[str, OpenTask], placements: Iterable[Placement], fleet: Fleet
) -> Collection[str]:
    """What runs consist of and whose repository isn't declared any more; `placements` are those of all `tasks`."""
    lost = {one for one in placements if one.kind in _LOST_WITH_REPOSITORY and undeclared(one, fleet)}
    return [task_id for task_id, task in tasks.items() if task.placement in lost] if lost else ()


def obstacles(
    task_ids: Iterable[str], tasks: Mapping[str, OpenTask], view: FleetView, fleet: Fleet
) -> dict[str, str]:
    """Why no proxy could take these, if none could: those that nobody has."""
    found: dict[Placement, Candidates | str] = {}
    reasons: dict[str, str] = {}
    for task_id in task_ids:
        task, seen = tasks.get(task_id), view.tasks.get(task_id)
        if task is None or (seen is not None and seen.state is not TaskState.READY):
            continue
        if task.placement not in found:
            found[task.placement] = candidates(task.placement, fleet)
        obstacle = found[task.placement]
        if isinstance(obstacle, str):
            reasons[task_id] = obstacle
    return reasons
