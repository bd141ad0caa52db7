"""Which limits of traffic are in force: the ledger is told whenever that changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import TrafficKind
from proxy_worker.ledger import FleetView, Flow, Ledger, Traffic
from scheduler.planning.traffic import Address, TrafficRule, repository_host, rules_between
from scheduler.state.models import DeclaredTrafficRule, Repository

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeclaredTraffic:
    """Rules, and where the repositories stand of which that is known."""

    rules: tuple[TrafficRule, ...]
    hosts: Mapping[str, Address]

    @classmethod
    def load(cls, session: Session) -> Self:
        """Read it from the database."""
        rules = tuple(row.rule() for row in session.scalars(select(DeclaredTrafficRule)) if row.enabled)
        if not rules:
            return cls((), {})
        places = session.execute(select(Repository.name, Repository.location, Repository.host))
        hosts = {name: repository_host(location, host) for name, location, host in places}
        return cls(rules, {name: host for name, host in hosts.items() if host is not None})

    def rules_for(self, proxy: Address) -> Iterator[tuple[TrafficRule, tuple[str, ...]]]:
        """The rules that are ever to hold for a proxy at an address, with the repositories."""
        for rule in self.rules:
            if found := tuple(name for name, host in self.hosts.items() if rules_between([rule], proxy, host)):
                yield rule, found

    def situation(self, view: FleetView, moment: float) -> Situation:
        """What counts of all that then."""
        addresses = [
            (name, proxy.registration.address)
            for name, proxy in sorted(view.proxies.items())
            if self.rules and proxy.registration.address is not None
        ]
        in_force = [
            (kind, tuple(rule for rule in self.rules if not rule.why_not(kind, moment))) for kind in TrafficKind
        ]
        return Situation(tuple(in_force), tuple(self.hosts.items()), tuple(addresses))


@dataclass(frozen=True)
class Situation:
    """What decides which rules hold for whom; equal ones come to the same."""

    in_force: tuple[tuple[TrafficKind, tuple[TrafficRule, ...]], ...]
    hosts: tuple[tuple[str, Address], ...]
    addresses: tuple[tuple[str, str], ...]
    """Of proxies, by name."""

    def traffic(self, pairs: Iterable[tuple[str, str]] = ()) -> Traffic:
        """What holds between proxies and repositories, and sources' and targets' proxies of these `pairs`."""
        limits, flows = dict(self._with_repositories.limits), dict(self._with_repositories.flows)
        rules = dict(self.in_force)[TrafficKind.REPLICATION]
        for source, target in pairs if rules else ():
            if source in self._places and target in self._places:
                found = rules_between(rules, self._places[source], self._places[target])
                _note(Flow(TrafficKind.REPLICATION, target, source), found, limits, flows)
        return Traffic(limits, flows)

    @cached_property
    def _places(self) -> Mapping[str, Address]:
        return {proxy: ip_address(text) for proxy, text in self.addresses}

    @cached_property
    def _with_repositories(self) -> Traffic:
        limits: dict[str, int] = {}
        flows: dict[Flow, Sequence[str]] = {}
        for kind, rules in self.in_force:
            for proxy, address in self._places.items() if rules and kind is not TrafficKind.REPLICATION else ():
                for repository, host in self.hosts:
                    found = rules_between(rules, address, host)
                    _note(Flow(kind, repository, proxy), found, limits, flows)
        return Traffic(limits, flows)


def _note(
    flow: Flow, found: tuple[TrafficRule, ...], limits: dict[str, int], flows: dict[Flow, Sequence[str]]
) -> None:
    if found:
        flows[flow] = tuple(rule.name for rule in found)
        limits.update((rule.name, rule.bytes_per_s or 0) for rule in found)


class TrafficOrders:
    """Tells a ledger what is in force. Not thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._situation: Situation | None = None
        self._pairs: frozenset[tuple[str, str]] = frozenset()
        self._given: Traffic | None = None

    def forget(self) -> None:
        """Assume nothing of what the ledger holds."""
        self._given = None

    def give(
        self,
        view: FleetView,
        declared: DeclaredTraffic,
        moment: float,
        pairs: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """Tell it what holds now, where that isn't what it was told last.

        `pairs` are the sources' and targets' proxies of disks that are being replicated.
        """
        found = declared.situation(view, moment)
        situation = self._situation if self._situation == found else found
        if self._given is not None and situation is self._situation and pairs == self._pairs:
            return
        traffic = situation.traffic(pairs)
        before, self._given = self._given, None  # until the ledger has answered, it may hold either
        self._ledger.set_traffic(traffic, before)
        if situation is found:
            limits = ", ".join(f"{name} ({rate:,} B/s)" for name, rate in sorted(traffic.limits.items()))
            logger.info("traffic rules in force for %d flows: %s", len(traffic.flows), limits or "none")
        self._situation, self._pairs, self._given = situation, pairs, traffic
