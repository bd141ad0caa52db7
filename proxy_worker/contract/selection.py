"""Which transport modes a disk may be read by on a proxy, and why not the others.

One pure table, and everybody asks it: the dispatcher before it gives a task away, the proxy before it opens the
disk, and `scheduler proxy explain`. The rules are those of backup proxies for vSphere: the best mode first; no
hot-adding of IDE disks and of disks over 62 TB; no direct access to what lies on vSAN or vVol; a SAN doesn't show
templates, and an NFS export neither a chain of snapshots nor a Windows guest that was quiesced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxy_worker.contract.names import AUTOMATIC, MODE_PREFERENCE, TransportMode

if TYPE_CHECKING:  # commands that never choose a mode don't wait for pydantic
    from proxy_worker.contract.offers import ProxyRegistration, VsphereOffer
    from proxy_worker.contract.subjects import DiskAddress, TransportPreference, VsphereDisk

LARGEST_HOT_ADD_BYTES: Final = 62 << 40
"""vSphere's largest virtual disk; what is larger can't be attached to a proxy."""
SAN_TYPES: Final = frozenset({"vmfs"})
"""Types of datastores, in lower case, that lie on LUNs."""
LEFT_OUT: Final = "this proxy's transport_modes leave it out"
_OBJECT_TYPES: Final = frozenset({"vsan", "vsand", "vvol"})

_SNAPSHOT, _DIRECT = TransportMode.STORAGE_SNAPSHOT, TransportMode.DIRECT_STORAGE
_APPLIANCE, _NETWORK = TransportMode.VIRTUAL_APPLIANCE, TransportMode.NETWORK


class Home(Enum):
    """What has a disk."""

    DATASTORE = "a datastore that is a folder"
    NBD_SERVER = "an NBD server"
    VCENTER = "a vCenter"


@dataclass(frozen=True, slots=True)
class DiskTraits:
    """All of a disk that decides how it may be read: disks with the same traits are read alike."""

    home: Home
    datastore: str | None = None
    """The declared one that it lies in."""
    credential: str | None = None
    """Of its vCenter."""
    on_san: bool = False
    """Whether direct storage means reading LUNs, which takes the vCenter's password too."""
    kept: bool | None = False
    """Whether a storage snapshot has it, and nothing else any more; None: one would yet be made."""
    unfit: tuple[tuple[TransportMode, str], ...] = ()
    """Modes that its kind rules out on every proxy, each with the reason."""

    def with_snapshot_on_demand(self) -> DiskTraits:
        """The same before its VM is frozen, when a storage snapshot can yet be made."""
        return replace(self, kept=None)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a proxy may use for reading."""

    datastores: Mapping[str, tuple[TransportMode, ...]]
    """Each connected datastore with the modes of this connection."""
    modes: tuple[TransportMode, ...]
    """For disks that belong to no datastore, e.g. those behind an NBD URI."""
    vsphere: VsphereOffer | None = None
    """What it can do for any vCenter whose password it has."""
    left_out: Mapping[TransportMode, str] = field(default_factory=dict)
    """Modes that it may not use, each with who says so."""
    only_datastores: tuple[str, ...] | None = None
    """All that the fleet file lets it read from; None: all it reaches."""

    @classmethod
    def registered(cls, registration: ProxyRegistration) -> Offer:
        """What a proxy said of itself."""
        return cls(
            registration.datastores,
            registration.modes,
            registration.vsphere,
            dict.fromkeys(registration.left_out, LEFT_OUT),
        )

    def restricted(self, *, mode: str = AUTOMATIC, datastores: tuple[str, ...] | None = None) -> Offer:
        """The same within what the fleet file says of the proxy: one mode, unless automatic; some datastores."""
        denied = (
            {}
            if mode == AUTOMATIC
            else {
                other: f"the fleet file allows this proxy {mode} only" for other in TransportMode if other != mode
            }
        )
        return replace(self, left_out={**denied, **self.left_out}, only_datastores=datastores)


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """Whether a disk may be read by a mode."""

    mode: TransportMode
    refusal: str | None
    """Why not; None when it may."""


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """The modes to try, in order, and what was said of each mode, best first."""

    candidates: tuple[TransportMode, ...]
    verdicts: tuple[ModeVerdict, ...]

    def reason(self, taken: TransportMode, preference: TransportPreference) -> str:
        """Why `taken`, and why no better mode, in one line."""
        better = self.verdicts[: MODE_PREFERENCE.index(taken)]
        refused = "; ".join(f"no {verdict.mode}: {verdict.refusal}" for verdict in better if verdict.refusal)
        chosen = "automatic choice" if preference.mode == AUTOMATIC else f"{preference.mode} was asked for"
        return f"{taken}, {chosen}" + (f" ({refused})" if refused else "")

    @property
    def refusals(self) -> str:
        """Why each mode isn't taken, in one line."""
        return "; ".join(f"{verdict.mode}: {verdict.refusal}" for verdict in self.verdicts if verdict.refusal)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A vCenter's disk, as the rules for kinds of disks look at it."""

    disk: VsphereDisk
    size_bytes: int | None

    @property
    def on_san(self) -> bool:
        return self.disk.datastore_type.lower() in SAN_TYPES


