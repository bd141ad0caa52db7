"""Replicas that stand by: patterns and selections of backup jobs find them among the VMs, and don't mean them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.replication import ReplicaPlace
from scheduler.planning.candidates import Candidate
from scheduler.planning.replicas import place_of
from scheduler.state.models import Replica, ReplicaState, Run

_STANDS_BY: Final = (ReplicaState.NEW, ReplicaState.STANDBY, ReplicaState.FAILED_BACK)


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
    """Those that there are now."""
    found = session.scalars(select(Replica).where(Replica.state.in_(_STANDS_BY))).all()
    return Standbys(
        frozenset(replica.place for replica in found),
        frozenset(replica.uuid for replica in found if replica.machine is not None),
    )


def without_standbys(session: Session, run: Run, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The VMs that a run may back up: of replicas those that work in their original's place, or that it names."""
    found = standbys(session)
    return [vm for vm in candidates if found.may_be_taken(vm, run.vms)]
