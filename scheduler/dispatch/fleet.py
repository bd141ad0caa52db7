"""What the policy decides about: pending tasks, proxies, repositories, what is in flight. All immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Literal

from proxy_worker.contract.names import (
    AUTOMATIC,
    TaskKind,
    TransportMode,
    disk_lane,
    proxy_lane,
    repository_lane,
)
from proxy_worker.contract.offers import UseOffer, VsphereOffer
from proxy_worker.contract.selection import OFFERED_BY_NBD, DiskTraits, Offer, in_datastore
from proxy_worker.contract.versions import CONTRACT_VERSION
from scheduler.dispatch.limits import datastore_cap, repository_cap
from scheduler.planning.traffic import Address, TrafficRule, why_encrypted


class Urgency(IntEnum):
    """Which tasks are released first; lower is sooner."""

    UPKEEP = 0
    """Takes no slot, and other work waits for it: inventory, commit."""
    RESTORE = 1
    HIGH = 2
    REGULAR = 3
    COPY = 4


@dataclass(frozen=True, slots=True)
class Placement:
    """All that decides where a task can go: tasks of equal placement are interchangeable to the policy."""

    kind: TaskKind
    repository: str | None = None
    needs_read_key: bool = False
    datastore: str | None = None
    preference: str = AUTOMATIC
    """A `TransportMode`, or `automatic`."""
    failover_to_network: bool = True
    pinned_proxy: str | None = None
    vsphere: DiskTraits | None = None
    """What decides how a vCenter's disk may be read: its credential, the modes that its kind rules out."""
    source: str | None = None
    """Of a copy: the repository that is read, and whose read key is needed if any is."""
    since: int = 1
    """The version of the contract that it takes, where that isn't what brought its kind."""
    restores_to: str | None = None
    """The credential of the vCenter that is restored to: a VM that is made there, or a disk that is written."""
    target: Placement | None = None
    """Of a disk that is replicated: where its replica can be written. Both take a slot, or neither."""
    back: bool = False
    """Whether it is replicated from its replica: who may read and who may write change places."""

    @property
    def traits(self) -> DiskTraits:
        """What of the disk decides how it may be read."""
        if self.vsphere is not None:
            return self.vsphere
        return OFFERED_BY_NBD if self.datastore is None else in_datastore(self.datastore)

    @property
    def caps(self) -> tuple[str, ...]:
        """What the task counts against while it is in flight, where a limit is set."""
        if not self.kind.takes_slot:
            return ()
        repository = tuple(repository_cap(name) for name in (self.repository, self.source) if name)
        return repository + ((datastore_cap(self.datastore),) if self.datastore else ())


@dataclass(frozen=True, slots=True)
class PendingTask:
    """A task that isn't in flight, and may be released."""

    task_id: str
    placement: Placement
    job: str
    urgency: int
    since: float
    """When it became ready to be released, Unix seconds."""
    vm_started: bool = False
    """Whether another disk of its VM is in flight or done: such VMs are finished before others begin."""
    vm: str | None = None
    """What it has in common with the other disks of its VM."""
    work_bytes: int = 0
    """How much there is to read, as far as that is known; what takes longest begins first."""


@dataclass(frozen=True, slots=True)
class FleetProxy:
    """A proxy that has registered, with what the administrator allows it."""

    name: str
    site: str
    slots: int
    used: int
    """Slots that are taken or reserved."""
    datastores: Mapping[str, tuple[TransportMode, ...]]
    modes: tuple[TransportMode, ...]
    """For disks of no datastore."""
    credentials: Mapping[str, Literal["read", "write"]]
    live: bool = True
    enabled: bool = True
    restricted: bool = False
    """Whether it may use only one transport mode, so that the specification has to name it."""
    vsphere: VsphereOffer | None = None
    """What it can do with the disks of vCenters."""
    left_out: Mapping[TransportMode, str] = field(default_factory=dict)
    """Modes that it may not use, each with who says so."""
    only_datastores: tuple[str, ...] | None = None
    """All that it may read from; None: whatever it reaches."""
    tends_gateways: bool = False
    """Whether it may remove what is behind gateways."""
    use: UseOffer = field(default_factory=UseOffer)
    """Whether it starts VMs, or serves their disks to hosts."""
    contract_version: int = CONTRACT_VERSION
    """What it can be told."""
    address: Address | None = None
    """Where it stands, as far as traffic rules know."""
    receives: bool = False
    """Whether other proxies can send it disks of replicas."""

    @property
    def offer(self) -> Offer:
        """What the choice of a transport mode is made from."""
        return Offer(self.datastores, self.modes, self.vsphere, self.left_out, self.only_datastores)


