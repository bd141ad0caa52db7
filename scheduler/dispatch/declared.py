"""The fleet as the policy sees it: what proxies registered and hold, within what the administrator declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import AUTOMATIC, TransportMode
from proxy_worker.contract.selection import Offer
from proxy_worker.ledger import FleetView, ProxyView
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, InFlight
from scheduler.dispatch.limits import Limits, repository_cap
from scheduler.state.models import Proxy, Repository

_DEFAULT = Limits()


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

    @classmethod
    def load(cls, session: Session, *, limits: Limits = _DEFAULT) -> DeclaredFleet:
        """Read it from the database; its caps take the place of those in `limits`."""
        proxies = {
            row.name: ProxyDeclaration(
                row.site, row.max_concurrent_tasks, row.transport_mode, row.datastores, row.enabled
            )
            for row in session.scalars(select(Proxy))
        }
        repositories = session.scalars(select(Repository)).all()
        caps = {
            repository_cap(row.name): row.max_concurrent_tasks
            for row in repositories
            if row.max_concurrent_tasks is not None
        }
        reach = {row.name: FleetRepository(row.name, row.site, row.credential, row.proxies) for row in repositories}
        return cls(proxies, reach, replace(limits, caps=caps))

    def fleet(self, view: FleetView, in_flight: Iterable[InFlight]) -> Fleet:
        """The fleet at the moment of `view`."""
        proxies = tuple(self.proxy(proxy) for _, proxy in sorted(view.proxies.items()))
        return Fleet(proxies, self.repositories, tuple(in_flight))

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
        )
