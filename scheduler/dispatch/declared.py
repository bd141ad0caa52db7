"""The fleet as the policy sees it: what proxies registered and hold, within what the administrator declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.gateway_address import SCHEME
from proxy_worker.contract.names import AUTOMATIC, TransportMode
from proxy_worker.contract.selection import Offer
from proxy_worker.ledger import FleetView, ProxyView
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, InFlight
from scheduler.dispatch.limits import (
    JobTerms,
    LatencyLimits,
    Limits,
    datastore_cap,
    repository_cap,
)
from scheduler.planning.traffic import goes_plain, repository_host
from scheduler.state.dispatching import FLEET
from scheduler.state.models import Datastore, DeclaredTrafficRule, DispatchSettings, Job, Proxy, Repository

LATENCY_VALID_S: Final = 80.0
"""For how long a measurement counts when none comes after it: hosts make one each 20 s."""


@dataclass(frozen=True, slots=True)
class ProxyDeclaration:
    """What is declared of one proxy."""

    site: str | None
    max_concurrent_tasks: int | None
    transport_mode: str
    datastores: tuple[str, ...] | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class DeclaredFleet:
    """What is declared of proxies and repositories."""

    proxies: Mapping[str, ProxyDeclaration]
    repositories: Mapping[str, FleetRepository]
    limits: Limits
    latencies: tuple[tuple[str, float, float], ...] = ()
    """Datastores, in how many milliseconds they answered, and when that was measured."""

    @classmethod
    def load(cls, session: Session) -> DeclaredFleet:
        """Read it from the database."""
        proxies = {
            row.name: ProxyDeclaration(
                row.site, row.max_concurrent_tasks, row.transport_mode, row.datastores, row.enabled
            )
            for row in session.scalars(select(Proxy))
        }
        about_encryption = select(DeclaredTrafficRule).where(DeclaredTrafficRule.encrypt.is_not(None))
        rules = tuple(row.rule() for row in session.scalars(about_encryption.order_by(DeclaredTrafficRule.name)))
        reach = {
            row.name: FleetRepository(
                row.name,
                row.site,
                row.credential,
                row.proxies,
                row.preferred_proxies or (),
                behind_gateway=row.location.startswith(SCHEME),
                plain_at=repository_host(row.location, row.host)
                if goes_plain(row.location, encrypted=row.credential is not None)
                else None,
                encryption=rules,
            )
            for row in session.scalars(select(Repository))
        }
        measured = select(Datastore.name, Datastore.latency_ms, Datastore.latency_at)
        latencies = tuple(
            (name, took, at) for name, took, at in session.execute(measured) if took is not None and at is not None
        )
        return cls(proxies, reach, limits_of(session), latencies)

    def fleet(self, view: FleetView, in_flight: Iterable[InFlight]) -> Fleet:
        """The fleet at the moment of `view`."""
        proxies = tuple(self.proxy(proxy) for _, proxy in sorted(view.proxies.items()))
        fresh = {name: took for name, took, at in self.latencies if view.server_time - at < LATENCY_VALID_S}
        return Fleet(proxies, self.repositories, tuple(in_flight), fresh)

    def proxy(self, seen: ProxyView) -> FleetProxy:
        """A registered proxy, restricted to what is declared; an undeclared one is accepted as it registered."""
        registration = seen.registration
        declared = self.proxies.get(seen.name, ProxyDeclaration(None, None, AUTOMATIC, None, enabled=True))
        restricted = declared.transport_mode != AUTOMATIC
        allowed = {TransportMode(declared.transport_mode)} if restricted else set(TransportMode)
        datastores = {
            name: tuple(mode for mode in modes if mode in allowed)
            for name, modes in registration.datastores.items()
            if declared.datastores is None or name in declared.datastores
        }
        offer = Offer.registered(registration).restricted(
            mode=declared.transport_mode, datastores=declared.datastores
        )
        limit = declared.max_concurrent_tasks
        slots = registration.max_concurrent_tasks
        return FleetProxy(
            name=seen.name,
            site=registration.site,
            slots=slots if limit is None else min(slots, limit),
            used=seen.slots_used,
            datastores=datastores,
            modes=tuple(mode for mode in registration.modes if mode in allowed),
            credentials=registration.credentials,
            live=seen.live and not seen.draining,
            enabled=declared.enabled and declared.site in {None, registration.site} and not seen.refusal,
            restricted=restricted,
            vsphere=offer.vsphere,
            left_out=offer.left_out,
            only_datastores=offer.only_datastores,
            tends_gateways=registration.tends_gateways,
            use=registration.use,
            contract_version=registration.contract_version,
            address=ip_address(registration.address) if registration.address is not None else None,
            receives=registration.replication is not None,
        )

    def only_mode(self, proxy: FleetProxy) -> TransportMode | None:
        """The transport mode that specifications for a restricted proxy have to name; None for any other."""
        return TransportMode(self.proxies[proxy.name].transport_mode) if proxy.restricted else None


def limits_of(session: Session) -> Limits:
    """What is declared of limits. Columns, not rows: every turn of the service asks, and jobs are many."""
    caps = {
        repository_cap(name): limit
        for name, limit in session.execute(select(Repository.name, Repository.max_concurrent_tasks))
        if limit is not None
    }
    latency_of = {}
    of_datastores = select(
        Datastore.name,
        Datastore.max_concurrent_tasks,
        Datastore.latency_stop_ms,
        Datastore.latency_throttle_ms,
    )
    for name, limit, stop_ms, throttle_ms in session.execute(of_datastores):
        if limit is not None:
            caps[datastore_cap(name)] = limit
        if stop_ms is not None and throttle_ms is not None:
            latency_of[name] = LatencyLimits(stop_ms, throttle_ms)
    of_jobs = select(Job.name, Job.window, Job.proxies, Job.preferred_proxies, Job.replica)
    jobs = {
        name: JobTerms(window, proxies, preferred or (), replica.proxies if replica is not None else None)
        for name, window, proxies, preferred, replica in session.execute(of_jobs)
        if window is not None or proxies is not None or preferred or (replica is not None and replica.proxies)
    }
    settings = session.get(DispatchSettings, FLEET)
    if settings is None:
        return Limits(caps=caps, jobs=jobs, latency_of=latency_of)
    return Limits(
        caps=caps,
        patience_s=settings.patience_seconds,
        window=settings.window,
        jobs=jobs,
        latency=LatencyLimits(settings.latency_stop_ms, settings.latency_throttle_ms),
        latency_of=latency_of,
    )
