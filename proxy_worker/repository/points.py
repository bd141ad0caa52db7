"""Restore points: the only commit, and the tombstones that stand where none will be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store

_POINT_NAME: Final = re.compile(r"points/[^/]+/[^/]+")


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a VM's configuration (VMX, NVRAM), stored as blocks."""

    name: str
    size_bytes: int
    block_ids: tuple[bytes, ...]
    """One for each piece of the repository's block size; the last piece is as long as is left."""


class StoredDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk within a restore point: the root of its hash tree, and where it came from."""

    key: str
    size_bytes: int
    map_id: bytes
    fence: int
    stored_bytes: int
    parent: str | None
    """The run whose point it was compared with."""
    source: str
    """The disk's address at the time, as JSON; provenance only."""
    report: str
    """The disk task's figures, as JSON (`DiskReport`)."""
    configuration: tuple[StoredFile, ...] = ()


class Tombstone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tombstone"):
    """Stands where a run's point will never be."""

    vm_id: str
    run: str
    reason: str
    created_at: float


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="point"):
    """A VM at one moment."""

    vm_id: str
    vm_name: str
    run: str
    job: str
    sequence: int
    """1 + the highest of the VM's points seen when it was committed: order without trusting one clock."""
    created_at: float
    """Unix seconds, by the clock of the proxy that committed it."""
    started_at: float
    token: bytes
    """Random: after a lost reply it tells the own commit from another's."""
    disks: tuple[StoredDisk, ...]

    def disk(self, key: str) -> StoredDisk:
        """The disk at place `key`; raises `PointNotFoundError`."""
        for disk in self.disks:
            if disk.key == key:
                return disk
        raise PointNotFoundError(
            f"disk {key} of {self.vm_name}",
            why=f"restore point {self.run} has {', '.join(disk.key for disk in self.disks)}",
        )

    @property
    def configuration(self) -> tuple[StoredFile, ...]:
        """The VM's configuration files, whichever disk's task stored them."""
        return tuple(file for disk in self.disks for file in disk.configuration)

    def same_content(self, other: Point) -> bool:
        """Whether both name the same disks of the same attempts: two commits of one run."""
        return [(disk.key, disk.map_id, disk.fence) for disk in self.disks] == [
            (disk.key, disk.map_id, disk.fence) for disk in other.disks
        ]


def point_name(vm_id: str, run: str) -> str:
    """Where a run's point, or its tombstone, lies."""
    return f"points/{vm_id}/{run}"


def encode_outcome(sealer: MetadataSealer, outcome: Point | Tombstone) -> bytes:
    """The object that ends a run."""
    return sealer.seal_object(point_name(outcome.vm_id, outcome.run), msgspec.msgpack.encode(outcome))


def decode_outcome(sealer: MetadataSealer, name: str, data: bytes) -> Point | Tombstone:
    """The reverse; raises `RepositoryDamageError`."""
    payload, _ = sealer.open_object(name, data)
    try:
        outcome: Point | Tombstone = msgspec.msgpack.decode(payload, type=Point | Tombstone)
    except msgspec.MsgspecError as error:
        raise sealer.damage(name, f"it is not a restore point: {error}") from error
    if point_name(outcome.vm_id, outcome.run) != name:
        raise sealer.damage(name, "it is another run's")
    return outcome


def read_outcome(store: Store, sealer: MetadataSealer, name: str) -> Point | Tombstone:
    """The outcome of that name.

    Raises `ObjectNotFoundError`, and `RepositoryDamageError` also for what the store can't read any more.
    """
    try:
        data = store.get(name)
    except ObjectUnreadableError as error:
        raise sealer.damage(name, f"it can't be read: {error.why}") from error
    return decode_outcome(sealer, name, data)


def load_outcome(store: Store, sealer: MetadataSealer, vm_id: str, run: str) -> Point | Tombstone | None:
    """How a run has ended; None while it hasn't."""
    try:
        return read_outcome(store, sealer, point_name(vm_id, run))
    except ObjectNotFoundError:
        return None


def point_names(store: Store, vm_id: str | None = None) -> Iterator[str]:
    """Names of points and tombstones, ended or not; whatever else lies there is none."""
    below = f"{vm_id}/" if vm_id else ""
    return (name for name in store.list(f"points/{below}") if _POINT_NAME.fullmatch(name))


def live_point_names(store: Store, vm_id: str | None = None) -> Iterator[str]:
    """Names of points and tombstones that retention hasn't ended.

    Points are listed before the marks: one that is ended in between is found marked.
    """
    below = f"{vm_id}/" if vm_id else ""
    names = list(point_names(store, vm_id))
    ended = {name.removeprefix("ended/") for name in store.list(f"ended/{below}")}
    return (name for name in names if name.removeprefix("points/") not in ended)


def ended_runs(store: Store, vm_id: str) -> set[str]:
    """A VM's runs that retention has marked as ended."""
    return {name.rpartition("/")[2] for name in store.list(f"ended/{vm_id}/")}


def is_ended(store: Store, vm_id: str, run: str) -> bool:
    """Whether retention has marked a run as ended, so that its point no longer counts."""
    return store.exists(f"ended/{vm_id}/{run}")


def ended_sequence(store: Store, sealer: MetadataSealer, vm_id: str, run: str) -> int:
    """The `sequence` of a point that has ended; 0 where the mark doesn't say it, as earlier versions' don't."""
    name = f"ended/{vm_id}/{run}"
    try:
        payload, _ = sealer.open_object(name, store.get(name))
        return msgspec.msgpack.decode(payload, type=int) if payload else 0
    except (ObjectNotFoundError, ObjectUnreadableError, DamageError, msgspec.MsgspecError):
        return 0
