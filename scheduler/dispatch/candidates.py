"""Which proxies could ever take a task, mode by mode, or the reason why none can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.names import AUTOMATIC, MODE_PREFERENCE, TaskKind, TransportMode
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, Placement

_STORAGE_SNAPSHOTS: Final = frozenset(
    {TaskKind.STORAGE_SNAPSHOT_CREATE, TaskKind.STORAGE_SNAPSHOT_REMOVE, TaskKind.STORAGE_SNAPSHOT_LIST}
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Proxies that could take a task if they were free, best transport mode first."""

    by_mode: tuple[tuple[TransportMode | None, tuple[FleetProxy, ...]], ...]
    """Each proxy once, under the best mode it has for the task; None where no mode is involved."""
    described: str
    """What they have in common: `that reach datastore ds1`."""


def candidates(placement: Placement, fleet: Fleet) -> Candidates | str:
    """Whom a task of this placement can go to; or why nobody, as a line for people without `waiting: `."""
    left = _Sieve(fleet.proxies)
    if placement.pinned_proxy is not None:
        name = placement.pinned_proxy
        left.keep(lambda proxy: proxy.name == name, f"proxy {name} has not registered")
        left.keep(lambda proxy: proxy.live, f"proxy {name} is not running")
        left.keep(lambda proxy: proxy.enabled, f"proxy {name} is disabled")
    else:
        left.keep(lambda proxy: proxy.live, "no proxy is running")
        left.keep(lambda proxy: proxy.enabled, "every running proxy is disabled")
    modes = _sieve_by_source(left, placement)
    if placement.repository is not None:
        _sieve_by_repository(left, placement, fleet.repositories.get(placement.repository))
    if left.obstacle is not None:
        return left.obstacle
    if not modes:
        return Candidates(((None, tuple(left.proxies)),), left.described)
    best = {proxy.name: next(mode for mode in modes if mode in _offers(proxy, placement)) for proxy in left.proxies}
    grouped = ((mode, tuple(proxy for proxy in left.proxies if best[proxy.name] is mode)) for mode in modes)
    return Candidates(tuple((mode, group) for mode, group in grouped if group), left.described)


class _Sieve:
    """Proxies that are left after each condition, and the first condition that left none."""

    def __init__(self, proxies: tuple[FleetProxy, ...]) -> None:
        self.proxies = list(proxies)
        self.obstacle: str | None = None
        self.described = "that are running"
        """What the proxies left have in common."""

    @property
    def such(self) -> str:
        """The same of one of them: `that reaches datastore ds1`."""
        return self.described.replace("reach", "reaches").replace("are", "is")

    def keep(self, condition: Callable[[FleetProxy], bool], obstacle: str) -> None:
        if self.obstacle is None:
            self.proxies = [proxy for proxy in self.proxies if condition(proxy)]
            self.obstacle = None if self.proxies else obstacle


def _sieve_by_repository(left: _Sieve, placement: Placement, repository: FleetRepository | None) -> None:
    if repository is None:
        left.keep(lambda _: False, f"repository {placement.repository} is not declared any more")
        return
    where = f"all of site {repository.site}" if repository.proxies is None else ", ".join(repository.proxies)
    key = f"the {'read key' if placement.needs_read_key else 'key'} of repository {repository.name}"
    pinned = placement.pinned_proxy
    left.keep(
        repository.reached_by,
        f"proxy {pinned} does not reach repository {repository.name} ({where} may)"
        if pinned
        else f"no proxy {left.such} reaches repository {repository.name} ({where} may)",
    )
    left.keep(
        lambda proxy: repository.opened_by(proxy, to_read=placement.needs_read_key),
        f"proxy {pinned} does not hold {key} ({repository.credential})"
        if pinned
        else f"no proxy {left.such} holds {key} ({repository.credential})",
    )
    if placement.datastore is None:
        left.described = f"that reach repository {repository.name}"


def _sieve_by_source(left: _Sieve, placement: Placement) -> tuple[TransportMode, ...]:
    """Keep those that reach the disk or datastore; return the modes that may be used, best first."""
    if placement.kind in _STORAGE_SNAPSHOTS:
        left.keep(
            lambda proxy: TransportMode.STORAGE_SNAPSHOT in _offers(proxy, placement),
            f"no proxy {left.such} makes storage snapshots of datastore {placement.datastore}",
        )
        left.described = f"that make storage snapshots of datastore {placement.datastore}"
        return ()
    if placement.kind not in {TaskKind.DISK_BACKUP, TaskKind.INVENTORY_SCAN}:
        return ()
    datastore = placement.datastore
    if datastore is not None:
        left.keep(
            lambda proxy: datastore in proxy.datastores,
            f"no proxy {left.such} reaches datastore {datastore}",
        )
        left.described = f"that reach datastore {datastore}"
    if placement.kind is TaskKind.INVENTORY_SCAN:
        # A folder's VMX files are read in place: who only has the disks over the network may not see them.
        direct = [proxy for proxy in left.proxies if TransportMode.DIRECT_STORAGE in _offers(proxy, placement)]
        left.proxies = direct or left.proxies
        return ()
    allowed = _allowed(placement)
    left.keep(
        lambda proxy: any(mode in _offers(proxy, placement) for mode in allowed),
        f"no proxy {left.such} offers {' or '.join(allowed)} for it",
    )
    return allowed


def _allowed(placement: Placement) -> tuple[TransportMode, ...]:
    if placement.preference == AUTOMATIC:
        return MODE_PREFERENCE
    mode = TransportMode(placement.preference)
    if placement.failover_to_network and mode is not TransportMode.NETWORK:
        return mode, TransportMode.NETWORK
    return (mode,)


def _offers(proxy: FleetProxy, placement: Placement) -> tuple[TransportMode, ...]:
    return proxy.modes if placement.datastore is None else proxy.datastores.get(placement.datastore, ())
