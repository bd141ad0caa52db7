"""What a task is about, for the lines that are logged meanwhile."""

from __future__ import annotations

from typing import Final

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.specification import TaskBody

_OF_RUNS: Final = frozenset(
    {
        TaskKind.DISK_BACKUP,
        TaskKind.DISK_COPY,
        TaskKind.COPY_PLAN,
        TaskKind.INVENTORY_SCAN,
        TaskKind.REPOSITORY_COMMIT,
        TaskKind.REPOSITORY_ABANDON,
    }
)
"""Kinds whose task ids begin with that of their run."""


def ids_of_task(task_id: str, kind: TaskKind) -> dict[str, str]:
    """What a message says, before anything of it is verified."""
    run = {"run": task_id.partition(".")[0]} if kind in _OF_RUNS else {}
    return {"task": task_id, **run}


def ids_of_body(body: TaskBody) -> dict[str, str]:
    """What a specification says: job, VM, disk, restore point, as far as it has them."""
    disk = getattr(body, "disk", None)
    named = {
        "job": getattr(body, "job", None),
        "vm": getattr(getattr(body, "vm", None), "name", None),
        "disk": getattr(disk, "key", None) or getattr(body, "disk_key", None),
        "point": getattr(body, "run", None),
    }
    return {field: value for field, value in named.items() if isinstance(value, str)}
