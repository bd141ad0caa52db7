"""A disk of a replica in a vCenter, written over the network by VDDK: one connection, which reads, too."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import blake3

from proxy_worker.contract.errors import CredentialError, NotFoundError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, Extent, VsphereDisk
from proxy_worker.mover.vm_disk import AreaMap
from proxy_worker.program.closing import Closing
from proxy_worker.replication.errors import ReplicaBusyError, ReplicaDiskSizeError, ReplicaUnwritableError
from proxy_worker.replication.home import Seen
from proxy_worker.replication.table import Looks
from proxy_worker.replication.vsphere_home import VsphereReplica
from proxy_worker.replication.vsphere_machine import AtVcenter, VsphereMachine
from proxy_worker.transport.command import ServedSource
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.vddk import network_transports, open_vddk
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.transport.writing_network import ServedSink, open_vddk_sink
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.faults import DiskLockedError
from proxy_worker.vsphere.identity import split_path

_REASON = "network: a replica's disk has snapshots"


class VsphereReplicaDisk:
    """A disk of a replica, by its key."""

    def __init__(self, replica: VsphereMachine, identity: DiskIdentity) -> None:
        self.identity = identity
        self.name = f"disk {identity.key} of {replica.name}"
        self._replica = replica

    def look(self) -> Seen | None:
        """What it looks like; a replica in a vCenter is made with its disks. Raises `ReplicaDiskSizeError`."""
        with self._replica.there() as at:
            disk = self._found(at)
            points = list(replica_vm.points_of(at.vm, self._replica.home.mark))
            session = self._replica.session_noted(at, self.identity.key)
        looks = _looks(disk.uuid, disk.size_bytes, points[-1], session) if points and session else None
        # Once it has points, a run writes what differs to a new file: how much that is, only comparing tells.
        return Seen(looks, disk.size_bytes, disk.size_bytes if points else 0, blank=not points)

    def make(self, size_bytes: int) -> None:
        """It is made with its VM only."""
        raise self._fixed(f"it isn't there, and its source has {size_bytes} bytes")

    def grow(self, size_bytes: int) -> None:
        """Beneath snapshots it can't become larger."""
        raise self._fixed(f"its source has {size_bytes} bytes by now")

    def open(self) -> OpenVsphereDisk:
        """Open it for one session, which the VM notes: what other proxies know of the disk is of an earlier one.

        Raises `ReplicaBusyError`, SourceError, TargetError.
        """
        session = secrets.token_hex(8)
        with self._replica.there() as at:
            disk = self._found(at)
            self._replica.note_session(at, self.identity.key, session)
            address = _address(self._replica, at, disk)
        access = self._replica.access
        try:
            # What was ever written: the connection that writes can't tell.
            with _served(address, access) as source:
                areas = tuple(source.allocated(0, source.size_bytes))
            sink = open_vddk_sink(address, access, reason=_REASON)
        except DiskLockedError as error:
            raise ReplicaBusyError(error.what, why=error.why, remedy=error.remedy) from error
        except (CredentialError, NotFoundError) as error:
            raise ReplicaUnwritableError(error.what, why=error.why, remedy=error.remedy) from error
        return OpenVsphereDisk(sink, disk.uuid, session, areas)

    def _found(self, at: AtVcenter) -> VirtualDisk:
        disk = _disk_at(at, self.identity.key)
        if disk is None:
            raise self._fixed("its VM doesn't have it")
        return disk

    def _fixed(self, why: str) -> ReplicaDiskSizeError:
        return ReplicaDiskSizeError(
            self.name,
            why=why,
            remedy="Delete the replica in vCenter: the next run makes it anew, with its original's disks.",
        )


class OpenVsphereDisk(Closing):
    """Such a disk, open to read and to write."""

    def __init__(self, sink: ServedSink, uuid: str | None, session: str, areas: Sequence[Extent]) -> None:
        """Take over `sink`; `areas`: all that may hold something other than zeros, ascending."""
        self.sink = sink
        self.size_bytes = sink.size_bytes
        self._uuid = uuid
        self._session = session
        self._areas = AreaMap(areas)

    @property
    def source(self) -> Self:
        """Itself."""
        return self

    def allocated(self, offset: int, length: int) -> Iterator[Extent]:
        """The range, if something was written in it before this session."""
        if self._areas.touches(offset, length):
            yield Extent(offset=offset, length=length)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what it holds now. Raises SourceError, TargetError."""
        self.sink.read_into(offset, view)

    def looks_after(self, kept: str | None) -> Looks | None:
        """As its restore point `kept` has it, to which each run reverts, if no session follows; None without."""
        return _looks(self._uuid, self.size_bytes, kept, self._session) if kept is not None else None

    def close(self) -> None:
        """Hang up. May be called again."""
        self.sink.close()


def _looks(uuid: str | None, size_bytes: int, point: str, session: str) -> Looks:
    """Of a disk that nobody has written since `session`, in a VM whose newest restore point is `point`."""
    told = blake3.blake3(f"{uuid}\0{point}\0{session}".encode()).digest(7)
    return Looks(int.from_bytes(told, "big"), size_bytes, 0, 0)


@contextmanager
def reading(replica: VsphereReplica, disk_key: str) -> Iterator[DiskSource]:
    """A disk of a replica, to be read as it is for as long as the replica is off.

    Raises what `VsphereReplica.require_sendable` does, also where it was powered on meanwhile;
    `ReplicaDiskSizeError` where it hasn't got such a disk; and what `open_vddk` raises.
    """
    replica.require_sendable()
    with replica.there() as at:
        disk = _disk_at(at, disk_key)
        if disk is None:
            raise ReplicaDiskSizeError(
                f"disk {disk_key} of {replica.name}", why="its VM doesn't have it any more", remedy="Put it back."
            )
        address = _address(replica, at, disk)
    with _served(address, replica.access) as source:
        yield source
    replica.require_sendable()


def _disk_at(at: AtVcenter, key: str) -> VirtualDisk | None:
    return next((disk for disk in at.vm.disks if disk.place == key), None)


def _address(machine: VsphereMachine, at: AtVcenter, disk: VirtualDisk) -> VsphereDisk:
    """A disk as it is now, in no snapshot."""
    datastore, _ = split_path(disk.path or "")
    return VsphereDisk(
        vcenter=machine.home.vcenter,
        vm=at.vm.ref,
        key=disk.key,
        path=disk.path or "",
        uuid=disk.uuid,
        controller=disk.controller,
        datastore_type=replica_vm.datastore_type(at.session, at.vm, datastore),
        earlier_snapshots=bool(at.vm.snapshots),
    )


def _served(disk: VsphereDisk, access: VsphereAccess) -> ServedSource:
    return open_vddk(
        DiskAddress(path=split_path(disk.path)[1], vsphere=disk),
        access,
        transports=network_transports(access),
        mode=TransportMode.NETWORK,
        reason=_REASON,
    )
