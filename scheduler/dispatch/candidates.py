"""Which proxies could ever take a task, mode by mode, or the reason why none can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.names import AUTOMATIC, MODE_PREFERENCE, TaskKind, TransportMode
from proxy_worker.contract.selection import ModeChoice, choose
from proxy_worker.contract.versions import SINCE
from scheduler.dispatch.fleet import Fleet, FleetProxy, Placement, is_one_of
from scheduler.dispatch.limits import NO_TERMS, JobTerms

_STORAGE_SNAPSHOTS: Final = frozenset(
    {TaskKind.STORAGE_SNAPSHOT_CREATE, TaskKind.STORAGE_SNAPSHOT_REMOVE, TaskKind.STORAGE_SNAPSHOT_LIST}
)
_UPKEEP: Final = frozenset(
    {TaskKind.POINT_DELETE, TaskKind.REPOSITORY_CHECK, TaskKind.REPOSITORY_COLLECT, TaskKind.REPOSITORY_PROVE}
)
"""What removes objects, or records what is wrong with them."""
READS_DISKS: Final = frozenset({TaskKind.DISK_BACKUP, TaskKind.DISK_REPLICATE})
MADE_BY_JOBS: Final = frozenset({*READS_DISKS, TaskKind.DISK_COPY})
"""Disks of runs, for which jobs have terms: windows, and proxies."""
_AT_REPLICAS: Final = frozenset(
    {
        TaskKind.DISK_RECEIVE,
        TaskKind.REPLICA_OPEN,
        TaskKind.REPLICA_POINT,
        TaskKind.REPLICA_REMOVE_POINT,
        TaskKind.REPLICA_REVERT,
        TaskKind.REPLICA_MARK,
    }
)
"""What is done to a replica, in its folder."""
_MOST_NAMES: Final = 3
"""Proxies that a reason names."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Proxies that are equally good for a task."""

    mode: TransportMode | None
    """The best transport mode that each has for it; None where no mode is involved."""
    proxies: tuple[FleetProxy, ...]
    names: frozenset[str]
    preferences: int = 0
    """How many of job and repository prefer them."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Proxies that could take a task if they were free."""

    tiers: tuple[Tier, ...]
    """Preferred proxies first, then by transport mode, best first. Each proxy is in one, and none is empty."""
    described: str
    """What they have in common: `that reach datastore ds1`."""


def candidates(placement: Placement, fleet: Fleet, terms: JobTerms = NO_TERMS) -> Candidates | str:
    """Whom a task of this placement can go to; or why nobody, as a line for people without `waiting: `."""
    missing = undeclared(placement, fleet)
    if missing is not None:
        return f"repository {missing} is not declared any more"
    left = _Sieve(fleet.proxies)
    if placement.pinned_proxy is not None:
        name = placement.pinned_proxy
        left.keep(lambda proxy: proxy.name == name, f"proxy {name} has not registered")
        left.keep(lambda proxy: proxy.live, f"proxy {name} is not running")
        left.keep(lambda proxy: proxy.enabled, f"proxy {name} is disabled")
    else:
        left.keep(lambda proxy: proxy.live, "no proxy is running")
        left.keep(lambda proxy: proxy.enabled, "every running proxy is disabled")
    since = max(placement.since, SINCE.get(placement.kind, 1))
    left.keep(
        lambda proxy: proxy.contract_version >= since,
        f"no proxy {left.such} knows tasks of kind {placement.kind}: upgrade one",
    )
    best = _sieve_by_source(left, placement)
    repository = fleet.repositories.get(placement.repository or "")
    if placement.repository is not None:
        reads = placement.needs_read_key and placement.source is None
        _sieve_by_repository(left, placement, placement.repository, fleet, to_read=reads)
    if placement.source is not None:
        _sieve_by_repository(left, placement, placement.source, fleet, to_read=placement.needs_read_key)
        left.described = f"that reach repositories {placement.source} and {placement.repository}"
    wanted = _wanted(placement, terms)
    if wanted is not None:
        left.keep(
            lambda proxy: is_one_of(wanted, proxy.name),
            f"no proxy {left.such} is one of those that the job may use ({', '.join(wanted)})",
        )
    if left.obstacle is not None:
        return left.obstacle
    preferences = (terms.preferred, repository.preferred if repository is not None else ())
    return Candidates(tuple(_tiers(left.proxies, best, preferences, placement)), left.described)


