"""Virtual appliance mode: a disk is attached to the proxy's own VM, and read as a block device of its guest.

Order: the disk is journalled, attached, found, read; then dropped by the guest, detached, forgotten. Whatever ends
this process in between leaves an entry in the journal, and `detach_left_behind` goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConflictError, NotFoundError, ProxyfleetError, SourceError
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.selection import LARGEST_HOT_ADD_BYTES
from proxy_worker.contract.subjects import DiskAddress, VcenterReference, VsphereDisk
from proxy_worker.transport import attachments
from proxy_worker.transport.attachments import Attachment, AttachmentJournal, Entry
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.datastore import Datastore
from proxy_worker.transport.direct import DirectSource
from proxy_worker.transport.guest_disks import GuestDiskAmbiguousError, GuestDisks
from proxy_worker.transport.image import DiskImage, open_image
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import hot_add
from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.faults import VsphereError, VsphereObjectGoneError
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import frozen_disks
from proxy_worker.vsphere.tasks import Waiting

log = logging.getLogger(__name__)

_WHAT: Final = "{path} can't be hot-added"


class HotAddImpossibleError(SourceError):
    """A disk can't be attached to this proxy's VM, whatever is tried."""

    retryable = False


class DiskUuidsHiddenError(SourceError):
    """The proxy's VM hides its disks' uuids from its guest."""

    retryable = False


@dataclass(frozen=True)
class Pace:
    """How long hot-adding takes at most, and how often it is tried (seconds)."""

    lock_s: float = 300.0
    appear_s: float = 60.0
    """For the guest to show a disk that vCenter has attached."""
    vanish_s: float = 15.0
    """For the guest to drop one that was detached; until then it could be taken for one that comes."""
    tries: int = 4
    first_pause_s: float = 1.0
    """Before the second try; it doubles from one to the next."""
    task: Waiting = field(default_factory=lambda: Waiting(timeout_s=600.0))
    """For vCenter to reconfigure the proxy's VM."""


def open_virtual_appliance(
    address: DiskAddress,
    connections: Connections,  # noqa: ARG001 - as for every mode
    vsphere: VsphereAccess,
    *,
    reason: str,
    pace: Pace | None = None,
) -> DiskSource:
    """Attach the disk that a snapshot has frozen, and read it; closing it detaches it.

    Raises SourceError, NotFoundError (the snapshot or this proxy's VM), CredentialError or ConflictError (the disk
    is in use, no SCSI unit is free).
    """
    disk = address.vsphere
    if disk is None:
        raise HotAddImpossibleError(f"{address.path} can't be hot-added", why="it is no disk of a vCenter")
    return _Hand(disk, vsphere, pace or Pace()).open(reason)


class HotAddedSource(DirectSource):
    """A `DiskSource` over the device of an attached disk; closing it detaches the disk."""

    def __init__(self, image: DiskImage, *, reason: str, detach: Callable[[], None]) -> None:
        super().__init__(image, reason=reason, mode=TransportMode.VIRTUAL_APPLIANCE)
        self._detach: Callable[[], None] | None = detach

    def close(self) -> None:
        """Close the device and detach the disk. May be called again."""
        try:
            super().close()
        finally:
            detach, self._detach = self._detach, None
            if detach is not None:
                detach()


