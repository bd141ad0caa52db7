"""Names for shell completion, from the database when it can be read; otherwise none, and never an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zoneinfo import available_timezones

import typer
from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.cli.live import LedgerWindow
from scheduler.cli.opening import opened_state
from scheduler.state.models import (
    Datastore,
    DeclaredTrafficRule,
    Job,
    Notification,
    Point,
    Proxy,
    Replica,
    ReplicaPoint,
    Repository,
    Restore,
    Run,
    Site,
    Vcenter,
    VcenterVm,
    Vm,
    VmRestore,
)

NEWEST_RUNS = 50


def jobs(incomplete: str) -> list[str]:
    """Names of jobs."""
    return _matching(incomplete, lambda session: session.scalars(select(Job.name)).all())


def repositories(incomplete: str) -> list[str]:
    """Names of repositories."""
    return _matching(incomplete, lambda session: session.scalars(select(Repository.name)).all())


def vms(incomplete: str) -> list[str]:
    """Names of VMs that have restore points, are declared, or were seen in a vCenter."""
    return _matching(
        incomplete,
        lambda session: [
            name for names in (Point.vm_name, Vm.name, VcenterVm.name) for name in _all(session, names)
        ],
    )


def vcenters(incomplete: str) -> list[str]:
    """Names of vCenters."""
    return _matching(incomplete, lambda session: _all(session, Vcenter.name))


def datastores(incomplete: str) -> list[str]:
    """Names of datastores that are declared."""
    return _matching(incomplete, lambda session: _all(session, Datastore.name))


def folders(incomplete: str) -> list[str]:
    """Folders with VMs."""
    return _matching(incomplete, lambda session: _all(session, VcenterVm.folder))


def tags(incomplete: str) -> list[str]:
    """Tags of VMs, with their categories."""
    return _matching(
        incomplete, lambda session: [tag for tags in session.scalars(select(VcenterVm.tags)) for tag in tags]
    )


def disks(incomplete: str, ctx: typer.Context | None = None) -> list[str]:
    """Keys of disks that have been backed up, of the VM that the command names if it does."""
    columns = select(Point.disks).where(_is_of_vm(ctx))
    return _matching(incomplete, lambda session: [disk.key for disks in session.scalars(columns) for disk in disks])


def points(incomplete: str, ctx: typer.Context | None = None) -> list[str]:
    """Ids of restore points, of the VM that the command names if it does."""
    ids = select(Point.point).where(_is_of_vm(ctx))
    return _matching(incomplete, lambda session: session.scalars(ids).all())


def replicas(incomplete: str) -> list[str]:
    """Names of replicas, and of the VMs that they stand for."""
    return _matching(
        incomplete,
        lambda session: [name for names in (Replica.name, Replica.vm_name) for name in _all(session, names)],
    )


def replica_points(incomplete: str, ctx: typer.Context | None = None) -> list[str]:
    """Ids of replicas' restore points, of the replica that the command names if it does."""
    ids = select(ReplicaPoint.point)
    if named := _given(ctx, "replica"):
        of_replica = or_(Replica.name == named, Replica.vm_name == named)
        ids = ids.join(Replica, ReplicaPoint.replica_id == Replica.id).where(of_replica)
    return _matching(incomplete, lambda session: session.scalars(ids).all())


def runs(incomplete: str) -> list[str]:
    """Ids of the newest runs."""
    newest = select(Run.id).order_by(Run.created_at.desc()).limit(NEWEST_RUNS)
    return _matching(incomplete, lambda session: session.scalars(newest).all())


def restores(incomplete: str) -> list[str]:
    """Ids of the newest restores, of disks and of VMs."""
    return _matching(
        incomplete,
        lambda session: [
            restore_id
            for one in (Restore, VmRestore)
            for restore_id in session.scalars(select(one.id).order_by(one.created_at.desc()).limit(NEWEST_RUNS))
        ],
    )


def sites(incomplete: str) -> list[str]:
    """Names of sites that are declared."""
    return _matching(incomplete, lambda session: _all(session, Site.name))


def time_zones(incomplete: str) -> list[str]:
    """Names of time zones."""
    return sorted(name for name in available_timezones() if name.startswith(incomplete))


def notifications(incomplete: str) -> list[str]:
    """Names of notifications."""
    return _matching(incomplete, lambda session: _all(session, Notification.name))


def traffic_rules(incomplete: str) -> list[str]:
    """Names of traffic rules."""
    return _matching(incomplete, lambda session: _all(session, DeclaredTrafficRule.name))


def proxies(incomplete: str) -> list[str]:
    """Names of proxies that are declared or have registered."""
    registered: Sequence[str] = ()
    try:
        view = LedgerWindow().look().view
        registered = tuple(view.proxies) if view is not None else ()
    except ProxyfleetError:
        pass  # those that are declared are better than none
    return _matching(incomplete, lambda session: [*_all(session, Proxy.name), *registered])


def _is_of_vm(ctx: typer.Context | None) -> ColumnElement[bool]:
    named = _given(ctx, "vm")
    return or_(Point.vm_name == named, Point.vm_id == named) if named else true()


def _given(ctx: typer.Context | None, parameter: str) -> str | None:
    """What stands on the line so far for a parameter of the command."""
    return ctx.params.get(parameter) if ctx is not None else None


def _all(session: Session, column: InstrumentedAttribute[str]) -> Sequence[str]:
    return session.scalars(select(column).distinct()).all()


def _matching(incomplete: str, names: Callable[[Session], Sequence[str]]) -> list[str]:
    try:
        with opened_state() as state, state.read() as session:
            found = names(session)
    except ProxyfleetError:
        return []
    return sorted({name for name in found if name.startswith(incomplete)})
