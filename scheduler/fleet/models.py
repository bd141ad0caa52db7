"""What `fleet.toml` may say.

Each class is a table of the file, each attribute a key; `docs/reference/configuration.md` is generated from
them. Names are unique within a kind; what refers to another declaration is checked in `references.py`.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy_worker.contract.gateway_address import SCHEME, GatewayAddress, GatewayAddressError
from proxy_worker.contract.names import CompressionLevel, Quiesce, TransportMode
from proxy_worker.contract.specification import DiskKey, Name
from proxy_worker.vsphere.trust import ThumbprintError, normalised, with_colons
from scheduler.deployment.server import ProxyServer
from scheduler.fleet.dispatching import Dispatch, Latency
from scheduler.planning.addressees import CaFile, EmailTarget, NotifyWhen, WebhookTarget
from scheduler.planning.criteria import DiskExclusionText, VmSelector
from scheduler.planning.retention import Retention
from scheduler.planning.traffic import TrafficRule, checked_address
from scheduler.planning.window import Window
from scheduler.state.declared import (
    PROVE_CRON,
    PROVE_DAYS,
    PROVE_HOURS,
    DatastoreKind,
    JobKind,
    NamePattern,
    Priority,
)

Slots = Annotated[int, Field(ge=1, le=256)]


class ModeChoice(StrEnum):
    """A transport mode, or the best there is."""

    AUTOMATIC = "automatic"
    STORAGE_SNAPSHOT = TransportMode.STORAGE_SNAPSHOT
    DIRECT_STORAGE = TransportMode.DIRECT_STORAGE
    VIRTUAL_APPLIANCE = TransportMode.VIRTUAL_APPLIANCE
    NETWORK = TransportMode.NETWORK


def _cron(text: str) -> str:
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(
            f"expected five cron fields (minute hour day month weekday), got {text!r}: {str(error).lower()}"
        ) from error
    return text


def _timezone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"expected a time zone such as 'Europe/Berlin' or 'UTC', got {text!r}") from error
    return text


def _absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path on the proxies, got {text!r}")
    return text


def _repository_location(text: str) -> str:
    if text.startswith(SCHEME):
        try:
            GatewayAddress.parsed(text)
        except GatewayAddressError as error:
            raise ValueError(f"expected {SCHEME}HOST:PORT/NAME, got {text!r}") from error
        return text
    return text if text.startswith("s3://") else _absolute_path(text)


def _thumbprint(text: str) -> str:
    try:
        return with_colons(normalised(text))
    except ThumbprintError as error:
        raise ValueError(
            f"expected a SHA-1 or SHA-256 thumbprint in hexadecimal, such as 'AB:CD:…', got {text[:40]!r}"
        ) from error


def _nbd_uri(text: str) -> str:
    if not text.startswith(("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")):
        raise ValueError(f"expected an nbd://, nbds://, nbd+unix:// or nbds+unix:// address, got {text!r}")
    return text


def _microminutes(minutes: float) -> float:
    return round(minutes, 6)


class Declared(BaseModel):
    """Immutable, and strict: an unknown key or a value of another type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Site(Declared):
    """A place where proxies, datastores and repositories stand close together."""

    name: Name
    """The site's name."""


class Vcenter(Declared):
    """A vCenter or ESXi host whose VMs are protected. Its certificate is verified, unless it is pinned."""

    name: Name
    """The name that datastores and jobs know it by."""
    host: Annotated[str, Field(min_length=1, max_length=255)]
    """Its host name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 443
    """Its HTTPS port."""
    user: Annotated[str, Field(min_length=1, max_length=255)]
    """The service account, e.g. `backup@vsphere.local`."""
    credential: Name
    """The secret with the account's password: `<credential>.password` in the secrets folder of the scheduler, and
    of each proxy that reads over virtual appliance or network mode."""
    thumbprint: Annotated[str, AfterValidator(_thumbprint)] | None = None
    """The SHA-1 or SHA-256 of its certificate, which is pinned by it instead of being verified."""
    ca_file: CaFile | None = None
    """A file of certificate authorities, as an absolute path, that verify its certificate; without this key, the
    system's do."""
    max_sessions: Annotated[int, Field(ge=1, le=64)] = 4
    """How many logins the scheduler may have there at once."""
    site: Name
    """The site it stands at."""

    @model_validator(mode="after")
    def _trusted_one_way(self) -> Self:
        if self.thumbprint is not None and self.ca_file is not None:
            raise ValueError("expected 'thumbprint' or 'ca_file', got both: a pinned certificate isn't verified")
        return self


