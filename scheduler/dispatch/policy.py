"""The dispatch policy: one pure function from what waits and what is free to what goes where.

Order: urgency (upkeep, restore, high, regular), then the job with the least in flight, then disks of VMs that
have begun, then age. Mode: the best that some live proxy offers; while its proxies are full a task waits for
`patience_s`, then takes the next. Every task that isn't released has a reason.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy_worker.contract.names import TransportMode, disk_lane, proxy_lane, repository_lane
from scheduler.dispatch.candidates import Candidates, candidates
from scheduler.dispatch.fleet import (
    Decision,
    Fleet,
    FleetProxy,
    Limits,
    PendingTask,
    Placement,
    Release,
    subscribed_lanes,
)


def decide(pending: Sequence[PendingTask], fleet: Fleet, limits: Limits, now: float) -> Decision:
    """Choose what to release at `now` (Unix seconds), and say why the rest waits.

    Never releases more to a proxy than it has free slots, nor past a cap, counting what is in flight. A shared
    lane is used when all its subscribers may take the task and have a slot to spare; otherwise a slot is
    reserved on the proxy with most to spare.
    """
    room = _Room(fleet, limits)
    jobs = _queues(pending)
    backlog = Counter(task.placement for task in pending)
    order = [(urgency, room.job_load[job], tasks.first, job) for (urgency, job), tasks in jobs.items()]
    heapq.heapify(order)
    releases: list[Release] = []
    blocked: dict[Placement, str] = {}
    waiting: dict[str, str] = {}
    while order:
        urgency, _, _, job = heapq.heappop(order)
        queue = jobs[urgency, job]
        task = queue.next_unblocked(blocked, waiting)
        if task is None:
            continue
        placed = room.place(task, backlog[task.placement], now)
        if isinstance(placed, Release):
            releases.append(placed)
            backlog[task.placement] -= 1
        elif placed.for_all:
            blocked[task.placement] = waiting[task.task_id] = f"waiting: {placed.reason}"
        else:
            waiting[task.task_id] = f"waiting: {placed.reason}"
        heapq.heappush(order, (urgency, room.job_load[job], queue.first, job))
    return Decision(tuple(releases), waiting)


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str
    for_all: bool
    """Whether every other task of the same placement is refused too, whatever its age."""


class _Queue:
    """One job's tasks of one urgency, by placement, each in order."""

    def __init__(self, tasks: Iterable[PendingTask]) -> None:
        ordered = sorted(tasks, key=lambda task: (not task.vm_started, task.since, task.task_id))
        self.first = ordered[0].since
        self.by_placement: dict[Placement, deque[tuple[int, PendingTask]]] = defaultdict(deque)
        for rank, task in enumerate(ordered):
            self.by_placement[task.placement].append((rank, task))

    def next_unblocked(self, blocked: dict[Placement, str], waiting: dict[str, str]) -> PendingTask | None:
        """Take the first task whose placement isn't blocked; tasks that are get their reason and are dropped."""
        for placement in [one for one in self.by_placement if one in blocked]:
            reason = blocked[placement]
            waiting.update((task.task_id, reason) for _, task in self.by_placement.pop(placement))
        if not self.by_placement:
            return None
        placement = min(self.by_placement, key=lambda one: self.by_placement[one][0][0])
        _, task = self.by_placement[placement].popleft()
        if not self.by_placement[placement]:
            del self.by_placement[placement]
        return task


def _queues(pending: Sequence[PendingTask]) -> dict[tuple[int, str], _Queue]:
    grouped: dict[tuple[int, str], list[PendingTask]] = defaultdict(list)
    for task in pending:
        grouped[task.urgency, task.job].append(task)
    return {key: _Queue(tasks) for key, tasks in grouped.items()}


