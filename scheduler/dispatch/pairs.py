"""Disks that are replicated: two tasks of one session, of which the target's goes first and the source's follows.

The session's name follows from the first task's dispatch, so that a scheduler that was killed between the two
knows it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.specification import TaskBody
from proxy_worker.ledger import FleetView, TaskState
from scheduler.dispatch.flight import flies
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


def exchanging(view: FleetView, tasks: Mapping[str, OpenTask]) -> frozenset[tuple[str, str]]:
    """Source's and target's proxies of the pairs in flight, also of those whose source isn't announced yet."""
    found = set()
    for task_id, seen in view.tasks.items():
        task = tasks.get(task_id)
        first = view.tasks.get(task.partner) if task is not None and task.partner is not None else None
        if first is None or not flies(seen) or not flies(first):
            continue
        if seen.proxy is not None and first.proxy is not None:
            found.add((seen.proxy, first.proxy))
    return frozenset(found)


class Pairs:
    """Which tasks belong together; what waits with its partner isn't looked at again."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._partners: dict[str, str] = {}
        self._unsure: set[str] = set()
        """Tasks that may be alone: new ones, and those whose partners were dropped."""

    def add(self, task: OpenTask) -> None:
        """Know of a task of a pair."""
        task_id = task.new.task_id
        self._open.add(task_id)
        self._unsure.add(task_id)
        if task.partner is not None:
            self._partners.update({task_id: task.partner, task.partner: task_id})

    def drop(self, task_id: str) -> None:
        """Forget a task, of a pair or not."""
        self._open.discard(task_id)
        self._unsure.discard(task_id)
        partner = self._partners.get(task_id)
        if partner in self._open:
            self._unsure.add(partner)
        elif partner is not None:
            del self._partners[task_id]
            self._partners.pop(partner, None)

    def left_alone(self, view: FleetView) -> Iterator[str]:
        """Tasks that nobody holds while the other one has ended: nothing is left to do."""
        self._unsure = {task_id for task_id in self._unsure if self._partners.get(task_id) not in self._open}
        for task_id in self._unsure:
            seen = view.tasks.get(task_id)
            if seen is None or seen.state is TaskState.READY:
                yield task_id
