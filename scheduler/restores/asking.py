"""How a command leaves a restore to a vCenter for `scheduler serve`: it writes what it wants.

What can be checked at once is checked here, so that a wrong name is an error of the command; whether a VM still
exists only its vCenter knows. Times are Unix seconds.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConfigurationError, ConflictError, NotFoundError
from scheduler.restores.left_out import warning
from scheduler.restores.original import Original, original_of
from scheduler.state.asking import find_point, new_id, require_staying
from scheduler.state.errors import NoSuchDiskError, NoSuchVcenterError
from scheduler.state.models import (
    Point,
    Restore,
    RestoredDisk,
    RestoreWishes,
    Vcenter,
    VcenterVm,
    VmRestore,
    VmRestoreKind,
    VmRestoreState,
)

_NAMESPACE: Final = uuid.UUID("6d5b3f0e-6c1c-4f0a-9a3e-0f8f2f2f6f10")
"""Of the instance uuids of VMs that are made as other machines."""


class NoSuchTargetError(NotFoundError):
    """The VM that is to be restored to isn't in any vCenter's inventory."""


class WhichVcenterError(ConfigurationError):
    """It isn't clear which vCenter is restored to."""


class WishConflictError(ConfigurationError):
    """What was asked for doesn't go together."""


class NotInstantError(ConfigurationError):
    """There is nothing to move: the restore isn't of a VM that runs from its restore point."""


class RestoreOverError(ConflictError):
    """It is too late: the restore has ended."""


class RestoreActiveError(ConflictError):
    """Another restore to the same VM is under way."""


def ask_for_vm_restore(
    session: Session,
    *,
    vm: str,
    wishes: RestoreWishes,
    now: float,
    point: str | None = None,
    repository: str | None = None,
    name: str | None = None,
    vcenter: str | None = None,
    overwrite: bool = False,
) -> VmRestore:
    """Ask for a VM to be restored: in its original's place, under another `name`, or over an existing VM.

    Raises `NoSuchVmError`, `NoSuchPointError`, `AmbiguousVmError`, and this module's errors.
    """
    source = find_point(session, vm, point, repository=repository)
    if overwrite and wishes.instant:
        raise WishConflictError(
            "--instant with --overwrite",
            why="a VM that runs from its restore point is made anew",
            remedy="Leave out --overwrite, and remove the VM, or restore under another --name.",
        )
    if overwrite:
        target = find_target(session, name or _known_as(session, source, vcenter), vcenter)
        return _add_existing(session, source, target, wishes, now=now)
    original = original_of(session, source.vm_id, source.point)
    where = _which(session, vcenter, original)
    restore = _restore(source, VmRestoreKind.NEW, (where, name or source.vm_name), wishes, now)
    restore.same_machine = name is None
    own = _as_uuid(source.vm_id) if restore.same_machine else None
    restore.instance_uuid = own or str(uuid.uuid5(_NAMESPACE, restore.id))
    return _add(session, restore, source)


def ask_for_disks_to_vm(
    session: Session,
    *,
    vm: str,
    disks: Sequence[str],
    to_vm: str,
    wishes: RestoreWishes,
    now: float,
    point: str | None = None,
    repository: str | None = None,
    vcenter: str | None = None,
    overwrite: bool = False,
) -> VmRestore:
    """Ask for disks to be added to an existing VM, or written over its own at the same places."""
    source = find_point(session, vm, point, repository=repository)
    target = find_target(session, to_vm, vcenter)
    wishes = wishes.model_copy(update={"disks": tuple(disks)})
    if overwrite:
        return _add_existing(session, source, target, wishes, now=now)
    restore = _restore(source, VmRestoreKind.DISK, (target.vcenter, target.name), wishes, now)
    restore.instance_uuid, restore.vm_ref = target.vm_id, target.ref
    return _add(session, restore, source)


def find_target(session: Session, name: str, vcenter: str | None = None) -> VcenterVm:
    """The VM of that name or id in the catalogue; raises `NoSuchTargetError`, `WhichVcenterError`."""
    named = select(VcenterVm).where((VcenterVm.name == name) | (VcenterVm.vm_id == name))
    if vcenter is not None:
        named = named.where(VcenterVm.vcenter == vcenter)
    found = session.scalars(named).all()
    if not found:
        raise NoSuchTargetError(
            f"VM {name!r}",
            why="no vCenter showed a VM of that name when it was last read",
            remedy="`scheduler vm list` shows them; `scheduler vcenter rescan` reads a vCenter again.",
        )
    if len(found) > 1:
        where = ", ".join(f"{one.vm_id} in {one.vcenter}" for one in found)
        raise WhichVcenterError(
            f"VM {name!r}", why=f"there are several: {where}", remedy="Name it by its id, or say which vCenter."
        )
    return found[0]


def ask_to_cancel(restore: Restore | VmRestore) -> None:
    """Ask for the end of a restore, of a disk or a VM; raises `RestoreOverError`."""
    if restore.state.final:
        raise RestoreOverError(f"restore {restore.id}", why=f"it has ended already: {restore.state}")
    restore.cancel_requested = True


