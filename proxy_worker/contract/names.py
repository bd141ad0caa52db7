"""Names that cross process boundaries: transport modes, compression levels, tasks, lanes, repository names."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""What sites, proxies, datastores, repositories, jobs and credentials may be called."""


class TransportMode(StrEnum):
    """How a proxy reaches a disk."""

    STORAGE_SNAPSHOT = "storage_snapshot"
    DIRECT_STORAGE = "direct_storage"
    VIRTUAL_APPLIANCE = "virtual_appliance"
    NETWORK = "network"


MODE_PREFERENCE: tuple[TransportMode, ...] = tuple(TransportMode)
"""The automatic order for reading, best first."""

AUTOMATIC: Final = "automatic"


class CompressionLevel(StrEnum):
    """How hard blocks are compressed; figures in the operator's guide."""

    AUTO = "auto"
    """As hard as the proxy's processors have time for, while the link and the source are waited for."""
    NONE = "none"
    FAST = "fast"
    OPTIMAL = "optimal"
    HIGH = "high"
    EXTREME = "extreme"


class DiskFormat(StrEnum):
    """How a new virtual disk takes room on its datastore."""

    THIN = "thin"
    LAZY = "lazy"
    """All of it at once, zeroed where it is first written."""
    EAGER = "eager"
    """All of it at once, zeroed when it is made."""


class Quiesce(StrEnum):
    """Whether the guest's file systems are brought to rest by VMware Tools before a snapshot."""

    PREFER = "prefer"
    """Where it works; otherwise the snapshot is crash-consistent, with a warning."""
    REQUIRE = "require"
    NEVER = "never"


class TrafficKind(StrEnum):
    """What goes between a proxy and a repository, or another proxy, as traffic rules tell it apart."""

    BACKUP = "backup"
    RESTORE = "restore"
    COPY = "copy"
    """From one repository to another: what the target is sent."""
    REPLICATION = "replication"
    """Between the source's and the target's proxy."""


class TaskKind(StrEnum):
    """What a proxy can be asked to do; also the Celery task name."""

    DISK_BACKUP = "disk.backup"
    DISK_RESTORE = "disk.restore"
    DISK_COPY = "disk.copy"
    VM_CREATE = "vm.create"
    INVENTORY_SCAN = "inventory.scan"
    COPY_PLAN = "copy.plan"
    REPOSITORY_COMMIT = "repository.commit"
    REPOSITORY_ABANDON = "repository.abandon"
    REPOSITORY_LIST = "repository.list"
    REPOSITORY_CHECK = "repository.check"
    REPOSITORY_COLLECT = "repository.collect"
    REPOSITORY_PROVE = "repository.prove"
    POINT_DELETE = "point.delete"
    POINT_BOOT = "point.boot"
    POINT_SERVE = "point.serve"
    POINT_RELEASE = "point.release"
    STORAGE_SNAPSHOT_CREATE = "storage_snapshot.create"
    STORAGE_SNAPSHOT_REMOVE = "storage_snapshot.remove"
    STORAGE_SNAPSHOT_LIST = "storage_snapshot.list"
    DISK_RECEIVE = "disk.receive"
    DISK_REPLICATE = "disk.replicate"
    REPLICA_OPEN = "replica.open"
    REPLICA_POINT = "replica.point"
    REPLICA_REMOVE_POINT = "replica.remove_point"
    REPLICA_REVERT = "replica.revert"
    REPLICA_MARK = "replica.mark"

    @property
    def takes_slot(self) -> bool:
        """Whether the task moves a disk or runs a VM, and so counts against `max_concurrent_tasks`."""
        return self in _WITH_SLOT


_WITH_SLOT: Final = frozenset(
    {
        TaskKind.POINT_BOOT,
        TaskKind.DISK_BACKUP,
        TaskKind.DISK_RESTORE,
        TaskKind.DISK_COPY,
        TaskKind.DISK_RECEIVE,
        TaskKind.DISK_REPLICATE,
    }
)


def disk_lane(site: str, mode: TransportMode, datastore: str | None) -> str:
    """The lane of disks of one site that one mode reaches, narrowed to a datastore where the disk has one."""
    return f"disk.{site}.{mode}" + (f".{datastore}" if datastore else "")


def proxy_lane(site: str, proxy: str) -> str:
    """The lane that only this proxy pulls from; named after its site too, so that Redis can keep sites apart."""
    return f"proxy.{site}.{proxy}"


def repository_lane(repository: str) -> str:
    """The lane of a repository's upkeep: commit, list, check."""
    return f"repository.{repository}"


def is_name(text: str) -> bool:
    """Whether `text` may name a site, proxy, datastore, repository, job or credential."""
    return re.fullmatch(NAME_PATTERN, text) is not None