class _Hand:
    """Takes one disk from its snapshot to the guest, and back."""

    def __init__(self, disk: VsphereDisk, vsphere: VsphereAccess, pace: Pace) -> None:
        self._disk = disk
        self._vsphere = vsphere
        self._pace = pace
        self._what = _WHAT.format(path=disk.path)
        self._journal = journal_of(vsphere)
        self._guest = GuestDisks(vsphere.guest_disks_dir)

    def open(self, reason: str) -> DiskSource:
        with self._vsphere.sessions(self._disk.vcenter).borrow() as session:
            frozen, uuid = self._frozen(session)
            with self._journal.attaching(self._pace.lock_s):
                entry = self._attach(session, frozen, uuid)
        with ExitStack() as undo:
            undo.callback(self._detach, entry, None)
            device = self._guest.wait_for(uuid, frozen.size_bytes, timeout_s=self._pace.appear_s)
            image = open_image(Datastore("dev", device.parent, label="this machine"), device.name)
            undo.callback(image.close)
            source = HotAddedSource(
                image,
                reason=f"{reason}; hot-added as {device}",
                detach=lambda: self._detach(entry, device),
            )
            undo.pop_all()
            return source

    def _frozen(self, session: Session) -> tuple[VirtualDisk, str]:
        """The disk as its snapshot has it, and its uuid."""
        if self._disk.snapshot is None:
            raise HotAddImpossibleError(self._what, why="no snapshot has frozen it")
        found = next((one for one in frozen_disks(session, self._disk.snapshot) if one.key == self._disk.key), None)
        if found is None or found.path != self._disk.path:
            raise HotAddImpossibleError(
                self._what, why=f"snapshot {self._disk.snapshot} has {found.path if found else 'no such disk'}"
            )
        if found.controller == "ide" or found.size_bytes > LARGEST_HOT_ADD_BYTES:
            raise HotAddImpossibleError(self._what, why="it is an IDE disk, or larger than 62 TB")
        if not found.uuid:
            raise HotAddImpossibleError(self._what, why="vCenter knows no uuid of it, by which the guest shows it")
        return found, found.uuid

    def _attach(self, session: Session, frozen: VirtualDisk, uuid: str) -> Entry:
        """Called while no other process of this proxy attaches anything."""
        proxy = hot_add.own_vm(session, self._vsphere.offer.product_uuid or "")
        if proxy == self._disk.vm:
            raise HotAddImpossibleError(self._what, why="it is a disk of this proxy's own VM")
        for entry in self._journal.left_behind():
            if entry.attachment.vcenter == self._disk.vcenter:
                try:
                    _detach_entry(session, entry, self._vsphere, self._pace)
                except ProxyfleetError as error:
                    log.warning("%s, of an earlier task, is still attached: %s", entry.attachment.path, error)
        own = read_vm(session, proxy)
        self._require_uuids(own)
        journalled = self._journal.all()
        _report_stray(own, journalled)
        in_use = uuid in {one.uuid for one in journalled}
        if in_use or not self._guest.wait_until_gone(uuid, timeout_s=self._pace.vanish_s):
            raise GuestDiskAmbiguousError(
                self._what,
                why=f"another disk with the same uuid {uuid} is attached to this proxy",
                remedy="Give the copy of the disk a uuid of its own (vmkfstools -J setuuid).",
            )
        entry = self._journal.write(
            Attachment(vcenter=self._disk.vcenter, proxy_vm=proxy, path=self._disk.path, uuid=uuid)
        )
        try:
            self._repeat(lambda: hot_add.attach(session, proxy, frozen, self._pace.task))
        except BaseException:
            self._detach(entry, None, session)  # it may have been attached for all that
            raise
        return entry

    def _require_uuids(self, own: Vm) -> None:
        """Raise DiskUuidsHiddenError unless the guest sees uuids: its VM's settings say so, or it knows a disk."""
        if own.shows_disk_uuids or any(one.uuid and self._guest.find(one.uuid) for one in own.disks):
            return
        raise DiskUuidsHiddenError(
            self._what,
            why=f"the proxy's VM {own.name} has no disk.EnableUUID, so that the guest can't tell its disks apart",
            remedy="Power the proxy's VM off, set disk.EnableUUID = TRUE in its advanced settings, start it again.",
        )

    def _repeat(self, attach: Callable[[], object]) -> None:
        """Attach; again where somebody else changes the proxy's VM just now, or has the disk for a moment."""
        pause_s = self._pace.first_pause_s
        for left in reversed(range(self._pace.tries)):
            try:
                attach()
            except (ConflictError, VsphereError) as error:
                if not left or not error.retryable:
                    raise
                log.info("%s yet: %s", self._what, error)
                time.sleep(pause_s)
                pause_s *= 2
            else:
                return

    def _detach(self, entry: Entry, device: Path | None, session: Session | None = None) -> None:
        """Detach; what can't be detached stays in the journal and is tried again, so that no read fails for it."""
        if device is not None:
            self._guest.forget(device, entry.attachment.uuid)
        pause_s = self._pace.first_pause_s
        for left in reversed(range(self._pace.tries)):
            try:
                if session is not None:
                    _detach_entry(session, entry, self._vsphere, self._pace)
                    return
                with self._vsphere.sessions(self._disk.vcenter).borrow() as borrowed:
                    _detach_entry(borrowed, entry, self._vsphere, self._pace)
                    return
            except ProxyfleetError as error:
                if not left:
                    entry.leave()
                    log.warning("%s stays attached to this proxy for now: %s", entry.attachment.path, error)
                    return
                log.info("detaching %s is tried again: %s", entry.attachment.path, error)
                time.sleep(pause_s)
                pause_s *= 2