def ask_to_move(restore: VmRestore) -> None:
    """Ask for the disks of a VM that runs from its restore point to move to production.

    Raises `NotInstantError`, `RestoreOverError`.
    """
    if not restore.wishes.instant:
        raise NotInstantError(f"restore {restore.id}", why="its VM doesn't run from a restore point")
    if restore.state.final or restore.state is VmRestoreState.UNDOING:
        raise RestoreOverError(f"restore {restore.id}", why=f"it is {restore.state}")
    if restore.state is VmRestoreState.RUNNING:
        restore.move_requested = True
    else:
        restore.wishes = restore.wishes.model_copy(update={"stay": False})


def find_vm_restore(session: Session, restore_id: str) -> VmRestore | None:
    """The restore of that id, or the only one whose id starts so."""
    starting = select(VmRestore).where(VmRestore.id.startswith(restore_id, autoescape=True)).limit(2)
    found = session.scalars(starting).all()
    exact = [one for one in found if one.id == restore_id] or list(found)
    return exact[0] if len(exact) == 1 else None


def _known_as(session: Session, source: Point, vcenter: str | None) -> str:
    """What a point's own VM is found by: its id where it is still catalogued, else the name it had."""
    same = select(VcenterVm.ref).where(VcenterVm.vm_id == source.vm_id)
    if vcenter is not None:
        same = same.where(VcenterVm.vcenter == vcenter)
    return source.vm_id if session.scalars(same.limit(1)).first() is not None else source.vm_name


def _add_existing(
    session: Session, source: Point, target: VcenterVm, wishes: RestoreWishes, *, now: float
) -> VmRestore:
    for option, given in (
        ("--host", wishes.host),
        ("--folder", wishes.folder),
        ("--pool", wishes.pool),
        ("--datastore", wishes.datastore or wishes.disk_datastores),
        ("--network", wishes.networks),
    ):
        if given:
            raise WishConflictError(
                f"{option} with --overwrite",
                why="an existing VM stays where it is, and keeps its configuration",
                remedy=f"Leave out {option}, or restore under another --name.",
            )
    restore = _restore(source, VmRestoreKind.OVERWRITE, (target.vcenter, target.name), wishes, now)
    restore.instance_uuid, restore.vm_ref = target.vm_id, target.ref
    return _add(session, restore, source)


def _restore(
    source: Point, kind: VmRestoreKind, target: tuple[str, str], wishes: RestoreWishes, now: float
) -> VmRestore:
    """A restore to `target`: vCenter and name of the VM."""
    vcenter, name = target
    return VmRestore(
        id=new_id(now),
        kind=kind,
        repository=source.repository,
        vm_id=source.vm_id,
        vm_name=source.vm_name,
        point=source.point,
        vcenter=vcenter,
        target_name=name,
        wishes=wishes,
        instance_uuid="",
        created_at=now,
    )


def _add(session: Session, restore: VmRestore, source: Point) -> VmRestore:
    wishes = restore.wishes
    known = {disk.key: disk for disk in source.disks}
    wanted = wishes.disks if wishes.disks is not None else tuple(known)
    for key in (*wanted, *wishes.disk_datastores):
        if key not in known:
            raise NoSuchDiskError(
                f"disk {key!r} of VM {source.vm_name!r}",
                why=f"restore point {source.point} has {', '.join(known)}",
            )
    _require_alone(session, restore)
    if wishes.disks is None and (missing := warning(session, source)) is not None:
        restore.warnings = (missing,)
    if wishes.instant:
        require_staying(session, source)
        restore.share = secrets.token_hex(16)
    session.add(restore)
    for key in wanted:
        session.add(
            RestoredDisk(
                id=f"{restore.id}.{key}", restore_id=restore.id, disk_key=key, size_bytes=known[key].size_bytes
            )
        )
    return restore


def _require_alone(session: Session, restore: VmRestore) -> None:
    active = [state for state in VmRestoreState if not state.final]
    others = select(VmRestore).where(
        VmRestore.state.in_(active),
        VmRestore.vcenter == restore.vcenter,
        (VmRestore.instance_uuid == restore.instance_uuid) | (VmRestore.target_name == restore.target_name),
    )
    if other := session.scalars(others).first():
        raise RestoreActiveError(
            f"VM {restore.target_name!r}",
            why=f"restore {other.id} to it is {other.state}",
            remedy=f"Wait for it, or `scheduler restore cancel {other.id}`.",
        )


def _which(session: Session, named: str | None, original: Original | None) -> str:
    declared = list(session.scalars(select(Vcenter.name).order_by(Vcenter.name)))
    if named is not None:
        if named not in declared:
            raise NoSuchVcenterError(
                f"vCenter {named!r}", why="no vCenter has that name", remedy="`scheduler vcenter list` shows them."
            )
        return named
    if original is not None and original.vcenter in declared:
        return original.vcenter
    if len(declared) == 1:
        return declared[0]
    if not declared:
        raise WhichVcenterError(
            "no vCenter is declared",
            why="there is nothing to restore a VM to",
            remedy="Add one by `scheduler vcenter add`, or bring its disks back by `scheduler restore disk`.",
        )
    raise WhichVcenterError(
        "--vcenter is missing", why=f"there are {', '.join(declared)}, and none is known to have had the VM"
    )


def _as_uuid(vm_id: str) -> str | None:
    try:
        return str(uuid.UUID(vm_id))
    except ValueError:
        return None