@dataclass(frozen=True, slots=True)
class FleetRepository:
    """A repository, and which proxies reach it."""

    name: str
    site: str
    credential: str | None
    """None: it isn't encrypted, and whoever reaches it can open it."""
    proxies: tuple[str, ...] | None = None
    """None: all of its site."""
    preferred: tuple[str, ...] = ()
    """Proxies that are to have its disks while they have slots to spare, by name or pattern."""
    behind_gateway: bool = False
    """Whether removing anything takes a certificate that proxies have only where the gateway is."""
    plain_at: Address | None = None
    """Where it stands, if what is exchanged with it can be read on its way and that is known."""
    encryption: tuple[TrafficRule, ...] = ()
    """Traffic rules that say where encryption is needed."""

    def reached_by(self, proxy: FleetProxy) -> bool:
        """Whether `proxy` stands where this repository can be read and written."""
        return stands_at(self.site, self.proxies, proxy.site, proxy.name)

    def hidden_from(self, proxy: FleetProxy) -> str | None:
        """What forbids `proxy` to exchange plain data with it, which is all that it takes; None: nothing."""
        if self.plain_at is None or proxy.address is None:
            return None
        return why_encrypted(self.encryption, proxy.address, self.plain_at)

    def tended_by(self, proxy: FleetProxy) -> bool:
        """Whether `proxy` may remove and mend there, beside adding."""
        return proxy.tends_gateways or not self.behind_gateway

    def opened_by(self, proxy: FleetProxy, *, to_read: bool = False) -> bool:
        """Whether `proxy` can write to it, or restore from it with `to_read`."""
        if self.credential is None:
            return True
        held = proxy.credentials.get(self.credential)
        return held == "read" if to_read else held is not None


def stands_at(site: str, proxies: tuple[str, ...] | None, proxy_site: str, proxy: str) -> bool:
    """Whether a proxy is one of those that reach a repository: by name or pattern, or else by site."""
    return proxy_site == site if proxies is None else is_one_of(proxies, proxy)


def is_one_of(patterns: tuple[str, ...], proxy: str) -> bool:
    """Whether a proxy's name is one of these, or matches a pattern among them."""
    return any(fnmatchcase(proxy, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A task that was released and hasn't ended."""

    lane: str
    proxy: str | None
    """The proxy that runs it, or has a slot reserved for it."""
    takes_slot: bool
    job: str
    caps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything there is to decide with, at one moment."""

    proxies: tuple[FleetProxy, ...]
    repositories: Mapping[str, FleetRepository]
    in_flight: tuple[InFlight, ...] = ()
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """How long datastores take to answer, where that is known."""


@dataclass(frozen=True, slots=True)
class Release:
    """A task to dispatch now."""

    task_id: str
    lane: str
    proxy: str | None
    """Who alone may take it, and where a disk's slot is reserved; None for a shared lane."""
    mode: TransportMode | None
    name_mode: bool
    """Whether the specification has to name `mode`, since a proxy that may take it is restricted."""
    reason: str
    target: str | None = None
    """Of a disk that is replicated: who writes its replica; `proxy` itself where nothing has to cross a network."""
    target_lane: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why the rest waits."""

    releases: tuple[Release, ...]
    waiting: Mapping[str, str]
    """By task id: one line each that starts with `waiting: `."""


def subscribed_lanes(proxy: FleetProxy, repositories: Mapping[str, FleetRepository]) -> tuple[str, ...]:
    """The lanes that a proxy pulls from, sorted: its own, its disks', and those of its repositories' upkeep."""
    lanes = {proxy_lane(proxy.site, proxy.name)}
    lanes.update(disk_lane(proxy.site, mode, None) for mode in proxy.modes)
    for datastore, modes in proxy.datastores.items():
        lanes.update(disk_lane(proxy.site, mode, datastore) for mode in modes)
    lanes.update(
        repository_lane(repository.name)
        for repository in repositories.values()
        if repository.reached_by(proxy) and repository.opened_by(proxy)
    )
    return tuple(sorted(lanes))
