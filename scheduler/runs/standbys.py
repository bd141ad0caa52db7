"""Replicas that stand by: patterns and selections of backup jobs find them among the VMs, and don't mean them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.planning.candidates import Candidate
from scheduler.planning.replicas import place_of
from scheduler.state.models import Replica, ReplicaState, Run

_STANDS_BY: Final = (ReplicaState.NEW, ReplicaState.STANDBY, ReplicaState.FAILED_BACK)


def without_standbys(session: Session, run: Run, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The VMs that a run may back up: of replicas those that work in their original's place, or that it names."""
    standbys = session.scalars(select(Replica).where(Replica.state.in_(_STANDS_BY))).all()
    places = {replica.place for replica in standbys}
    in_vcenters = {replica.uuid for replica in standbys if replica.machine is not None}
    return [
        vm
        for vm in candidates
        if vm.identity.name in run.vms
        or (place_of(vm.configuration) not in places and vm.identity.vm_id not in in_vcenters)
    ]
