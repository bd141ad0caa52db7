"""Two sites with a job that replicates from one to the other, by proxies that move no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import select

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.replication import ReplicaPlace
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from scheduler.planning.replicas import ReplicaTerms
from scheduler.replication.asking import ask_for
from scheduler.service import Service
from scheduler.state.asking import ask_for_run
from scheduler.state.models import (
    Datastore,
    Job,
    JobKind,
    LedgerTask,
    Replica,
    ReplicaOperation,
    ReplicaOperationKind,
    ReplicaPoint,
    Run,
    RunState,
    Site,
    VmRun,
    WorkState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
from tests.simulators.replicas import Folder

Kind = ReplicaOperationKind
ORIGINAL = ReplicaPlace(datastore="ds1", folder="app01")
REPLICA = ReplicaPlace(datastore="ds2", folder="app01_replica")
IN_PLACE = (TransportMode.DIRECT_STORAGE,)


def machine(name: str, *keys: str, datastore: str = "ds1") -> InventoryVm:
    """A VM in a folder of its own."""
    disks = tuple(
        DiskIdentity(
            key=key, address=DiskAddress(datastore=datastore, path=f"{name}/{key}.vmdk"), size_bytes=1 << 30
        )
        for key in keys
    )
    vmx = DiskAddress(datastore=datastore, path=f"{name}/{name}.vmx")
    identity = VmIdentity(vm_id=f"id-{name.replace('_', '-')}", name=name)
    return InventoryVm(identity=identity, disks=disks, configuration=(vmx,))


@dataclass
class Sites:
    """A scheduler, a proxy at each of two sites, and a job that replicates from one to the other."""

    world: World
    service: Service
    state: State

    def run(self) -> RunState:
        """Run the job to its end."""
        with self.state.write() as session:
            run_id = ask_for_run(session, "away", now=self.world.clock()).id
        self.world.turn_until(self.service, lambda: self.run_of(run_id).state.final)
        self.world.clock.ahead_s += 2
        return self.run_of(run_id).state

    def ask(self, kind: Kind, point: str | None = None) -> WorkState:
        """Have something done with the replica, to its end."""
        with self.state.write() as session:
            operation_id = ask_for(session, kind, "app01", now=self.world.clock(), point=point).id
        self.world.turn_until(self.service, lambda: self.operation(operation_id).state.final)
        self.world.clock.ahead_s += 2
        return self.operation(operation_id).state

    def settle(self) -> None:
        """Wait until nothing is left to do."""

        def nothing() -> bool:
            with self.state.read() as session:
                return session.scalars(select(LedgerTask).limit(1)).first() is None

        self.world.turn_until(self.service, nothing)

    @property
    def replica(self) -> Replica:
        with self.state.read() as session:
            return session.scalars(select(Replica)).one()

    @property
    def points(self) -> list[str]:
        with self.state.read() as session:
            return list(session.scalars(select(ReplicaPoint.point).order_by(ReplicaPoint.created_at)))

    @property
    def folders(self) -> dict[ReplicaPlace, Folder]:
        return self.world.fleet.replicas.folders

    def reasons(self) -> list[str]:
        """Why VMs failed."""
        with self.state.read() as session:
            return [reason for reason in session.scalars(select(VmRun.reason).order_by(VmRun.started_at)) if reason]

    def run_of(self, run_id: str) -> Run:
        with self.state.read() as session:
            return session.get_one(Run, run_id)

    def operation(self, operation_id: str) -> ReplicaOperation:
        with self.state.read() as session:
            return session.get_one(ReplicaOperation, operation_id)


def prepare(world: World, *, proxies: int = 2, points: int = 2) -> None:
    """Two sites, and what they have."""
    world.fleet.inventory = {"ds1": (machine("app01", "scsi0:0", "scsi0:1"),), "ds2": ()}
    state = open_state(world.url, migrate=True)
    with state.write() as session:
        session.add_all(Site(name=name) for name in ("primary", "remote"))
        session.flush()
        session.add(Datastore(name="ds1", site="primary"))
        session.add(Datastore(name="ds2", site="remote"))
        terms = ReplicaTerms(datastore="ds2", points=points)
        job = Job(name="away", kind=JobKind.REPLICATION, vms=("app*",), replica=terms, retry_count=2)
        session.add(job)
    state.close()
    if proxies == 1:
        world.fleet.join("both", slots=1, datastores={"ds1": IN_PLACE, "ds2": IN_PLACE})
        return
    world.fleet.join("near", datastores={"ds1": IN_PLACE}, receives=True)
    world.fleet.join("far", site="remote", datastores={"ds2": IN_PLACE}, receives=True)


@contextmanager
def two_sites(world: World) -> Iterator[Sites]:
    """Both, with a scheduler that runs."""
    prepare(world)
    state = open_state(world.url)
    yield Sites(world, world.start(), state)
    state.close()