@dataclass(frozen=True, slots=True)
class _Case:
    """One mode for one disk on one proxy."""

    mode: TransportMode
    disk: DiskTraits
    offer: Offer
    wanted: str
    failover_to_network: bool

    @property
    def connection(self) -> tuple[TransportMode, ...] | None:
        """The modes of the proxy's connection to the disk's datastore, if there is one."""
        return self.offer.datastores.get(self.disk.datastore or "")

    @property
    def by_datastore(self) -> bool:
        return self.connection is not None and self.mode in self.connection

    @property
    def by_vcenter(self) -> bool:
        """Whether the mode asks the vCenter, wherever the disk lies."""
        return self.disk.home is Home.VCENTER and self.mode in {_APPLIANCE, _NETWORK} and not self.by_datastore

    @property
    def by_connection(self) -> bool:
        """Whether the mode needs the proxy to be connected to the disk's datastore."""
        return self.disk.home is not Home.NBD_SERVER and not self.by_vcenter

    @property
    def has_password(self) -> bool:
        return self.offer.vsphere is not None and self.disk.credential in self.offer.vsphere.passwords

    @property
    def works(self) -> bool:
        """Whether the proxy found that it can do this for vCenters."""
        return self.offer.vsphere is not None and self.mode in self.offer.vsphere.modes

    @property
    def why_not(self) -> str:
        """What the proxy found against the mode."""
        found = self.offer.vsphere.refusals.get(self.mode) if self.offer.vsphere is not None else None
        return found or "this proxy doesn't offer it"

    @property
    def missing(self) -> str:
        """What the connection lacks, in proxy.toml's words."""
        found = self.offer.vsphere.refusals.get(self.mode) if self.offer.vsphere is not None else None
        vcenter = self.disk.home is Home.VCENTER
        return f"{_MISSING[self.mode, vcenter]} on this proxy" + (
            f" ({found})" if found and vcenter and self.mode in {_SNAPSHOT, _DIRECT} else ""
        )


_MISSING: Final = {
    (_SNAPSHOT, False): "storage_snapshot",
    (_SNAPSHOT, True): "storage_snapshot",
    (_DIRECT, False): "path",
    (_DIRECT, True): "path, nfs_uri or san",
    (_APPLIANCE, False): "virtual_appliance",
    (_APPLIANCE, True): "virtual_appliance",
    (_NETWORK, False): "network_uri or network_command",
    (_NETWORK, True): "network_uri or network_command",
}

_KINDS: Final[tuple[tuple[frozenset[TransportMode], Callable[[_Kind], bool], str], ...]] = (
    (
        frozenset({_SNAPSHOT, _DIRECT}),
        lambda kind: kind.disk.datastore_type.lower() in _OBJECT_TYPES,
        "its datastore is {kind.disk.datastore_type}, which has neither a LUN nor an export",
    ),
    (frozenset({_SNAPSHOT}), lambda kind: kind.disk.template, "a template has no snapshots"),
    (
        frozenset({_DIRECT}),
        lambda kind: kind.on_san and kind.disk.template,
        "a template can't be read from a SAN",
    ),
    (
        frozenset({_DIRECT}),
        lambda kind: not kind.on_san and kind.disk.earlier_snapshots,
        "the VM has earlier snapshots, which can't be read from the datastore's files",
    ),
    (
        frozenset({_DIRECT}),
        lambda kind: not kind.on_san and kind.disk.quiesced_windows,
        "the VM is a quiesced Windows, whose disks can't be read from the datastore's files",
    ),
    (frozenset({_APPLIANCE}), lambda kind: kind.disk.controller == "ide", "an IDE disk can't be hot-added"),
    (
        frozenset({_APPLIANCE}),
        lambda kind: kind.size_bytes is not None and kind.size_bytes > LARGEST_HOT_ADD_BYTES,
        "a disk over 62 TB can't be hot-added",
    ),
)
"""What the kind of a vCenter's disk rules out, whatever the proxy."""