class Datastore(Declared):
    """Where VMs' disks lie. Which path or server that is, each proxy's own `proxy.toml` says.

    A vCenter's datastore needs no declaration for its VMs to be protected, only for proxies to be told how to reach
    it directly.
    """

    name: Name
    """The datastore's name, the same on all proxies that reach it."""
    kind: DatastoreKind = DatastoreKind.DIRECTORY
    """How its VMs are found: `directory` reads the VMX files in a folder; with `vsphere`, vCenter tells."""
    site: Name
    """The site it stands at."""
    vcenter: Name | None = None
    """The vCenter that has it, for kind `vsphere`."""
    vsphere_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """What that vCenter calls it, where it is another name; with the datacentre before it where several have one of
    that name: `DC0/datastore1`."""
    max_concurrent_tasks: Slots | None = None
    """How many disks of it are moved at once; without this key, as many as slots allow."""
    latency: Latency | None = None
    """What is done when it takes long to answer; without this key, what `[dispatch]` says."""

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.kind is DatastoreKind.VSPHERE and self.vcenter is None:
            raise ValueError("the key 'vcenter' is missing, which kind 'vsphere' needs")
        if self.kind is not DatastoreKind.VSPHERE and (self.vcenter or self.vsphere_name):
            raise ValueError(f"'vcenter' and 'vsphere_name' are for kind 'vsphere', got kind {self.kind.value!r}")
        return self


class Collection(Declared):
    """When a repository is rid of what no restore point needs."""

    cron: Annotated[str, AfterValidator(_cron)]
    """Five cron fields: minute, hour, day, month, weekday."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """The time zone that the fields are meant in."""
    mib_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How fast it may read what it moves, in MiB per second; without this key, as fast as it goes."""


class Proof(Declared):
    """When a repository's packs and index are read and compared with their checksums, those read longest ago first,
    and samples of its restore points restored."""

    days: Annotated[int, Field(ge=0, le=3650)] = PROVE_DAYS
    """Everything is read at least once in so many days; with 0, only when asked to."""
    cron: Annotated[str, AfterValidator(_cron)] = PROVE_CRON
    """When a piece of it is read: five cron fields, minute, hour, day, month, weekday."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """The time zone that the fields are meant in."""
    hours: Annotated[int, Field(ge=1, le=168)] = PROVE_HOURS
    """How long a piece may read; what is left comes with the next."""
    mib_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How fast it may read, in MiB per second; without this key, as fast as it goes."""
    samples: bool = True
    """Whether samples are restored and damage is told from what only looks like it, which takes a proxy with a read
    key or the passphrase. With `false` any proxy does, and compares checksums."""


class Repository(Declared):
    """Where restore points go."""

    name: Name
    """The repository's name."""
    location: Annotated[str, AfterValidator(_repository_location)]
    """The folder, as an absolute path on the proxies that reach it, an object store,
    `s3://BUCKET/PREFIX?endpoint=https://host&region=NAME`, or what a gateway offers, `proxyfleet://HOST:PORT/NAME`."""
    site: Name
    """The site it stands at."""
    credential: Name | None = None
    """The secret that opens it: `<credential>.key` or `<credential>.passphrase` in each proxy's secrets folder; for
    an object store also `<credential>.s3`, a line each with the access key's id and its secret.
    Without this key it must have been made with `--no-encryption`: one that is encrypted is refused, and the other
    way round."""
    host: Annotated[str, AfterValidator(checked_address)] | None = None
    """The IP address of the machine it stands on, for traffic rules; without this key, of the endpoint of an object
    store that is given as an address, otherwise none: no rule holds for it."""
    proxies: tuple[NamePattern, ...] | None = None
    """The proxies that reach it, by name or pattern (`"remote-*"`); without this key, all of its site."""
    preferred_proxies: tuple[NamePattern, ...] = ()
    """Those of them, by name or pattern, that get its disks while they have slots to spare."""
    max_concurrent_tasks: Slots | None = None
    """How many disk tasks may use it at once; without this key, as many as slots allow."""
    collect: Collection | None = None
    """When it is collected by itself; without this key, only when asked to."""
    prove: Proof = Proof()
    """When it is proven by itself."""
    linked: tuple[Name, ...] = ()
    """Other repositories of the same VMs: what is damaged here is fetched from there."""


class Proxy(Declared):
    """What the scheduler asks of a proxy beyond what the proxy says of itself when it registers."""

    name: Name
    """The name in the proxy's `proxy.toml`."""
    site: Name | None = None
    """Where it must stand: one that registers for another site gets no tasks. Without this key, where it says."""
    max_concurrent_tasks: Slots | None = None
    """Its slots; without this key, as many as its own `proxy.toml` says. The smaller of the two counts."""
    transport_mode: ModeChoice = ModeChoice.AUTOMATIC
    """The only mode it may use, or `automatic`."""
    datastores: tuple[Name, ...] | None = None
    """The datastores it may read; without this key, all that it reaches."""
    enabled: bool = True
    """Whether it gets tasks."""
    description: Annotated[str, Field(max_length=255)] = ""
    """What people should know of it."""
    server: ProxyServer | None = None
    """The machine that the scheduler puts it on; without this key, whoever installs it does."""


class VmDisk(Declared):
    """A disk behind an NBD server."""

    key: DiskKey
    """Its place in the VM, e.g. `scsi0:0`."""
    nbd_uri: Annotated[str, AfterValidator(_nbd_uri)]
    """Where it is served: an `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://` address."""


