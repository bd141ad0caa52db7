"""What a VM run that replicates writes: a disk of its replica for each of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaSeed, ReplicaTarget
from proxy_worker.contract.subjects import RepositoryReference
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication import tasks
from scheduler.replication.places import reached
from scheduler.runs.opening import Opened
from scheduler.runs.warnings import warn
from scheduler.state.models import Point, Replica, ReplicaState, Repository, Run, VmRun


def targets_of(session: Session, terms: ReplicaTerms | None, replica: Replica) -> dict[str, ReplicaTarget]:
    """The disks of a replica, by their keys."""
    seeds = _seeds(session, terms, replica)
    place = reached(replica)
    return {
        disk.key: ReplicaTarget(place=place, disk=disk, seed=seeds.get(disk.key), original=replica.vm_id)
        for disk in replica.disks
    }


def with_targets(session: Session, run: Run, vm_run: VmRun, disks: Iterable[Opened]) -> list[Opened] | None:
    """The frozen disks of a vCenter's VM, with what is written; one that came since it was planned is left out.

    None where one has gone since: its replica's restore point would be of two moments.
    """
    targets = targets_of(session, run.replica, session.get_one(Replica, vm_run.replica_id))
    found = []
    for disk in disks:
        if disk.key in targets:
            found.append(replace(disk, target=targets[disk.key]))
        else:
            warn(vm_run, f"{disk.key} is left out: it was added while the run began, and goes with the next one")
    return found if len(found) == len(targets) else None


def _seeds(session: Session, terms: ReplicaTerms | None, replica: Replica) -> dict[str, ReplicaSeed]:
    """What a new replica's disks begin with, by key: the newest restore point in the job's seed."""
    if terms is None or terms.seed is None or replica.state is not ReplicaState.NEW or replica.mapped:
        return {}
    declared = session.get(Repository, terms.seed)
    of_vm = select(Point).where(Point.repository == terms.seed, Point.vm_id == replica.vm_id)
    newest = session.scalars(of_vm.order_by(Point.created_at.desc())).first()
    if declared is None or newest is None:
        return {}
    reference = RepositoryReference(name=declared.name, location=declared.location, credential=declared.credential)
    vm = tasks.original_of(replica)
    return {
        disk.key: ReplicaSeed(repository=reference, vm=vm, run=newest.point, disk_key=disk.key)
        for disk in newest.disks
    }
