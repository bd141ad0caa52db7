"""Restore points that VMs run from: kept, whatever their job or anybody says, until they are let go of."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.state.asking import pin
from scheduler.state.models import Point, VmRestore, VmRestoreState


def pin_for(session: Session, point: Point, restore: VmRestore) -> None:
    """Pin a point for a restore, unless it is; raises `PointLeavingError`."""
    if not point.pinned or _others(session, restore):
        pin(session, point, pinned=True)
        restore.pinned = True


def unpin(session: Session, restore: VmRestore) -> None:
    """Take the pin off, unless another VM runs from the same point."""
    restore.pinned = False
    point = session.get(Point, (restore.repository, restore.vm_id, restore.point))
    if point is not None and not _others(session, restore):
        pin(session, point, pinned=False)


def _others(session: Session, restore: VmRestore) -> bool:
    """Whether another restore has pinned the same point."""
    active = [state for state in VmRestoreState if not state.final]
    others = select(VmRestore.id).where(
        VmRestore.id != restore.id,
        VmRestore.pinned,
        VmRestore.state.in_(active),
        VmRestore.repository == restore.repository,
        VmRestore.vm_id == restore.vm_id,
        VmRestore.point == restore.point,
    )
    return session.scalars(others.limit(1)).first() is not None
