"""Disks that are replicated: two tasks of one session, of which the target's goes first and the source's follows.

The session's name follows from the first task's dispatch, so that a scheduler that was killed between the two
knows it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.replication import Receiver
from proxy_worker.contract.specification import TaskBody
from proxy_worker.ledger import FleetView, TaskState
from scheduler.dispatch.pending import OpenTask

UNKNOWN: Final = "unknown"
"""Stands in the journal for names that only a dispatch decides: a session, a source's proxy."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A source's task whose slot is reserved."""

    task: OpenTask
    proxy: str
    receiver: Receiver | None
    """Where the target listens; None: its proxy has gone, and the pair has to begin anew."""
    session: str = ""


def session_of(task_id: str, epoch: int, number: int) -> str:
    """What the session of a dispatch of a pair is called."""
    return f"{epoch}-{number}-{hashlib.sha256(task_id.encode()).hexdigest()[:32]}"


def receiving(task: OpenTask, session: str, source: str) -> TaskBody:
    """What the target is to do, now that it is known whose disk it gets."""
    return task.body.model_copy(update={"session": session, "source": source})


def sending(task: OpenTask, session: str, receiver: Receiver | None) -> TaskBody:
    """What the source is to do; without a receiver, its proxy writes the replica itself."""
    remote: dict[str, object] = {"receiver": receiver, "target": None} if receiver is not None else {}
    return task.body.model_copy(update={"session": session, **remote})


def followers(view: FleetView, tasks: Mapping[str, OpenTask]) -> Iterator[Follower]:
    """Those whose turn has come, or whose proxy isn't there any more."""
    for task_id, seen in view.tasks.items():
        task = tasks.get(task_id)
        if seen.state is not TaskState.RESERVED or task is None or task.partner is None or seen.proxy is None:
            continue
        proxy = view.proxies.get(seen.proxy)
        if proxy is None or not proxy.live or proxy.draining:
            yield Follower(task, seen.proxy, None)
            continue
        first = view.tasks.get(task.partner)
        if first is not None and first.state is TaskState.RUNNING and first.progress is not None:
            session = session_of(task.partner, view.epoch or 0, first.dispatch_number)
            if first.progress.ready is not None:
                yield Follower(task, seen.proxy, first.progress.ready, session)


def left_alone(view: FleetView, tasks: Mapping[str, OpenTask]) -> Iterator[str]:
    """Of these tasks of pairs, those that nobody holds while the other one has ended: nothing is left to do."""
    followed = {task.partner for task in tasks.values()}
    for task_id, task in tasks.items():
        seen = view.tasks.get(task_id)
        alone = task_id not in followed if task.partner is None else task.partner not in tasks
        if alone and (seen is None or seen.state is TaskState.READY):
            yield task_id