class Vm(Declared):
    """A VM whose disks are behind NBD servers. VMs in datastores are found there and not declared."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """The VM's name, which jobs' patterns match."""
    disks: Annotated[tuple[VmDisk, ...], Field(min_length=1)]
    """Its disks."""


class Schedule(Declared):
    """When a job starts by itself."""

    cron: Annotated[str, AfterValidator(_cron)]
    """Five cron fields: minute, hour, day, month, weekday."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """The time zone that the fields are meant in."""


class Retries(Declared):
    """What happens to disks that failed."""

    count: Annotated[int, Field(ge=0, le=100)] = 3
    """How often they are tried again."""
    wait_minutes: Annotated[float, Field(ge=0, le=10_080), AfterValidator(_microminutes)] = 10
    """How long to wait before that."""


class Job(Declared):
    """What to protect, where to, when and how."""

    name: Name
    """The job's name."""
    kind: JobKind = JobKind.BACKUP
    """What it does."""
    vms: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of VMs; `*`, `?` and `[…]` match as in a shell."""
    select: tuple[VmSelector, ...] = ()
    """Further VMs: those that meet all conditions of any of these tables. Found out anew in each run."""
    exclude: tuple[VmSelector, ...] = ()
    """VMs that are left out after all: those that meet all conditions of any of these tables."""
    exclude_disks: tuple[DiskExclusionText, ...] = ()
    """Disks that are left out: by key (`scsi0:1`), `independent`, or larger than a size (`>500GiB`); of some VMs
    only with a name or pattern before it (`db*/scsi0:1`)."""
    templates: bool = False
    """Whether templates are protected too."""
    quiesce: Quiesce = Quiesce.PREFER
    """Whether VMware Tools bring the guest to rest before a snapshot: `prefer` makes a crash-consistent one with a
    warning where that fails, `require` fails the VM, `never` doesn't try."""
    repository: Name
    """Where the restore points go."""
    level: CompressionLevel = CompressionLevel.OPTIMAL
    """How hard blocks are compressed."""
    transport_mode: ModeChoice = ModeChoice.AUTOMATIC
    """The only mode disks may be read over, or `automatic` for the best."""
    failover_to_network: bool = True
    """Whether a disk that can't be read over its mode is read over the network instead."""
    priority: Priority = Priority.REGULAR
    """`high` goes before `regular` when slots are short."""
    window: Window | None = None
    """When its disks may begin; without this key, at any time. VMs that have begun by its end are finished."""
    proxies: tuple[NamePattern, ...] | None = None
    """The only proxies that may have its disks, by name or pattern; without this key, whoever can read them."""
    preferred_proxies: tuple[NamePattern, ...] = ()
    """Proxies, by name or pattern, that get its disks while they have slots to spare."""
    schedule: Schedule | None = None
    """When it starts by itself; without this key, only when asked to."""
    retries: Retries = Retries()
    """What happens to disks that failed."""
    retention: Retention = Retention()
    """How long its restore points are kept."""
    enabled: bool = True
    """Whether its schedule starts it; it can always be started by hand."""

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if not self.vms and not self.select:
            raise ValueError("expected VMs in 'vms' or 'select', got neither")
        return self


class Notification(Declared):
    """Who is told of runs' ends."""

    name: Name
    """The notification's name."""
    when: NotifyWhen = NotifyWhen.WARNING
    """Which runs: `always` all, `warning` those that failed, wholly or in part, and those with warnings, `failure`
    only the former."""
    jobs: Annotated[tuple[NamePattern, ...], Field(min_length=1)] = ("*",)
    """Of which jobs, by name or pattern."""
    webhook: WebhookTarget | None = None
    """A server to tell; either this or `email`."""
    email: EmailTarget | None = None
    """People to tell."""
    enabled: bool = True
    """Whether anything is sent."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("expected either 'webhook' or 'email'")
        return self


class Fleet(Declared):
    """All declarations; the attributes are the names of the file's arrays of tables."""

    site: tuple[Site, ...] = ()
    vcenter: tuple[Vcenter, ...] = ()
    datastore: tuple[Datastore, ...] = ()
    repository: tuple[Repository, ...] = ()
    proxy: tuple[Proxy, ...] = ()
    vm: tuple[Vm, ...] = ()
    job: tuple[Job, ...] = ()
    notification: tuple[Notification, ...] = ()
    traffic_rule: tuple[TrafficRule, ...] = ()
    dispatch: Dispatch = Dispatch()


Declaration = Site | Vcenter | Datastore | Repository | Proxy | Vm | Job | Notification | TrafficRule
KINDS: tuple[str, ...] = tuple(kind for kind in Fleet.model_fields if kind != "dispatch")
"""The kinds of declarations, those first that others refer to."""


def declarations(fleet: Fleet, kind: str) -> dict[str, Declaration]:
    """The fleet's declarations of one kind, by name."""
    return {declared.name: declared for declared in getattr(fleet, kind)}
