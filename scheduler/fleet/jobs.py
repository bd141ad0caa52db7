"""What `fleet.toml` says of jobs."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from proxy_worker.contract.names import CompressionLevel, Quiesce
from proxy_worker.contract.subjects import Name
from scheduler.fleet.values import CronText, Declared, ModeChoice, TimezoneName
from scheduler.planning.copies import CopyTerms
from scheduler.planning.criteria import DiskExclusionText, VmSelector
from scheduler.planning.replicas import ReplicaTerms
from scheduler.planning.retention import Retention
from scheduler.planning.window import Window
from scheduler.state.declared import JobKind, NamePattern, Priority


def _microminutes(minutes: float) -> float:
    return round(minutes, 6)


_NOT_FOR_COPIES: Final = (
    "select",
    "exclude",
    "exclude_disks",
    "templates",
    "quiesce",
    "transport_mode",
    "failover_to_network",
    "priority",
)
"""Keys that are about reading VMs, or that copies have no choice of."""


_NOT_FOR_REPLICAS: Final = ("repository", "retention", "templates")


class Schedule(Declared):
    """When a job starts by itself."""

    cron: CronText
    """Five cron fields: minute, hour, day, month, weekday."""
    timezone: TimezoneName = "UTC"
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
    """Names of VMs; `*`, `?` and `[…]` match as in a shell. Of kind `copy`: without this key, all."""
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
    copy_from: CopyTerms | None = None
    """Of kind `copy`: which restore points."""
    replica: ReplicaTerms | None = None
    """Of kind `replication`: where the replicas go."""
    repository: Name | None = None
    """Where the restore points go; not of kind `replication`, which has no repository."""
    level: CompressionLevel = CompressionLevel.OPTIMAL
    """How hard blocks are compressed."""
    transport_mode: ModeChoice = ModeChoice.AUTOMATIC
    """The only mode disks may be read over, or `automatic` for the best."""
    failover_to_network: bool = True
    """Whether a disk that can't be read over its mode is read over the network instead."""
    priority: Priority = Priority.REGULAR
    """`high` goes before `regular` when slots are short; copies go last."""
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
        if self.kind is not JobKind.COPY and self.copy_from is not None:
            raise ValueError(f"'copy_from' is for kind 'copy', got kind {self.kind.value!r}")
        if (self.kind is JobKind.REPLICATION) is not (self.replica is not None):
            raise ValueError(
                f"kind 'replication' needs 'replica', and no other has it; got kind {self.kind.value!r}"
            )
        if self.kind is JobKind.REPLICATION:
            idle = [
                key for key in _NOT_FOR_REPLICAS if getattr(self, key) != type(self).model_fields[key].get_default()
            ]
            if idle:
                raise ValueError(f"expected no key '{idle[0]}' in a job of kind 'replication': see 'replica'")
        elif self.repository is None:
            raise ValueError("the key 'repository' is missing")
        if self.kind is JobKind.COPY:
            if self.copy_from is None:
                raise ValueError("the key 'copy_from' is missing, which kind 'copy' needs")
            idle = [key for key in _NOT_FOR_COPIES if getattr(self, key) != type(self).model_fields[key].default]
            if idle:
                raise ValueError(f"expected no key '{idle[0]}' in a job of kind 'copy', which it says nothing to")
        elif not self.vms and not self.select:
            raise ValueError("expected VMs in 'vms' or 'select', got neither")
        return self
