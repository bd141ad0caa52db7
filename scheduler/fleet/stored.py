"""Between declarations and the database's rows: what it holds as a `Fleet`, and changes carried out on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from scheduler.fleet import models
from scheduler.fleet.changes import Change, changes
from scheduler.fleet.dispatching import Dispatch, Latency
from scheduler.planning.criteria import Criteria
from scheduler.planning.traffic import TrafficRule
from scheduler.state.columns import Record
from scheduler.state.declared import Datastore, Job, NbdDisk, Proxy, Repository, Site, Vcenter, Vm
from scheduler.state.dispatching import FLEET, DispatchSettings
from scheduler.state.errors import RunActiveError
from scheduler.state.notifying import Notification
from scheduler.state.recorded import Point, Run, RunState
from scheduler.state.traffic import DeclaredTrafficRule

_ROWS: dict[str, type[Record]] = {
    "site": Site,
    "vcenter": Vcenter,
    "datastore": Datastore,
    "repository": Repository,
    "proxy": Proxy,
    "vm": Vm,
    "job": Job,
    "notification": Notification,
    "traffic_rule": DeclaredTrafficRule,
    "dispatch": DispatchSettings,
}
_SECONDS_PER_MINUTE = 60


def stored_fleet(session: Session) -> models.Fleet:
    """The declarations that the database holds, each kind in the order of its names."""
    return models.Fleet(
        site=tuple(models.Site(name=row.name) for row in session.scalars(select(Site).order_by(Site.name))),
        vcenter=tuple(stored_vcenter(row) for row in session.scalars(select(Vcenter).order_by(Vcenter.name))),
        datastore=tuple(
            models.Datastore(
                name=row.name,
                kind=row.kind,
                site=row.site,
                vcenter=row.vcenter,
                vsphere_name=row.vsphere_name,
                max_concurrent_tasks=row.max_concurrent_tasks,
                latency=_latency(row.latency_stop_ms, row.latency_throttle_ms),
            )
            for row in session.scalars(select(Datastore).order_by(Datastore.name))
        ),
        repository=tuple(
            models.Repository(
                name=row.name,
                location=row.location,
                site=row.site,
                credential=row.credential,
                host=row.host,
                proxies=row.proxies,
                preferred_proxies=row.preferred_proxies or (),
                max_concurrent_tasks=row.max_concurrent_tasks,
                collect=models.Collection(
                    cron=row.collect_cron,
                    timezone=row.collect_timezone,
                    hours=row.collect_hours,
                    mib_per_second=row.collect_mib_per_s,
                )
                if row.collect_cron is not None
                else None,
                prove=models.Proof(
                    days=row.prove_days,
                    cron=row.prove_cron,
                    timezone=row.prove_timezone,
                    hours=row.prove_hours,
                    mib_per_second=row.prove_mib_per_s,
                    samples=row.prove_samples,
                ),
                hardened=row.hardened,
                linked=row.linked,
            )
            for row in session.scalars(select(Repository).order_by(Repository.name))
        ),
        proxy=tuple(
            models.Proxy(
                name=row.name,
                site=row.site,
                max_concurrent_tasks=row.max_concurrent_tasks,
                transport_mode=models.ModeChoice(row.transport_mode),
                datastores=row.datastores,
                enabled=row.enabled,
                description=row.description,
                server=row.server,
            )
            for row in session.scalars(select(Proxy).order_by(Proxy.name))
        ),
        vm=tuple(
            models.Vm(
                name=row.name,
                disks=tuple(models.VmDisk(key=disk.key, nbd_uri=disk.nbd_uri) for disk in row.disks),
            )
            for row in session.scalars(select(Vm).order_by(Vm.name))
        ),
        job=tuple(stored_job(row) for row in session.scalars(select(Job).order_by(Job.name))),
        notification=tuple(
            models.Notification(
                name=row.name,
                when=row.when,
                jobs=row.jobs,
                webhook=row.webhook,
                email=row.email,
                enabled=row.enabled,
            )
            for row in session.scalars(select(Notification).order_by(Notification.name))
        ),
        traffic_rule=stored_traffic_rules(session),
        dispatch=stored_dispatch(session),
    )


def stored_traffic_rules(session: Session) -> tuple[TrafficRule, ...]:
    """All traffic rules, in the order of their names."""
    rows = session.scalars(select(DeclaredTrafficRule).order_by(DeclaredTrafficRule.name))
    return tuple(row.rule() for row in rows)


def stored_vcenter(row: Vcenter) -> models.Vcenter:
    """The declaration that a row of the database stands for."""
    return models.Vcenter(
        name=row.name,
        host=row.host,
        port=row.port,
        user=row.user,
        credential=row.credential,
        thumbprint=row.thumbprint,
        ca_file=row.ca_file,
        max_sessions=row.max_sessions,
        site=row.site,
    )


def stored_job(row: Job) -> models.Job:
    """The declaration that a row of the database stands for."""
    return models.Job(
        name=row.name,
        kind=row.kind,
        vms=row.vms,
        select=row.criteria.select,
        exclude=row.criteria.exclude,
        exclude_disks=row.criteria.exclude_disks,
        templates=row.criteria.templates,
        quiesce=row.quiesce,
        copy_from=row.copy_from,
        replica=row.replica,
        repository=row.repository,
        level=row.level,
        transport_mode=models.ModeChoice(row.transport_mode),
        failover_to_network=row.failover_to_network,
        priority=row.priority,
        window=row.window,
        proxies=row.proxies,
        preferred_proxies=row.preferred_proxies or (),
        schedule=models.Schedule(cron=row.cron, timezone=row.timezone) if row.cron is not None else None,
        retries=models.Retries(count=row.retry_count, wait_minutes=row.retry_wait_seconds / _SECONDS_PER_MINUTE),
        retention=row.retention,
        enabled=row.enabled,
    )


def stored_dispatch(session: Session) -> Dispatch:
    """How all jobs share the fleet."""
    row = session.get(DispatchSettings, FLEET)
    if row is None:
        return Dispatch()
    latency = Latency(stop_ms=row.latency_stop_ms, throttle_ms=row.latency_throttle_ms)
    return Dispatch(
        patience_seconds=row.patience_seconds,
        window=row.window,
        latency=latency,
        preferred_networks=row.preferred_networks or (),
    )


def carry_out(session: Session, wanted: Sequence[Change]) -> None:
    """Make the database say what `wanted`, which `changes` computed from it in this transaction, asks for.

    Raises `RunActiveError` when a job that is to be removed has a run that hasn't ended.
    """
    for change in wanted:
        row_type = _ROWS[change.kind]
        row = session.get(row_type, change.name)
        if change.new is not None:
            if row is None:
                row = row_type(name=change.name)
                session.add(row)
            for column, value in _columns(change.new).items():
                setattr(row, column, value)
        elif row is not None:
            _remove(session, row)
        session.flush()  # in this order, so that references hold at every step


def apply_fleet(session: Session, wanted: models.Fleet, *, dry_run: bool = False) -> tuple[Change, ...]:
    """Make the database equal to `wanted` and return what that changed, or with `dry_run` would change."""
    needed = changes(stored_fleet(session), wanted)
    if not dry_run:
        carry_out(session, needed)
    return needed


def _remove(session: Session, row: Record) -> None:
    if isinstance(row, Job):
        active = session.scalars(select(Run).where(Run.job == row.name)).all()
        running = [run for run in active if not RunState(run.state).final]
        if running:
            raise RunActiveError(
                f"job {row.name!r} can't be removed",
                why=f"its run {running[0].id} hasn't ended",
                remedy=f"Wait for it, or cancel it with `scheduler run cancel {running[0].id}`.",
            )
    if isinstance(row, Repository):
        # Only the catalogue forgets: the points stay where they are, and a rescan brings them back.
        session.execute(delete(Point).where(Point.repository == row.name))
    session.delete(row)


def _latency(stop_ms: float | None, throttle_ms: float | None) -> Latency | None:
    return None if stop_ms is None or throttle_ms is None else Latency(stop_ms=stop_ms, throttle_ms=throttle_ms)


def _columns(declared: models.Declaration | Dispatch) -> dict[str, Any]:
    columns = {key: getattr(declared, key) for key in type(declared).model_fields}
    if "latency" in columns:
        latency = columns.pop("latency")
        columns["latency_stop_ms"] = latency.stop_ms if latency is not None else None
        columns["latency_throttle_ms"] = latency.throttle_ms if latency is not None else None
    if isinstance(declared, models.Vm):
        columns["disks"] = tuple(NbdDisk(key=disk.key, nbd_uri=disk.nbd_uri) for disk in declared.disks)
    if isinstance(declared, models.Repository):
        collect = columns.pop("collect")
        columns["collect_cron"] = collect.cron if collect is not None else None
        columns["collect_timezone"] = collect.timezone if collect is not None else "UTC"
        columns["collect_hours"] = collect.hours if collect is not None else None
        columns["collect_mib_per_s"] = collect.mib_per_second if collect is not None else None
        columns["collect_at"] = None
        proof = columns.pop("prove")
        columns["prove_mib_per_s"] = proof.mib_per_second
        columns |= {f"prove_{key}": getattr(proof, key) for key in ("days", "cron", "timezone", "hours", "samples")}
        columns["prove_at"] = None
    if isinstance(declared, models.Job):
        columns["criteria"] = Criteria(**{key: columns.pop(key) for key in Criteria.model_fields})
        schedule, retries = columns.pop("schedule"), columns.pop("retries")
        columns["cron"] = schedule.cron if schedule is not None else None
        columns["timezone"] = schedule.timezone if schedule is not None else "UTC"
        columns["retry_count"] = retries.count
        columns["retry_wait_seconds"] = retries.wait_minutes * _SECONDS_PER_MINUTE
    if "transport_mode" in columns:
        columns["transport_mode"] = str(columns["transport_mode"])
    return columns