def journal_of(vsphere: VsphereAccess) -> AttachmentJournal:
    """The journal of the disks that this proxy hot-adds."""
    return AttachmentJournal(vsphere.state_dir / attachments.FOLDER)


def detach_left_behind(vsphere: VsphereAccess, pace: Pace | None = None) -> tuple[str, ...]:
    """Detach every disk that dead processes of this proxy have left attached; returns why some still are.

    Raises AttachmentJournalError when the journal itself can't be read.
    """
    pace = pace or Pace()
    unreachable: dict[VcenterReference, str] = {}
    reasons = defaultdict(list)
    for entry in journal_of(vsphere).left_behind():
        vcenter, path = entry.attachment.vcenter, entry.attachment.path
        if vcenter not in unreachable:
            try:
                with vsphere.sessions(vcenter).borrow() as session:
                    _detach_entry(session, entry, vsphere, pace)
                log.warning("%s, which a process that has ended had left attached, is detached", path)
                continue
            except ProxyfleetError as error:
                unreachable[vcenter] = str(error)
        reasons[unreachable[vcenter]].append(path)
    return tuple(f"{', '.join(paths)} of an earlier task: {why}" for why, paths in reasons.items())


def _detach_entry(session: Session, entry: Entry, vsphere: VsphereAccess, pace: Pace) -> None:
    """Detach a disk wherever this proxy's VM has it, and forget it."""
    path = entry.attachment.path
    try:
        _detach_from(session, entry.attachment.proxy_vm, path, pace)
    except VsphereObjectGoneError:  # the VM was registered anew, or is gone with all it had
        try:
            again = hot_add.own_vm(session, vsphere.offer.product_uuid or "")
        except NotFoundError:
            log.warning("the VM that %s was attached to is gone", path)
        else:
            _detach_from(session, again, path, pace)
    entry.forget()


def _detach_from(session: Session, proxy: str, path: str, pace: Pace) -> None:
    hot_add.settle(session, proxy, pace.task)
    # A disk of the proxy's own, which by now may be called so, is never attached in this mode.
    hanging = [one for one in hot_add.attached(session, proxy) if one.path == path]
    if any(one.mode == hot_add.READ_ONLY_MODE for one in hanging):
        hot_add.detach(session, proxy, [path], pace.task)


_reported: set[str] = set()


def _report_stray(own: Vm, journalled: tuple[Attachment, ...]) -> None:
    known = {one.path for one in journalled}
    for one in own.disks:
        if one.mode == hot_add.READ_ONLY_MODE and one.path is not None and one.path not in known | _reported:
            _reported.add(one.path)
            log.warning(
                "%s hangs at this proxy's VM as %s, and the proxy doesn't know why. "
                "If another backup left it there, detach it in vCenter, without deleting its files",
                one.path,
                one.place,
            )
