"""What is still free: slots, caps, quiet datastores, open windows. Kept up to date as tasks are placed and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass

from proxy_worker.contract.names import disk_lane, proxy_lane, repository_lane
from scheduler.dispatch import wording
from scheduler.dispatch.backlog import Group
from scheduler.dispatch.candidates import MADE_BY_JOBS, Candidates, Tier
from scheduler.dispatch.fleet import Fleet, FleetProxy, InFlight, Placement, Release
from scheduler.dispatch.limits import Limits
from scheduler.dispatch.reach import Reach


@dataclass(frozen=True, slots=True)
class Refused:
    """None of a group's tasks can be released now."""

    why: Callable[[], str]
    """Puts the reason into words, which takes longer than to find it."""


class Room:
    """What a fleet can still take. Placing a task takes its part; `end` gives it back."""

    def __init__(self, fleet: Fleet, limits: Limits, reach: Reach | None = None) -> None:
        """`reach` must hold for `fleet`; None: it is found out anew."""
        self.limits = limits
        self.reach = reach if reach is not None else Reach(fleet)
        self.latency_ms = fleet.latency_ms
        self.job_load: Counter[str] = Counter()
        """Tasks in flight, by job."""
        self._caps: Counter[str] = Counter()
        self._upkeep: Counter[str] = Counter()
        self._spare: dict[str, int] = {}
        self._with_spare: dict[int, set[str]] = {}
        """Proxies by how many slots they have to spare; those without any are absent."""
        at_work = [proxy for proxy in fleet.proxies if proxy.live and proxy.enabled]
        self.slots = sum(proxy.slots for proxy in at_work)
        """What all proxies that may have tasks have together, free or not."""
        for proxy in at_work:
            self._spare[proxy.name] = 0
            self._give(proxy.name, proxy.slots - proxy.used)
        for task in fleet.in_flight:
            self._count(task, 1)
            if task.takes_slot and task.proxy is None:
                self._give_any(task.lane, -1)

    @property
    def full(self) -> bool:
        """Whether no proxy at all has a slot to spare."""
        return not self._with_spare

    def begin(self, task: InFlight) -> None:
        """Take what a task needs."""
        self._count(task, 1)
        self._change_slots(task, -1)

    def end(self, task: InFlight) -> None:
        """Give back what a task took."""
        self._count(task, -1)
        self._change_slots(task, 1)

    def place(self, group: Group, backlog: int, now: float) -> Release | Refused:
        """Release a task of `group` and take what it needs, or refuse them all.

        That is the task that goes first or, where only less than the best is free, the one that has waited
        longest, once its patience is over. `backlog` tasks, these included, could go the same way.
        """
        placement = group.placement
        who = self.reach.candidates(placement, self.limits.terms(group.job))
        if isinstance(who, str):
            return Refused(lambda: who)
        if not placement.kind.takes_slot:
            return self._place_upkeep(group, who)
        obstacle = self._obstacle(group, now)
        if obstacle is not None:
            return Refused(lambda: obstacle)
        place = self._place_disk if placement.target is None else self._place_pair
        return place(group, who, backlog, now)

    def _place_disk(self, group: Group, who: Candidates, backlog: int, now: float) -> Release | Refused:
        since, _ = group.oldest
        for index, tier in enumerate(who.tiers):
            free = self._freest(tier.names)
            if free is not None:
                return self._release(group, who, index, free, backlog)
            if since + self.limits.patience_s > now and tier is not who.tiers[-1]:
                return self._wait_for(who, index)
        return Refused(lambda: wording.full(who))

    def _place_pair(self, group: Group, who: Candidates, _: int, now: float) -> Release | Refused:
        """Find a slot at the source and one at the target, or one on a proxy that is both."""
        target = group.placement.target or group.placement
        writers = self.reach.candidates(target, self.limits.terms(group.job))
        full = writers if isinstance(writers, str) else self._full_cap(target)
        if isinstance(writers, str) or full is not None:
            return Refused(lambda: f"of its replica: {full}")
        able = {proxy.name for tier in writers.tiers for proxy in tier.proxies}
        since = group.oldest[0]
        for index, tier in enumerate(who.tiers):
            reader = self._freest(tier.names & able) or self._freest(tier.names)
            if reader is not None:
                source = next(proxy for proxy in tier.proxies if proxy.name == reader)
                return self._place_writer(group, who, index, source, writers)
            if since + self.limits.patience_s > now and tier is not who.tiers[-1]:
                return self._wait_for(who, index)
        return Refused(lambda: wording.full(who))

    def _place_writer(
        self, group: Group, who: Candidates, index: int, reader: FleetProxy, writers: Candidates
    ) -> Release | Refused:
        """The source has a slot: find one at the target."""
        able = {proxy.name: proxy for tier in writers.tiers for proxy in tier.proxies}
        if reader.name in able:
            return self._release_pair(group, who, index, reader, reader)
        listening = {name: proxy for name, proxy in able.items() if proxy.receives}
        if not listening:
            why = f"none of the proxies {writers.described} takes replicas from others: that needs [link]"
            return Refused(lambda: why)
        writer = self._freest(listening.keys())
        if writer is None:
            return Refused(lambda: f"of its replica: {wording.full(writers)}")
        return self._release_pair(group, who, index, reader, listening[writer])

    def _release_pair(
        self, group: Group, who: Candidates, index: int, reader: FleetProxy, writer: FleetProxy
    ) -> Release:
        placement, target = group.placement, group.placement.target
        lane, target_lane = (proxy_lane(one.site, one.name) for one in (reader, writer))
        self.begin(InFlight(lane, reader.name, takes_slot=True, job=group.job, caps=placement.caps))
        if writer.name != reader.name and target is not None:
            self.begin(InFlight(target_lane, writer.name, takes_slot=True, job=group.job, caps=target.caps))
        return Release(
            group.oldest[1] if index else group.first,
            lane,
            reader.name,
            who.tiers[index].mode,
            reader.restricted,
            f"from {reader.name} to {writer.name}{wording.how(who, index)}",
            target=writer.name,
            target_lane=target_lane,
        )

    def _wait_for(self, who: Candidates, index: int) -> Refused:
        return Refused(lambda: wording.patience(who, index, self.limits.patience_s))

    def _obstacle(self, group: Group, now: float) -> str | None:
        """What keeps all tasks of a group from any proxy."""
        placement = group.placement
        full = self._full_cap(placement)
        if full is not None or placement.kind not in MADE_BY_JOBS:
            return full
        closed = None if group.vm_started else self.limits.closed(group.job, now)
        if closed is not None:
            return wording.closed(*closed, now)
        latency_ms = self.latency_ms.get(placement.datastore or "", 0.0)
        stop_ms = self.limits.latency_limits(placement.datastore).stop_ms
        return wording.slow(placement.datastore, latency_ms, stop_ms) if latency_ms >= stop_ms else None

    def _full_cap(self, placement: Placement) -> str | None:
        """A cap of these tasks that has no room left."""
        for cap in placement.caps:
            limit = self.limits.caps.get(cap)
            if limit is not None and self._caps[cap] >= limit:
                return f"{cap.replace(':', ' ')} has {self._caps[cap]} of {limit} tasks at once"
        return None

    def _freest(self, names: Set[str]) -> str | None:
        """The proxy of these with most slots to spare; None when all are full."""
        for spare in sorted(self._with_spare, reverse=True):
            found = self._with_spare[spare] & names
            if found:
                return max(found)
        return None

    def _release(self, group: Group, who: Candidates, index: int, free: str, backlog: int) -> Release:
        tier, placement = who.tiers[index], group.placement
        task_id = group.oldest[1] if index else group.first
        how = wording.how(who, index)
        lane = self._shared_lane(placement, tier, backlog)
        if lane is None:
            proxy = next(proxy for proxy in tier.proxies if proxy.name == free)
            lane = proxy_lane(proxy.site, proxy.name)
            release = Release(task_id, lane, free, tier.mode, proxy.restricted, f"to {free}{how}")
        else:
            restricted = any(proxy.restricted for proxy in tier.proxies)
            to = f"to whichever of {wording.names(tier.proxies)} is first{how}"
            release = Release(task_id, lane, None, tier.mode, restricted, to)
        self.begin(InFlight(lane, release.proxy, takes_slot=True, job=group.job, caps=placement.caps))
        return release

    def _shared_lane(self, placement: Placement, tier: Tier, backlog: int) -> str | None:
        """The lane that exactly these proxies share, if each of them could take all of the backlog."""
        if tier.mode is None or placement.pinned_proxy is not None or len(tier.proxies) == 1:
            return None
        if placement.vsphere is not None:
            return None  # a vCenter's disk takes more than a lane tells: a password, a proxy that is a VM there
        if not all(self._spare[name] >= backlog for name in tier.names):
            return None
        lane = disk_lane(tier.proxies[0].site, tier.mode, placement.datastore)
        return lane if self.reach.subscribers(lane) == tier.names else None

    def _place_upkeep(self, group: Group, who: Candidates) -> Release | Refused:
        placement, proxies = group.placement, who.tiers[0].proxies
        if placement.repository is not None and placement.pinned_proxy is None:
            lane = repository_lane(placement.repository)
            if self.reach.subscribers(lane) == who.tiers[0].names:
                ahead = self._upkeep[lane]
                if ahead < self.limits.upkeep_per_proxy * len(proxies):
                    return self._release_upkeep(group, lane, f"to whichever of {len(proxies)} proxies is first")
                return Refused(lambda: f"{ahead} tasks of repository upkeep are ahead")
        proxy = min(proxies, key=lambda one: (self._upkeep[proxy_lane(one.site, one.name)], one.name))
        lane = proxy_lane(proxy.site, proxy.name)
        if self._upkeep[lane] >= self.limits.upkeep_per_proxy:
            return Refused(lambda: f"all {len(proxies)} proxies {who.described} are busy with upkeep")
        return self._release_upkeep(group, lane, f"to {proxy.name}", proxy.name)

    def _release_upkeep(self, group: Group, lane: str, why: str, proxy: str | None = None) -> Release:
        self.begin(InFlight(lane, proxy, takes_slot=False, job=group.job))
        return Release(group.first, lane, proxy, None, name_mode=False, reason=why)

    def _count(self, task: InFlight, by: int) -> None:
        self.job_load[task.job] += by
        for cap in task.caps:
            self._caps[cap] += by
        if not task.takes_slot:
            self._upkeep[task.lane] += by

    def _change_slots(self, task: InFlight, by: int) -> None:
        if task.takes_slot and task.proxy is not None:
            self._give(task.proxy, by)
        elif task.takes_slot:
            self._give_any(task.lane, by)

    def _give_any(self, lane: str, by: int) -> None:
        """Any subscriber may come to hold one task more, or may not any longer."""
        for name in self.reach.subscribers(lane):
            self._give(name, by)

    def _give(self, proxy: str, by: int) -> None:
        before = self._spare.get(proxy)
        if before is None:
            return  # it gets nothing more, whatever ends there
        self._spare[proxy] = before + by
        if before > 0:
            self._with_spare[before].discard(proxy)
            if not self._with_spare[before]:
                del self._with_spare[before]
        if before + by > 0:
            self._with_spare.setdefault(before + by, set()).add(proxy)
