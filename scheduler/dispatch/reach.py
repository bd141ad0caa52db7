"""Who can take what, remembered for as long as nothing but free slots changes in the fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from scheduler.dispatch.candidates import Candidates, candidates
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, Placement, subscribed_lanes
from scheduler.dispatch.limits import JobTerms


class Reach:
    """Candidates of every kind of task asked for so far, and who pulls from which lane."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known = _lasting(fleet)
        self._candidates: dict[tuple[Placement, JobTerms], Candidates | str] = {}
        pulling: defaultdict[str, set[str]] = defaultdict(set)
        for proxy in fleet.proxies:
            if proxy.live and proxy.enabled:
                for lane in subscribed_lanes(proxy, fleet.repositories):
                    pulling[lane].add(proxy.name)
        self._subscribers = {lane: frozenset(names) for lane, names in pulling.items()}

    def holds_for(self, fleet: Fleet) -> bool:
        """Whether all of this is true of `fleet` too."""
        return self._known == _lasting(fleet)

    def candidates(self, placement: Placement, terms: JobTerms) -> Candidates | str:
        """As `candidates` finds them; of these proxies, `used` may be out of date."""
        found = self._candidates.get((placement, terms))
        if found is None:
            found = self._candidates[placement, terms] = candidates(placement, self._fleet, terms)
        return found

    def subscribers(self, lane: str) -> frozenset[str]:
        """Who pulls from a lane."""
        return self._subscribers.get(lane, frozenset())


def _lasting(fleet: Fleet) -> tuple[tuple[FleetProxy, ...], Mapping[str, FleetRepository]]:
    return tuple(replace(proxy, used=0) for proxy in fleet.proxies), fleet.repositories
