"""A scheduler over a real database and a real ledger, with proxies that move no data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from proxy_worker.ledger import Ledger, Timings
from proxy_worker.vsphere.session import Patience, Session
from scheduler.runs.handling import KINDS
from scheduler.service import Service
from scheduler.state import store
from scheduler.state.access import DatabaseAccess
from scheduler.state.models import Datastore, Job, Repository, Site, VmRun
from scheduler.state.store import State, open_state
from scheduler.vcenters.executor import Executor
from tests.postgresql_server import PASSWORD, PostgresqlServer
from tests.scheduler.databases import engine_of_tests, set_up
from tests.scheduler.vcenters import VsphereWorld
from tests.simulators.proxies import Lanes, SimulatedFleet
from tests.simulators.vsphere.simulator import PASSWORD as VCENTER_PASSWORD
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.conftest import IMPATIENT

QUICK = Timings(lease_s=0.5)
"""A ledger that lost its data gives out nothing for one lease."""


@dataclass
class Clock:
    """The scheduler's clock: real, and further ahead whenever a test says so."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class World:
    """A scheduler that can be killed and started again, and its surroundings."""

    url: str
    ledger_url: str
    password: str
    fleet: SimulatedFleet
    lanes: Lanes
    clock: Clock = field(default_factory=Clock)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    opened: list[Ledger] = field(default_factory=list)
    new_executor: Callable[[], Executor] | None = None
    """Makes what performs steps at vCenters; None: there are none."""

    def start(self, state: State | None = None) -> Service:
        """A scheduler's new life."""
        ledger = Ledger(self.ledger_url, password=self.password)
        self.opened.append(ledger)
        opened = state if state is not None else open_state(self.url, migrate=True)
        executor = self.new_executor() if self.new_executor is not None else None
        service = Service(
            opened, ledger, self.lanes.publish, self.key, clock=self.clock, timings=QUICK, executor=executor
        )
        service.attach()
        service.load()
        return service

    def turn_until(self, service: Service, reached: Callable[[], bool], *, wait_out_retries: bool = True) -> None:
        """Let scheduler and proxies take turns until `reached`; skips the waits between retries."""
        deadline = time.monotonic() + 120
        idle = 0
        while not reached():
            assert time.monotonic() < deadline, f"the scheduler did not get there: {self._standstill(service)}"
            service.turn()
            busy = self.fleet.work() or self.lanes.messages
            if not busy and service.executor is not None and service.executor.running:
                service.executor.wait_for_one(1.0)
                busy = True
            idle = 0 if busy else idle + 1
            if idle > 2 and wait_out_retries:
                self.clock.ahead_s += 200

    def serve_turns(self, service: Service, count: int) -> None:
        """Have a scheduler serve for so many turns."""
        stop = threading.Event()
        turns = iter(range(count))
        service.serve(stop, lambda: None if next(turns, None) is not None else stop.set())

    def _standstill(self, service: Service) -> str:
        """What is going on, for whoever asks why a test doesn't end."""
        view = service.ledger.view()
        steps = sorted(service.executor.running) if service.executor is not None else []
        with service.state.read() as session:
            vm_runs = [f"{one.name} {one.state}" for one in session.scalars(select(VmRun))]
        live = [f"{name} {'up' if proxy.live else 'down'}" for name, proxy in view.proxies.items()]
        return f"{vm_runs}, steps {steps}, tasks {sorted(view.tasks)}, proxies {live}"

    @contextmanager
    def writing(self) -> Iterator[Database]:
        """The scheduler's database, beside it."""
        state = open_state(self.url)
        with state.write() as session:
            yield session
        state.close()

    def declare(self, **changes: object) -> None:
        """A site, a repository, the fleet's datastores, and the job `nightly`."""
        state = open_state(self.url, migrate=True)
        with state.write() as session:
            session.add(Site(name="primary"))
            session.flush()
            session.add(
                Repository(name="main", location="/backup", site="primary", credential="main", prove_days=0)
            )
            session.add_all(Datastore(name=name, site="primary") for name in self.fleet.inventory)
            session.flush()
            job: dict[str, object] = {"name": "nightly", "vms": ("*",), "repository": "main"}
            session.add(Job(**{**job, **changes}))
        state.close()


def vm(name: str, *keys: str, datastore: str = "ds1", problem: str | None = None) -> InventoryVm:
    """A VM of a datastore."""
    disks = tuple(
        DiskIdentity(key=key, address=DiskAddress(datastore=datastore, path=f"{name}/{key}.vmdk")) for key in keys
    )
    return InventoryVm(identity=VmIdentity(vm_id=f"id-{name}", name=name), disks=disks, problem=problem)


@pytest.fixture(autouse=True)
def quick_databases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than in the tests of the database itself, begin with what migrations lead to."""
    if "state" not in request.path.parts:
        monkeypatch.setattr(store, "migrate_schema", set_up)
        monkeypatch.setattr(store, "sqlite_engine", engine_of_tests)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    folder = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(folder, "secret", extra_settings=("appendfsync no",)) as server:  # nothing loses power
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        yield server


@pytest.fixture
def shared_database(postgresql: PostgresqlServer) -> DatabaseAccess:
    """An empty database on PostgreSQL."""
    return DatabaseAccess(postgresql.new_database(), PASSWORD)


@pytest.fixture
def new_world(tmp_path: Path, valkey: EmbeddedValkey) -> Iterator[Callable[[], World]]:
    """Makes worlds, one after the other: each begins with an empty database and an empty ledger."""
    made: list[World] = []

    def make() -> World:
        with redis.Redis.from_url(valkey.url, password=valkey.password) as client:
            client.flushall()
        ledger = Ledger(valkey.url, password=valkey.password)
        lanes = Lanes()
        inventory = {"ds1": (vm("app01", "scsi0:0"), vm("web01", "scsi0:0", "scsi0:1"))}
        fleet = SimulatedFleet(ledger, lanes, inventory)
        database = f"sqlite:///{tmp_path / f'scheduler-{len(made)}.db'}"
        made.append(World(database, valkey.url, valkey.password, fleet, lanes, opened=[ledger]))
        return made[-1]

    yield make
    for one in made:
        for ledger in one.opened:
            ledger.close()


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


@pytest.fixture
def new_vsphere_world(
    new_world: Callable[[], World],
    vsphere: VsphereSimulator,
    session: Session,
    tmp_path: Path,
) -> Iterator[Callable[[], VsphereWorld]]:
    """Makes worlds with a vCenter; executors are closed at the end."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "vc1.password").write_text(VCENTER_PASSWORD)
    executors: list[Executor] = []

    def executor() -> Executor:
        executors.append(Executor(KINDS, secrets, patience=Patience(1.0, 0.01, 0.1), waiting=IMPATIENT))
        return executors[-1]

    def make() -> VsphereWorld:
        world = new_world()
        world.new_executor = executor
        return VsphereWorld(world, vsphere, session)

    yield make
    for one in executors:
        one.close()


@pytest.fixture
def vsphere_world(new_vsphere_world: Callable[[], VsphereWorld]) -> VsphereWorld:
    """One of them."""
    return new_vsphere_world()
