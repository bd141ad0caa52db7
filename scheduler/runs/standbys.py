"""Replicas that stand by: patterns and selections of backup jobs find them among the VMs, and don't mean them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaPlace
from scheduler.planning.candidates import Candidate
from scheduler.planning.replicas import place_of
from scheduler.state.models import Replica, ReplicaState, Run, VmRun, VmRunState

_STANDS_BY: Final = (ReplicaState.STANDBY, ReplicaState.FAILED_BACK)


@dataclass(frozen=True)
class Standbys:
    """The replicas that stand by at one moment."""

    places: frozenset[ReplicaPlace]
    in_vcenters: frozenset[str | None]
    """The ids of those that are VMs of vCenters."""

    def may_be_taken(self, vm: Candidate, named: Sequence[str]) -> bool:
        """Whether a backup job that names `named`, VMs or patterns, may take `vm`."""
        if vm.identity.name in named:
            return True
        return place_of(vm.configuration) not in self.places and vm.identity.vm_id not in self.in_vcenters


def standbys(session: Session) -> Standbys:
    """Those that there are now, and those that are being made.

    Where one was never made there may be another VM, which was there first and is why.
    """
    at_work = VmRun.state.not_in([state for state in VmRunState if state.final])
    being_made = and_(Replica.state == ReplicaState.NEW, exists().where(VmRun.replica_id == Replica.id, at_work))
    found = session.scalars(select(Replica).where(or_(Replica.state.in_(_STANDS_BY), being_made))).all()
    return Standbys(
        frozenset(replica.place for replica in found),
        frozenset(replica.uuid for replica in found if replica.machine is not None),
    )


def without_standbys(session: Session, run: Run, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The VMs that a run may back up: of replicas those that work in their original's place, or that it names."""
    found = standbys(session)
    return [vm for vm in candidates if found.may_be_taken(vm, run.vms)]
