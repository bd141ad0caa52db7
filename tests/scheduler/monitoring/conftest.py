"""A scheduler and a proxy of which there is something to say in every metric, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import TaskFailure
from proxy_worker.ledger import Ledger
from proxy_worker.node.metrics import Pulse, WorkerCollector
from proxy_worker.node.metrics import registry_of as registry_of_worker
from proxy_worker.node.tally import DiskTally, Tally
from scheduler.monitoring.collector import registry_of
from scheduler.monitoring.meters import Meters
from scheduler.planning.addressees import WebhookTarget
from scheduler.service import Service
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Notification, Repository, Run, ServiceMark, SnapshotEntry, SnapshotState
from scheduler.state.store import State, open_state
from scheduler.vcenters.account import Account
from scheduler.vcenters.steps import StepCall, StepOutcome
from tests.scheduler.conftest import World
from tests.simulators.proxies import disk_report

Series = tuple[str, frozenset[tuple[str, str]]]


class Exposition:
    """What one scrape yields."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values: dict[Series, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __getitem__(self, asked: str | tuple[str, Mapping[str, str]]) -> float:
        name, labels = (asked, {}) if isinstance(asked, str) else asked
        return self.values[name, frozenset(labels.items())]

    @property
    def labels(self) -> dict[str, set[str]]:
        """Of each metric, the names of its labels."""
        found: dict[str, set[str]] = {}
        for name, labels in self.values:
            found.setdefault(name, set()).update(label for label, _ in labels)
        return found


def scrape(registry: CollectorRegistry) -> Exposition:
    """All that a registry offers."""
    return Exposition(generate_latest(registry).decode())


@pytest.fixture
def state(world: World) -> Iterator[State]:
    world.declare()
    opened = open_state(world.url)
    yield opened
    opened.close()


@pytest.fixture
def service(world: World, state: State) -> Service:
    world.fleet.join("proxy-1")
    return world.start()


@pytest.fixture
def scheduler_registry(world: World, state: State, service: Service) -> CollectorRegistry:
    ledger = Ledger(world.ledger_url, password=world.password)
    world.opened.append(ledger)
    return registry_of(service.meters, state, ledger)


def run_to_its_end(world: World, state: State, service: Service) -> str:
    """Ask for a run, and have it done."""
    with state.write() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id

    def ended() -> bool:
        with state.read() as session:
            return session.get_one(Run, run_id).state.final

    world.turn_until(service, ended)
    return run_id


def fill(state: State, meters: Meters) -> None:
    """Everything that a simulated run leaves out."""
    with state.write() as session:
        session.add(Notification(name="chat", webhook=WebhookTarget(url="http://127.0.0.1:1/")))
        row = session.get_one(Repository, "main")
        row.size_bytes, row.free_bytes, row.measured_at = 1000, 400, time.time()
        mark = session.get_one(ServiceMark, 1)
        mark.backup_tried_at = mark.backed_up_at = time.time()
        session.add(
            SnapshotEntry(
                id="s",
                vcenter="vc1",
                vm_ref="vm-1",
                vm_id="1",
                vm_name="web01",
                datastores=(),
                state=SnapshotState.GIVEN_UP,
                created_at=1.0,
            )
        )
    account = Account(name="vc1", host="h", user="u", credential="c")
    for step, failure in (("step-1", None), ("step-2", TaskFailure(code="away", what="vCenter vc1"))):
        meters.step_started(StepCall(step, "snapshot", account, "{}"))
        meters.steps_ended([StepOutcome(step, failure=failure)])
    with meters.turn():
        pass


@pytest.fixture
def worker_registry() -> CollectorRegistry:
    tally = Tally(3)
    task = DiskTally(tally, TaskKind.DISK_BACKUP, resumed=False)
    task.note(DiskProgress(size_bytes=1 << 30, processed_bytes=100, read_bytes=80, stored_bytes=10, rate=1.0))
    task.end("done", DiskBackupResult(report=disk_report(), sealed_result=""))
    registration = ProxyRegistration.model_validate(
        {
            "name": "proxy-1",
            "instance_id": "i",
            "site": "primary",
            "max_concurrent_tasks": 2,
            "datastores": {},
            "modes": (),
            "credentials": {},
            "version": "0",
            "contract_version": 1,
        }
    )
    pulse: Callable[[], Pulse] = lambda: Pulse(ledger_up=True, draining=False, dead_processes=1)  # noqa: E731
    return registry_of_worker(WorkerCollector(registration, tally, lambda: ["disk.backup"], pulse))


@pytest.fixture
def busy_scheduler(
    world: World, state: State, service: Service, scheduler_registry: CollectorRegistry
) -> Exposition:
    """All metrics of a scheduler."""
    run_to_its_end(world, state, service)
    fill(state, service.meters)
    return scrape(scheduler_registry)


@pytest.fixture
def everything(busy_scheduler: Exposition, worker_registry: CollectorRegistry) -> Exposition:
    """All metrics there are, of a scheduler and of a proxy."""
    return Exposition(busy_scheduler.text + scrape(worker_registry).text)


REPOSITORY = Path(__file__).parents[3]
