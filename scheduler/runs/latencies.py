"""Which vCenters' datastores are measured, those that are declared, and what was measured."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import select

from scheduler.runs.steps import account_of
from scheduler.state.models import Datastore, Vcenter
from scheduler.state.store import State
from scheduler.vcenters.latency import Watched


def watched_datastores(state: State) -> tuple[Watched, ...]:
    """Every vCenter that has a declared datastore, as it is declared now."""
    declared: defaultdict[str, dict[str, str]] = defaultdict(dict)
    with state.read() as session:
        for row in session.scalars(select(Datastore).where(Datastore.vcenter.is_not(None))):
            called = (row.vsphere_name or row.name).rpartition("/")[2]
            declared[row.vcenter or ""][called] = row.name
        vcenters = session.scalars(select(Vcenter).where(Vcenter.name.in_(declared)))
        return tuple(Watched(account_of(row), declared[row.name]) for row in vcenters)


def record_latencies(state: State, latency_ms: Mapping[str, float]) -> None:
    """Keep what was measured just now, by datastore."""
    if not latency_ms:
        return
    with state.write() as session:
        for row in session.scalars(select(Datastore).where(Datastore.name.in_(latency_ms))):
            row.latency_ms, row.latency_at = latency_ms[row.name], time.time()
