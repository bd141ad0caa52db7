"""Which disks of a VM a restore point doesn't hold, since its job left them out: a restore says so."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.state.models import Point, VmRun


def left_out(session: Session, point: Point) -> tuple[str, ...]:
    """Their keys, as the run that made the point saw the VM in its vCenter; none where no such run is known."""
    seen = session.scalars(
        select(VmRun.place).where(
            VmRun.vm_id == point.vm_id, VmRun.repository_run == point.point, VmRun.place.is_not(None)
        )
    ).first()
    held = {disk.key for disk in point.disks}
    return tuple(key for key in seen.excluded_disks if key not in held) if seen is not None else ()


def warning(session: Session, point: Point) -> str | None:
    """What someone who restores the whole VM should know: what is missing, and which point has it."""
    missing = left_out(session, point)
    if not missing:
        return None
    text = f"restore point {point.point} doesn't hold {', '.join(missing)}: its job left that out"
    others = session.scalars(
        select(Point).where(Point.vm_id == point.vm_id).order_by(Point.created_at.desc(), Point.point.desc())
    )
    for other in others:
        if set(missing) <= {disk.key for disk in other.disks}:
            return f"{text}; point {other.point} in repository {other.repository} holds it"
    return f"{text}, and no other point of the VM holds it"
