"""Which limits of traffic are in force: the ledger is told whenever that changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        replicating = frozenset(
            name for name, proxy in view.proxies.items() if proxy.registration.replication is not None
        )
        return Situation(tuple(in_force), tuple(self.hosts.items()), tuple(addresses), replicating)


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides which rules hold for whom; equal ones come to the same."""

    in_force: tuple[tuple[TrafficKind, tuple[TrafficRule, ...]], ...]
    hosts: tuple[tuple[str, Address], ...]
    addresses: tuple[tuple[str, str], ...]
    """Of proxies, by name."""
    replicating: frozenset[str]
    """Proxies that can send replicas to each other."""

    def traffic(self) -> Traffic:
        """What holds between which proxies and repositories, and which proxies and others."""
        limits: dict[str, int] = {}
        flows: dict[Flow, tuple[str, ...]] = {}
        proxies = tuple((proxy, ip_address(text)) for proxy, text in self.addresses)
        peers = tuple((proxy, address) for proxy, address in proxies if proxy in self.replicating)
        for kind, rules in self.in_force:
            starts, ends = (peers, peers) if kind is TrafficKind.REPLICATION else (proxies, self.hosts)
            for proxy, address in starts if rules else ():
                for end, host in ends:
                    if found := rules_between(rules, address, host):
                        flows[Flow(kind, end, proxy)] = tuple(rule.name for rule in found)
                        limits.update((rule.name, rule.bytes_per_s or 0) for rule in found)
        return Traffic(limits, flows)


class TrafficOrders:
    """Tells a ledger what is in force. Not thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._given: Situation | None = None

    def forget(self) -> None:
        """Assume nothing of what the ledger holds."""
        self._given = None

    def give(self, view: FleetView, declared: DeclaredTraffic, moment: float) -> None:
        """Tell it what holds now, where that isn't what it was told last."""
        situation = declared.situation(view, moment)
        if situation != self._given:
            traffic = situation.traffic()
            self._ledger.set_traffic(traffic)
            self._given = situation
            limits = ", ".join(f"{name} ({rate:,} B/s)" for name, rate in sorted(traffic.limits.items()))
            logger.info("traffic rules in force for %d flows: %s", len(traffic.flows), limits or "none")
