"""A clock that jumps from event to event, and asks the policy at each what is to be done."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.simulation.workload import REPOSITORY, Disk, Workload
from scheduler.dispatch.backlog import Backlog
from scheduler.dispatch.fleet import Fleet, FleetProxy, InFlight, Release
from scheduler.dispatch.limits import Limits
from scheduler.dispatch.policy import choose
from scheduler.dispatch.reach import Reach
from scheduler.dispatch.room import Room


@dataclass(frozen=True, slots=True)
class Mishaps:
    """What goes wrong."""

    failing_share: float = 0.0
    """Of all attempts; they end somewhere on the way."""
    retry_wait_s: float = 600.0
    slow_share: float = 0.0
    """Of proxies."""
    slowness: float = 3.0
    """How much longer a slow proxy takes."""
    outages: int = 0
    """Proxies that go away in the middle and come back; their disks go on elsewhere after the lease."""
    outage_s: float = 1800.0
    lease_s: float = 30.0


NO_MISHAPS = Mishaps()


@dataclass(slots=True)
class Outcome:
    """What came of it. Times are in seconds on the simulated clock."""

    started: dict[str, float] = field(default_factory=dict)
    """When a disk first began, by task."""
    ended: dict[str, float] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """Tasks as they were released, retries too."""
    busy_s: float = 0.0
    """Of all slots together."""
    failures: int = 0
    cpu_s: float = 0.0
    """What the policy took of the processor, and the simulation of it."""
    late_s: float = 0.0
    """When the last disk began."""

    @property
    def makespan_s(self) -> float:
        """When the last disk ended."""
        return max(self.ended.values(), default=0.0)


@dataclass(slots=True)
class _Running:
    disk: Disk
    flight: InFlight
    began: float
    left_s: float
    """Of its time at ordinary speed, when it began here."""


class Simulation:
    """Events in the order of their time; between them, nothing changes."""

    def __init__(
        self, workload: Workload, *, mishaps: Mishaps = NO_MISHAPS, limits: Limits | None = None, seed: int = 0
    ) -> None:
        self.now = 0.0
        self.outcome = Outcome()
        self.mishaps = mishaps
        self.limits = limits if limits is not None else Limits()
        self._draw = random.Random(seed)
        self._proxies = {proxy.name: proxy for proxy in workload.proxies}
        slow = self._draw.sample(sorted(self._proxies), int(mishaps.slow_share * len(self._proxies)))
        self._slowness = dict.fromkeys(slow, mishaps.slowness)
        self._disks = {disk.task.task_id: disk for disk in workload.disks}
        self._left = {disk.task.task_id: disk.duration_s for disk in workload.disks}
        self._running: dict[str, _Running] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.backlog = Backlog()
        self.room = self._new_room()
        for disk in workload.disks:
            self.at(disk.task.since, partial(self._wait, disk.task.task_id))
        for name in self._draw.sample(sorted(self._proxies), mishaps.outages):
            self.at(self._draw.uniform(0.1, 0.6) * workload.bound_s, partial(self._lose, name))

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        """Let something happen then."""
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, happen))

    def run(self, until: float = float("inf")) -> Outcome:
        """Go on until nothing is left to do, or the clock shows `until`."""
        began = time.process_time()
        while self._events and self._events[0][0] <= until:
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
            on_shared_lanes = True
            while on_shared_lanes:  # pulled at once, so that less is kept free for it
                on_shared_lanes = self._start(choose(self.backlog, self.room, self.now))
        self.outcome.cpu_s += time.process_time() - began
        return self.outcome

    def _start(self, releases: list[Release]) -> bool:
        """Begin what was released; whether any of it went to a shared lane."""
        for release in releases:
            disk = self._disks[release.task_id]
            flight = InFlight(
                release.lane, release.proxy, takes_slot=True, job=disk.task.job, caps=disk.task.placement.caps
            )
            if release.proxy is None:
                flight = self._pull(flight)
            self.outcome.order.append(release.task_id)
            self.outcome.started.setdefault(release.task_id, self.now)
            self.outcome.late_s = self.now
            left = self._left[release.task_id]
            running = self._running[release.task_id] = _Running(disk, flight, self.now, left)
            fails = self._draw.random() < self.mishaps.failing_share
            part = self._draw.random() if fails else 1.0
            takes = left * part * self._slowness.get(flight.proxy or "", 1.0)
            self.at(self.now + takes, partial(self._end, running, failed=fails))
        return any(release.proxy is None for release in releases)

    def _pull(self, announced: InFlight) -> InFlight:
        """Whoever is first takes what a shared lane carries: here, the one with the first name that has a slot."""
        taken = dict.fromkeys(self.room.reach.subscribers(announced.lane), 0)
        for running in self._running.values():
            if running.flight.proxy in taken:
                taken[running.flight.proxy] += 1
        name = min(name for name, used in taken.items() if used < self._proxies[name].slots)
        claimed = replace(announced, proxy=name)
        self.room.end(announced)
        self.room.begin(claimed)
        return claimed

    def _end(self, running: _Running, *, failed: bool) -> None:
        task_id = running.disk.task.task_id
        if self._running.get(task_id) is not running:
            return  # its proxy has gone in the meantime
        self._leave(running)
        self.room.end(running.flight)
        if not failed:
            self.outcome.ended[task_id] = self.now
            return
        self.outcome.failures += 1
        self._keep_checkpoint(running)
        self.at(self.now + self.mishaps.retry_wait_s, partial(self._wait, task_id))

    def _wait(self, task_id: str) -> None:
        self.backlog.add(replace(self._disks[task_id].task, since=self.now))

    def _leave(self, running: _Running) -> None:
        del self._running[running.disk.task.task_id]
        self.outcome.busy_s += self.now - running.began

    def _keep_checkpoint(self, running: _Running) -> None:
        """Half of what was done since it began is durable."""
        done = (self.now - running.began) / self._slowness.get(running.flight.proxy or "", 1.0)
        self._left[running.disk.task.task_id] = max(running.left_s - done / 2, 1.0)

    def _lose(self, name: str) -> None:
        lost = [running for running in self._running.values() if running.flight.proxy == name]
        for running in lost:
            self._leave(running)
            self._keep_checkpoint(running)
            self.at(self.now + self.mishaps.lease_s, partial(self._wait, running.disk.task.task_id))
        proxy = self._proxies[name]
        self._change(replace(proxy, live=False))
        self.at(self.now + self.mishaps.outage_s, partial(self._change, proxy))

    def _change(self, proxy: FleetProxy) -> None:
        self._proxies[proxy.name] = proxy
        self.room = self._new_room()

    def _new_room(self) -> Room:
        flights = tuple(running.flight for running in self._running.values())
        used = dict.fromkeys(self._proxies, 0)
        for flight in flights:
            used[flight.proxy or ""] += 1
        proxies = tuple(replace(proxy, used=used[name]) for name, proxy in self._proxies.items())
        fleet = Fleet(proxies, {REPOSITORY.name: REPOSITORY}, flights)
        return Room(fleet, self.limits, Reach(fleet))
