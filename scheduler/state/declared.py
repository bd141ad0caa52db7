"""What an administrator declares: sites, vCenters, datastores, repositories, proxies, VMs, jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from proxy_worker.contract.names import AUTOMATIC, CompressionLevel, Quiesce
from proxy_worker.contract.subjects import DiskKey, Name
from scheduler.deployment.server import ProxyServer
from scheduler.planning.copies import CopyTerms
from scheduler.planning.criteria import Criteria
from scheduler.planning.replicas import ReplicaTerms
from scheduler.planning.retention import Retention
from scheduler.planning.window import Window
from scheduler.state.columns import Json, Record, choice, reference

NamePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,62}$")]
"""A name, or one with `*` and `?` in it that matches several."""


PROVE_CRON: Final = "0 12 * * *"
PROVE_DAYS: Final = 30
PROVE_HOURS: Final = 6


class DatastoreKind(StrEnum):
    """Where a datastore's VMs are read from."""

    DIRECTORY = "directory"
    """A folder on the proxies: VMs are read from their VMX files."""
    VSPHERE = "vsphere"
    """A datastore of a vCenter, which knows the VMs itself."""


class JobKind(StrEnum):
    """What a job does."""

    BACKUP = "backup"
    REPLICATION = "replication"
    """Keep a second VM ready to take the first one's place."""
    COPY = "copy"
    """Restore points of one repository, to another."""


class Priority(StrEnum):
    """Which jobs' disks are released first."""

    HIGH = "high"
    REGULAR = "regular"


class NbdDisk(BaseModel):
    """A disk of a declared VM, offered by an NBD server."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    key: DiskKey
    nbd_uri: str = Field(min_length=1)


class Site(Record):
    """Where proxies, datastores and repositories stand."""

    __tablename__ = "sites"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)


class Vcenter(Record):
    """A vCenter or ESXi host. Its password is a file of its own, `<credential>.password`."""

    __tablename__ = "vcenters"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    port: Mapped[int] = mapped_column(default=443)
    user: Mapped[str] = mapped_column(String(255))
    credential: Mapped[str] = mapped_column(String(63))
    thumbprint: Mapped[str | None] = mapped_column(String(95), default=None)
    """What its certificate is pinned by, as vSphere writes it; None: it is verified."""
    ca_file: Mapped[str | None] = mapped_column(default=None)
    """The authorities that verify its certificate; None: the system's."""
    max_sessions: Mapped[int] = mapped_column(default=4)
    site: Mapped[str] = mapped_column(reference("sites.name"))
    scanned_at: Mapped[float | None] = mapped_column(default=None)
    """When it was last read in full; the service's own mark, not declared."""


class Datastore(Record):
    """A place VMs' disks lie in; proxies say for themselves which datastores they reach and how."""

    __tablename__ = "datastores"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[DatastoreKind] = mapped_column(choice(DatastoreKind), default=DatastoreKind.DIRECTORY)
    site: Mapped[str] = mapped_column(reference("sites.name"))
    vcenter: Mapped[str | None] = mapped_column(reference("vcenters.name"), default=None)
    """Whose it is, of kind `vsphere`; None otherwise."""
    vsphere_name: Mapped[str | None] = mapped_column(String(255), default=None)
    """What that vCenter calls it; None: the same."""
    max_concurrent_tasks: Mapped[int | None] = mapped_column(default=None)
    """Disks of it that are moved at once; None: no limit."""
    latency_stop_ms: Mapped[float | None] = mapped_column(default=None)
    """With the next: what is done when it is slow to answer; None: as for all."""
    latency_throttle_ms: Mapped[float | None] = mapped_column(default=None)
    latency_ms: Mapped[float | None] = mapped_column(default=None)
    """How long it took to answer at `latency_at`; the service's own marks, not declared."""
    latency_at: Mapped[float | None] = mapped_column(default=None)