def undeclared(placement: Placement, fleet: Fleet) -> str | None:
    """The repository that tasks of this placement need and that isn't declared any more, if there is one."""
    needed = (placement.repository, placement.source)
    return next((name for name in needed if name is not None and name not in fleet.repositories), None)


def _wanted(placement: Placement, terms: JobTerms) -> tuple[str, ...] | None:
    """The only proxies that a job may use for this, if it says so."""
    if placement.kind is TaskKind.DISK_RECEIVE:
        return terms.proxies if placement.back else terms.targets
    if placement.kind in MADE_BY_JOBS:
        return terms.targets if placement.back else terms.proxies
    return None


def _tiers(
    proxies: Sequence[FleetProxy],
    best: Mapping[str, TransportMode],
    preferences: Sequence[tuple[str, ...]],
    placement: Placement,
) -> Iterator[Tier]:
    grouped: dict[tuple[int, TransportMode | None], list[FleetProxy]] = {}
    for proxy in proxies:
        preferred = sum(is_one_of(names, proxy.name) for names in preferences) if placement.kind.takes_slot else 0
        grouped.setdefault((preferred, best.get(proxy.name)), []).append(proxy)
    for count in sorted({count for count, _ in grouped}, reverse=True):
        for mode in (None, *MODE_PREFERENCE):
            if group := grouped.get((count, mode)):
                yield Tier(mode, tuple(group), frozenset(proxy.name for proxy in group), count)


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


def storage_snapshots(fleet: Fleet) -> frozenset[str]:
    """The datastores of which some proxy that runs makes storage snapshots."""
    mode = TransportMode.STORAGE_SNAPSHOT
    return frozenset(
        name
        for proxy in fleet.proxies
        if proxy.live and proxy.enabled
        for name, modes in proxy.datastores.items()
        if mode in modes
    )


def _sieve_by_repository(left: _Sieve, placement: Placement, name: str, fleet: Fleet, *, to_read: bool) -> None:
    repository = fleet.repositories[name]
    where = f"all of site {repository.site}" if repository.proxies is None else ", ".join(repository.proxies)
    key = f"the {'read key' if to_read else 'key'} of repository {repository.name}"
    pinned = placement.pinned_proxy
    left.keep(
        repository.reached_by,
        f"proxy {pinned} does not reach repository {repository.name} ({where} may)"
        if pinned
        else f"no proxy {left.such} reaches repository {repository.name} ({where} may)",
    )
    left.keep(
        lambda proxy: repository.opened_by(proxy, to_read=to_read),
        f"proxy {pinned} does not hold {key} ({repository.credential})"
        if pinned
        else f"no proxy {left.such} holds {key} ({repository.credential})",
    )
    forbidden = next((why for proxy in left.proxies if (why := repository.hidden_from(proxy))), "")
    left.keep(
        lambda proxy: repository.hidden_from(proxy) is None,
        f"no proxy {left.such} may send plain data to repository {repository.name}, which isn't encrypted: "
        f"{forbidden}",
    )
    if placement.kind in _UPKEEP:
        left.keep(
            repository.tended_by,
            f"no proxy {left.such} reaches repository {repository.name} with a certificate of role gateway, which "
            "its gateway wants to see for that",
        )
    if placement.datastore is None:
        left.described = f"that reach repository {repository.name}"