class _Room:
    """What is still free, as releases are made."""

    def __init__(self, fleet: Fleet, limits: Limits) -> None:
        self.fleet = fleet
        self.limits = limits
        self.candidates: dict[Placement, Candidates | str] = {}
        self.job_load: Counter[str] = Counter()
        self.caps: Counter[str] = Counter()
        self.upkeep: Counter[str] = Counter()
        self.spare = {proxy.name: proxy.slots - proxy.used for proxy in fleet.proxies}
        self.subscribers: dict[str, set[str]] = defaultdict(set)
        for proxy in fleet.proxies:
            if proxy.live and proxy.enabled:
                for lane in subscribed_lanes(proxy, fleet.repositories):
                    self.subscribers[lane].add(proxy.name)
        for task in fleet.in_flight:
            self.job_load[task.job] += 1
            self.caps.update(task.caps)
            if not task.takes_slot:
                self.upkeep[task.lane] += 1
            elif task.proxy is None:
                self._expect_anywhere(task.lane)

    def place(self, task: PendingTask, backlog: int, now: float) -> Release | _Refused:
        """Release `task` and count it, or refuse it; `backlog` tasks, this one included, could go the same way."""
        placement = task.placement
        who = self.candidates.get(placement)
        if who is None:
            who = self.candidates[placement] = candidates(placement, self.fleet)
        if isinstance(who, str):
            return _Refused(who, for_all=True)
        if not placement.kind.takes_slot:
            return self._place_upkeep(task, who)
        for cap in placement.caps:
            limit = self.limits.caps.get(cap)
            if limit is not None and self.caps[cap] >= limit:
                return _Refused(
                    f"{cap.replace(':', ' ')} has {self.caps[cap]} of {limit} tasks at once", for_all=True
                )
        return self._place_disk(task, who, backlog, now)

    def _place_disk(self, task: PendingTask, who: Candidates, backlog: int, now: float) -> Release | _Refused:
        reasons: list[str] = []
        for mode, group in who.by_mode:
            free = [proxy for proxy in group if self.spare[proxy.name] > 0]
            if free:
                how = (f" with {mode}" if mode is not None else "") + (
                    f" ({'; '.join(reasons)})" if reasons else ""
                )
                return self._release(task, mode, group, free=free, backlog=backlog, how=how)
            full = _full(group, mode, who.described, several=len(who.by_mode) > 1)
            patience_left = task.since + self.limits.patience_s - now
            if patience_left > 0 and mode is not who.by_mode[-1][0]:
                return _Refused(
                    f"{full}; a worse mode is taken after {self.limits.patience_s:.0f} s", for_all=False
                )
            reasons.append(full)
        return _Refused("; ".join(reasons), for_all=True)

    def _release(
        self,
        task: PendingTask,
        mode: TransportMode | None,
        group: tuple[FleetProxy, ...],
        *,
        free: list[FleetProxy],
        backlog: int,
        how: str,
    ) -> Release:
        self.job_load[task.job] += 1
        self.caps.update(task.placement.caps)
        lane = self._shared_lane(task.placement, mode, group, backlog)
        names = ", ".join(proxy.name for proxy in group)
        if lane is not None:
            self._expect_anywhere(lane)
            restricted = any(proxy.restricted for proxy in group)
            return Release(task.task_id, lane, None, mode, restricted, f"to whichever of {names} is first{how}")
        proxy = max(free, key=lambda one: (self.spare[one.name], one.name))
        self.spare[proxy.name] -= 1
        lane = proxy_lane(proxy.site, proxy.name)
        return Release(task.task_id, lane, proxy.name, mode, proxy.restricted, f"to {proxy.name}{how}")

    def _shared_lane(
        self, placement: Placement, mode: TransportMode | None, group: tuple[FleetProxy, ...], backlog: int
    ) -> str | None:
        """The lane that exactly these proxies share, if each of them could take all of the backlog."""
        if mode is None or placement.pinned_proxy is not None or len(group) == 1:
            return None
        if placement.vsphere is not None:
            return None  # a vCenter's disk takes more than a lane tells: a password, a proxy that is a VM there
        lane = disk_lane(group[0].site, mode, placement.datastore)
        everyone_may = self.subscribers[lane] == {proxy.name for proxy in group}
        return lane if everyone_may and all(self.spare[proxy.name] >= backlog for proxy in group) else None

    def _expect_anywhere(self, lane: str) -> None:
        """Any subscriber may come to hold one task more."""
        for name in self.subscribers[lane]:
            self.spare[name] -= 1

    def _place_upkeep(self, task: PendingTask, who: Candidates) -> Release | _Refused:
        placement = task.placement
        group = who.by_mode[0][1]
        if placement.repository is not None and placement.pinned_proxy is None:
            lane = repository_lane(placement.repository)
            everyone_may = self.subscribers[lane] == {proxy.name for proxy in group}
            if everyone_may and self.upkeep[lane] < self.limits.upkeep_per_proxy * len(group):
                return self._release_upkeep(task, lane, f"to whichever of {len(group)} proxies is first")
            if everyone_may:
                return _Refused(f"{self.upkeep[lane]} tasks of repository upkeep are ahead", for_all=True)
        proxy = min(group, key=lambda one: (self.upkeep[proxy_lane(one.site, one.name)], one.name))
        lane = proxy_lane(proxy.site, proxy.name)
        if self.upkeep[lane] >= self.limits.upkeep_per_proxy:
            return _Refused(f"all {len(group)} proxies {who.described} are busy with upkeep", for_all=True)
        return self._release_upkeep(task, lane, f"to {proxy.name}", proxy.name)

    def _release_upkeep(self, task: PendingTask, lane: str, why: str, proxy: str | None = None) -> Release:
        self.upkeep[lane] += 1
        self.job_load[task.job] += 1
        return Release(task.task_id, lane, proxy, None, name_mode=False, reason=why)


def _full(group: tuple[FleetProxy, ...], mode: TransportMode | None, described: str, *, several: bool) -> str:
    slots = sum(proxy.slots for proxy in group)
    how = f" with {mode}" if several and mode is not None else ""
    taken = f"({slots} of {slots} slots)"
    if len(group) == 1:
        return f"proxy {group[0].name}{how} is full {taken}"
    return f"all {len(group)} proxies {described}{how} are full {taken}"