class Repository(Record):
    """A backup repository, as the proxies that reach it find it."""

    __tablename__ = "repositories"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    location: Mapped[str]
    site: Mapped[str] = mapped_column(reference("sites.name"))
    credential: Mapped[str | None] = mapped_column(String(63), default=None)
    """None: it isn't encrypted."""
    host: Mapped[str | None] = mapped_column(String(45), default=None)
    """The IP address of the machine it stands on, for traffic rules; None: as its location says, if it does."""
    proxies: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[NamePattern, ...]), default=None)
    """The proxies that reach it, by name or pattern; None: all of its site."""
    preferred_proxies: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[NamePattern, ...]), default=None)
    """Those that are to have its disks while they have slots to spare."""
    max_concurrent_tasks: Mapped[int | None] = mapped_column(default=None)
    """Disks moved to or from it at once; None: no limit."""
    collect_cron: Mapped[str | None] = mapped_column(default=None)
    """When it is collected by itself; None: only when asked to."""
    collect_timezone: Mapped[str] = mapped_column(default="UTC")
    """The IANA time zone that `collect_cron` is meant in."""
    collect_hours: Mapped[int | None] = mapped_column(default=None)
    """How long a collection may go on; None: to its end."""
    collect_mib_per_s: Mapped[int | None] = mapped_column(default=None)
    """How fast a collection may move chunks; None: no limit."""
    collect_at: Mapped[float | None] = mapped_column(default=None)
    """When it is collected next; the service's own mark, not declared. None: to be found out."""
    prove_cron: Mapped[str] = mapped_column(default=PROVE_CRON)
    """When a piece of it is proven by itself."""
    prove_timezone: Mapped[str] = mapped_column(default="UTC")
    prove_days: Mapped[int] = mapped_column(default=PROVE_DAYS)
    """In so many days everything is to be read at least once; 0: it isn't proven by itself."""
    prove_hours: Mapped[int] = mapped_column(default=PROVE_HOURS)
    """How long a piece may take."""
    prove_mib_per_s: Mapped[int | None] = mapped_column(default=None)
    prove_samples: Mapped[bool] = mapped_column(default=True)
    """Whether samples are restored, for which only proxies with a read key will do."""
    prove_at: Mapped[float | None] = mapped_column(default=None)
    """When it is proven next; the service's own mark, not declared. None: to be found out."""
    hardened: Mapped[bool] = mapped_column(default=False)
    """Whether its gateway keeps it hardened, and its machine is a proxy in network mode at most."""
    linked: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[Name, ...]), default=())
    """Repositories of the same VMs, to fetch lost blocks from."""
    repository_id: Mapped[str | None] = mapped_column(default=None)
    """Its own identity, learned by the first rescan."""
    size_bytes: Mapped[int | None] = mapped_column(default=None)
    """Of the file system it lies on, as a proxy saw it last; not declared. So are the next two."""
    free_bytes: Mapped[int | None] = mapped_column(default=None)
    measured_at: Mapped[float | None] = mapped_column(default=None)


class Proxy(Record):
    """What is declared of a proxy; it registers the rest itself, and may be absent from here altogether."""

    __tablename__ = "proxies"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    site: Mapped[str | None] = mapped_column(String(63), default=None)
    """Where it must stand; one that registers for another site gets no work. None: wherever it says."""
    max_concurrent_tasks: Mapped[int | None] = mapped_column(default=None)
    """Lowers what the proxy itself allows; None: as it registered."""
    transport_mode: Mapped[str] = mapped_column(String(32), default=AUTOMATIC)
    """A `TransportMode` it is restricted to, or `automatic`."""
    datastores: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[Name, ...]), default=None)
    """The datastores it may be used for; None: all it registered."""
    enabled: Mapped[bool] = mapped_column(default=True)
    description: Mapped[str] = mapped_column(default="")
    server: Mapped[ProxyServer | None] = mapped_column(Json(ProxyServer), default=None)
    """The machine that the scheduler puts it on; None: it is installed by others."""


class Vm(Record):
    """A VM whose disks are behind NBD, which no inventory shows."""

    __tablename__ = "vms"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    disks: Mapped[tuple[NbdDisk, ...]] = mapped_column(Json(tuple[NbdDisk, ...]))


class Job(Record):
    """What to protect, where to, when, how."""

    __tablename__ = "jobs"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[JobKind] = mapped_column(choice(JobKind), default=JobKind.BACKUP)
    vms: Mapped[tuple[str, ...]] = mapped_column(Json(tuple[str, ...]))
    """Names, or shell patterns of names."""
    criteria: Mapped[Criteria] = mapped_column(Json(Criteria), default=Criteria())
    """Which VMs and disks besides."""
    quiesce: Mapped[Quiesce] = mapped_column(choice(Quiesce), default=Quiesce.PREFER)
    copy_from: Mapped[CopyTerms | None] = mapped_column(Json(CopyTerms), default=None)
    """What it copies; None: it is of another kind."""
    repository: Mapped[str | None] = mapped_column(reference("repositories.name"), default=None)
    """None: it replicates."""
    replica: Mapped[ReplicaTerms | None] = mapped_column(Json(ReplicaTerms), default=None)
    """Where it replicates to; None: it is of another kind."""
    level: Mapped[CompressionLevel] = mapped_column(choice(CompressionLevel), default=CompressionLevel.OPTIMAL)
    transport_mode: Mapped[str] = mapped_column(String(32), default=AUTOMATIC)
    failover_to_network: Mapped[bool] = mapped_column(default=True)
    priority: Mapped[Priority] = mapped_column(choice(Priority), default=Priority.REGULAR)
    window: Mapped[Window | None] = mapped_column(Json(Window), default=None)
    """When its disks may begin; None: at any time."""
    proxies: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[NamePattern, ...]), default=None)
    """The only proxies that may have its disks, by name or pattern; None: whoever can read them."""
    preferred_proxies: Mapped[tuple[str, ...] | None] = mapped_column(Json(tuple[NamePattern, ...]), default=None)
    """Those that are to have its disks while they have slots to spare."""
    cron: Mapped[str | None] = mapped_column(default=None)
    timezone: Mapped[str] = mapped_column(default="UTC")
    """The IANA time zone that `cron` is meant in."""
    retry_count: Mapped[int] = mapped_column(default=3)
    retry_wait_seconds: Mapped[float] = mapped_column(default=600.0)
    retention: Mapped[Retention] = mapped_column(Json(Retention), default=Retention())
    """How long its restore points are kept."""
    enabled: Mapped[bool] = mapped_column(default=True)
    """Whether its schedule starts runs; it can always be started by hand."""
    scheduled_after: Mapped[float | None] = mapped_column(default=None)
    """Starts due up to here have been dealt with; the service's own mark, not declared."""