def _sieve_by_source(left: _Sieve, placement: Placement) -> Mapping[str, TransportMode]:
    """Keep those that reach the disk or datastore; return the best mode that each has, where modes are involved."""
    if placement.kind in _STORAGE_SNAPSHOTS:
        left.keep(
            lambda proxy: TransportMode.STORAGE_SNAPSHOT in _offers(proxy, placement),
            f"no proxy {left.such} makes storage snapshots of datastore {placement.datastore}",
        )
        left.described = f"that make storage snapshots of datastore {placement.datastore}"
        return {}
    if placement.kind is TaskKind.POINT_BOOT:
        left.keep(lambda proxy: proxy.use.boots, f"no proxy {left.such} has QEMU, to start VMs")
        left.described = "that are able to start VMs"
    if placement.kind is TaskKind.POINT_SERVE:
        why = f"no proxy {left.such} has [instant_restore] in its proxy.toml, to serve restore points to hosts"
        left.keep(lambda proxy: proxy.use.served_at is not None, why)
        left.described = "that are set up to serve restore points"
    if placement.restores_to is not None:
        _sieve_by_vcenter(left, placement, placement.restores_to)
    datastore = placement.datastore
    if placement.kind in _AT_REPLICAS and placement.restores_to is None:
        left.keep(
            lambda proxy: TransportMode.DIRECT_STORAGE in _offers(proxy, placement),
            f"no proxy {left.such} has datastore {datastore} as a folder, with direct_storage",
        )
        left.described = f"that reach datastore {datastore} in place"
        return {}
    if placement.kind not in READS_DISKS and placement.kind is not TaskKind.INVENTORY_SCAN:
        return {}
    if datastore is not None and placement.vsphere is None:
        left.keep(
            lambda proxy: datastore in proxy.datastores,
            f"no proxy {left.such} reaches datastore {datastore}",
        )
        left.described = f"that reach datastore {datastore}"
    if placement.kind is TaskKind.INVENTORY_SCAN:
        # A folder's VMX files are read in place: who only has the disks over the network may not see them.
        direct = [proxy for proxy in left.proxies if TransportMode.DIRECT_STORAGE in _offers(proxy, placement)]
        left.proxies = direct or left.proxies
        return {}
    choices = {
        proxy.name: choose(
            placement.traits,
            proxy.offer,
            placement.preference,
            failover_to_network=placement.failover_to_network,
        )
        for proxy in left.proxies
    }
    if placement.vsphere is None:
        obstacle = f"no proxy {left.such} offers {' or '.join(_allowed(placement))} for it"
    else:
        obstacle = f"no proxy {left.such} can read it: {_refusals(choices)}"
    left.keep(lambda proxy: bool(choices[proxy.name].candidates), obstacle)
    if placement.vsphere is not None:
        left.described = "that can read it"
    return {proxy.name: choices[proxy.name].candidates[0] for proxy in left.proxies}


def _sieve_by_vcenter(left: _Sieve, placement: Placement, credential: str) -> None:
    """Keep those that may restore or replicate to a vCenter, and reach the disk there that is to be written."""
    writes = placement.kind in {TaskKind.DISK_RESTORE, TaskKind.DISK_RECEIVE}

    def by_network(proxy: FleetProxy) -> bool:
        offer = proxy.vsphere
        return (
            offer is not None
            and credential in offer.passwords
            and (not writes or TransportMode.NETWORK in offer.modes)
            and (not writes or TransportMode.NETWORK not in proxy.left_out)
        )

    def in_place(proxy: FleetProxy) -> bool:
        modes = proxy.datastores.get(placement.datastore or "", ())
        mounted = proxy.vsphere.mounted if proxy.vsphere is not None else ()
        return (
            placement.kind is TaskKind.DISK_RESTORE
            and placement.datastore in mounted
            and TransportMode.DIRECT_STORAGE in modes
            and TransportMode.DIRECT_STORAGE not in proxy.left_out
        )

    if placement.kind in _AT_REPLICAS:
        what = f"has {credential}.password" + (" and VDDK, to write replicas to the vCenter" if writes else "")
        left.keep(by_network, f"no proxy {left.such} {what}")
        left.described = "that can write replicas to the vCenter"
        return
    where = f"datastore {placement.datastore}" if placement.datastore else "a declared datastore"
    what = f"has {credential}.password and VDDK, or {where} mounted, to write its disks"
    left.keep(
        lambda proxy: by_network(proxy) or in_place(proxy),
        f"no proxy {left.such} {what}" if writes else f"no proxy {left.such} has {credential}.password",
    )
    left.described = "that can restore to the vCenter"


def _refusals(choices: Mapping[str, ModeChoice]) -> str:
    """Why no proxy can use any mode: what is true of all proxies once, the rest with the proxies' names."""
    proxies: dict[tuple[TransportMode, str], list[str]] = {}
    for name, choice in choices.items():
        for verdict in choice.verdicts:
            if verdict.refusal is not None:
                proxies.setdefault((verdict.mode, verdict.refusal), []).append(name)
    lines = []
    for (mode, refusal), names in sorted(proxies.items(), key=lambda item: MODE_PREFERENCE.index(item[0][0])):
        shown = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
        lines.append(f"{mode}: {refusal}" + (f" ({shown})" if len(names) < len(choices) else ""))
    return "; ".join(lines)


def _allowed(placement: Placement) -> tuple[TransportMode, ...]:
    if placement.preference == AUTOMATIC:
        return MODE_PREFERENCE
    mode = TransportMode(placement.preference)
    if placement.failover_to_network and mode is not TransportMode.NETWORK:
        return mode, TransportMode.NETWORK
    return (mode,)


def _offers(proxy: FleetProxy, placement: Placement) -> tuple[TransportMode, ...]:
    return proxy.modes if placement.datastore is None else proxy.datastores.get(placement.datastore, ())