_RULES: Final[tuple[tuple[Callable[[_Case], bool], str], ...]] = (
    (
        lambda case: (
            case.wanted not in {AUTOMATIC, case.mode} and not (case.mode == _NETWORK and case.failover_to_network)
        ),
        "{case.wanted} was asked for",
    ),
    (lambda case: case.mode in dict(case.disk.unfit), "{unfit}"),
    (lambda case: case.mode != _SNAPSHOT and case.disk.kept is True, "only a storage snapshot has the disk"),
    (lambda case: case.mode in case.offer.left_out, "{left_out}"),
    (
        lambda case: (
            case.offer.only_datastores is not None
            and case.disk.home is not Home.NBD_SERVER
            and case.disk.datastore not in case.offer.only_datastores
        ),
        "the fleet file gives this proxy other datastores only",
    ),
    (
        lambda case: case.disk.home is Home.NBD_SERVER and case.mode not in case.offer.modes,
        "this proxy doesn't offer it",
    ),
    (lambda case: case.by_vcenter and not case.works, "{case.why_not}"),
    (
        lambda case: (
            not case.has_password
            and (case.by_vcenter or (case.disk.on_san and case.mode == _DIRECT and case.by_datastore))
        ),
        "this proxy has no {case.disk.credential}.password in its secrets_dir",
    ),
    (
        lambda case: case.by_connection and case.disk.datastore is None,
        "its datastore isn't declared in the fleet file",
    ),
    (
        lambda case: case.by_connection and case.connection is None,
        "this proxy isn't connected to datastore {case.disk.datastore}",
    ),
    (
        lambda case: case.by_connection and not case.by_datastore,
        "datastore {case.disk.datastore} has no {case.missing}",
    ),
    (lambda case: case.mode == _SNAPSHOT and case.disk.kept is False, "no storage snapshot of it was made"),
)
"""In this order, when a proxy can't read a disk by a mode, and in which words."""


def traits_of(address: DiskAddress, size_bytes: int | None = None) -> DiskTraits:
    """What of a disk decides its modes; `size_bytes` as the inventory knows it."""
    disk = address.vsphere
    if disk is not None:
        kind = _Kind(disk, size_bytes)
        unfit: dict[TransportMode, str] = {}
        for modes, applies, words in _KINDS:
            if applies(kind):
                unfit |= {mode: words.format(kind=kind) for mode in modes if mode not in unfit}
        return DiskTraits(
            Home.VCENTER,
            address.datastore,
            disk.vcenter.credential,
            on_san=kind.on_san,
            kept=address.storage_snapshot is not None,
            unfit=tuple(sorted(unfit.items())),
        )
    if address.nbd_uri is not None:
        return OFFERED_BY_NBD
    return in_datastore(address.datastore)


def in_datastore(datastore: str | None) -> DiskTraits:
    """A disk in a datastore that is a folder."""
    words = "no vCenter has the disk"
    return DiskTraits(Home.DATASTORE, datastore, unfit=((_SNAPSHOT, words), (_APPLIANCE, words)))


def replica_in_vcenter(datastore: str, credential: str) -> DiskTraits:
    """A disk of a replica in a vCenter, which is read as it is."""
    words = "a replica is in no snapshot, and is read over the network"
    unfit = tuple((mode, words) for mode in MODE_PREFERENCE if mode != _NETWORK)
    return DiskTraits(Home.VCENTER, datastore, credential, unfit=unfit)


OFFERED_BY_NBD: Final = DiskTraits(
    Home.NBD_SERVER,
    unfit=tuple(
        (mode, "an NBD server offers the disk, no datastore has it") for mode in MODE_PREFERENCE if mode != _NETWORK
    ),
)
"""A disk that an NBD server offers."""


def choose(disk: DiskTraits, offer: Offer, wanted: str, *, failover_to_network: bool) -> ModeChoice:
    """The modes to try for a disk on a proxy, in order, and why not the others.

    `wanted` is a `TransportMode` or `automatic`; with failover, network mode may follow what was asked for.
    Without, there is one mode to try at most. Whether a mode works is found out by whoever opens the disk.
    """
    verdicts = []
    for mode in MODE_PREFERENCE:
        case = _Case(mode, disk, offer, str(wanted), failover_to_network)
        words = next((words for applies, words in _RULES if applies(case)), None)
        refusal = words and words.format(
            case=case, unfit=dict(disk.unfit).get(mode, ""), left_out=offer.left_out.get(mode, "")
        )
        verdicts.append(ModeVerdict(mode, refusal))
    candidates = tuple(verdict.mode for verdict in verdicts if verdict.refusal is None)
    return ModeChoice(candidates if failover_to_network else candidates[:1], tuple(verdicts))


def choose_modes(
    address: DiskAddress, offer: Offer, preference: TransportPreference, size_bytes: int | None = None
) -> ModeChoice:
    """As `choose`, for a disk by its address."""
    return choose(
        traits_of(address, size_bytes), offer, preference.mode, failover_to_network=preference.failover_to_network
    )
