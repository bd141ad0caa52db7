"""The dispatch policy: from what waits and what is free to what goes where.

Order: urgency (upkeep, restore, high, regular, copy; a job that is overdue counts as high), then the job with the
least in flight, then the one that has waited longest; within a job disks of VMs that have begun, then what takes
longest.
Where: on a preferred proxy, by the best mode that some live proxy offers; while those are full a task waits for
`patience_s`, then takes the next. Every task that isn't released has a reason.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from scheduler.dispatch.backlog import Backlog, Group, Queue
from scheduler.dispatch.fleet import Decision, Fleet, PendingTask, Release, Urgency
from scheduler.dispatch.limits import Limits
from scheduler.dispatch.room import Refused, Room

_LEAST_FLOOR: Final = 2
"""Slots that each job gets before others get more, however many jobs there are."""


def decide(pending: Iterable[PendingTask], fleet: Fleet, limits: Limits, now: float) -> Decision:
    """Choose what to release at `now` (Unix seconds), and say why the rest waits.

    Never releases more to a proxy than it has free slots, nor past a cap, counting what is in flight. A shared
    lane is used when all its subscribers may take the task and have a slot to spare; otherwise a slot is
    reserved on the proxy with most to spare. Pure: the same question gets the same answer.
    """
    backlog, room = Backlog(pending), Room(fleet, limits)
    return Decision(tuple(choose(backlog, room, now)), explain(backlog, room, now))


def choose(backlog: Backlog, room: Room, now: float) -> list[Release]:
    """What `decide` would release, taken out of `backlog` and `room`; what goes on waiting adds little to the cost.

    Whoever keeps both up to date as tasks come and end gets the answers that `decide` would give to everything.
    """
    floor = max(_LEAST_FLOOR, room.slots // (2 * max(1, len(backlog.queues))))
    order = [(*_turn(queue, room, floor, now), queue.urgency, queue.job) for queue in backlog.queues]
    heapq.heapify(order)
    releases: list[Release] = []
    blocked: set[Group] = set()
    while order and (backlog.without_slot or not room.full):
        *_, urgency, job = heapq.heappop(order)
        queue = backlog.queue(urgency, job)
        group = queue.best(blocked) if queue is not None else None
        if queue is None or group is None:
            continue
        placement = group.placement
        placed = room.place(group, backlog.by_placement[placement], now)
        if isinstance(placed, Refused):
            blocked.add(group)
        else:
            vm = backlog[placed.task_id].vm
            backlog.discard(placed.task_id)
            if vm is not None:
                backlog.begin(vm)
            releases.append(placed)
            queue = backlog.queue(urgency, job)  # another one, if all that was left of it has just begun
        if queue is not None:
            heapq.heappush(order, (*_turn(queue, room, floor, now), urgency, job))
    return releases


def explain(backlog: Backlog, room: Room, now: float) -> dict[str, str]:
    """Why each task waits that `choose` has left at `now`, by id: one line each that starts with `waiting: `."""
    return {rank[-1]: reason for group, reason in _reasons(backlog, room, now) for rank in group.ranked}


def count_waiting(backlog: Backlog, room: Room, now: float) -> Counter[str]:
    """How many tasks wait for each reason that `explain` would give; it looks at groups, not at tasks."""
    counts: Counter[str] = Counter()
    for group, reason in _reasons(backlog, room, now):
        counts[reason] += len(group.ranked)
    return counts


def _reasons(backlog: Backlog, room: Room, now: float) -> Iterator[tuple[Group, str]]:
    for queue in backlog.queues:
        for group in queue.groups.values():
            placed = room.place(group, backlog.by_placement[group.placement], now)
            reason = placed.why() if isinstance(placed, Refused) else "its turn comes next"
            yield group, f"waiting: {reason}"


def _turn(queue: Queue, room: Room, floor: int, now: float) -> tuple[int, int, int, float]:
    """When it is a queue's turn: what comes first is smallest."""
    load = room.job_load[queue.job]
    overdue = not load and queue.since + room.limits.overdue_s <= now
    urgency = min(queue.urgency, Urgency.HIGH) if overdue else queue.urgency
    return urgency, -queue.longest if load >= floor else -sys.maxsize, load, queue.since
