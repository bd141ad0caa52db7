"""Metrics as Prometheus reads them: right figures, names by its conventions, no label without a bound."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from prometheus_client import CollectorRegistry

from ops.demo.valkey import free_port
from proxy_worker.contract.names import TransportMode
from proxy_worker.program.exposition import MetricsSettings, exposed
from proxy_worker.program.listening import ListenError
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.monitoring.waiting import WaitingKind, kind_of
from scheduler.service import Service
from scheduler.state.asking import ask_for_run
from scheduler.state.store import State
from tests.scheduler.conftest import World
from tests.scheduler.monitoring.conftest import Exposition, run_to_its_end, scrape
from tests.simulators.proxies import DISK_BYTES

NIGHTLY = {"backup_job": "nightly"}
PROXY = {"proxy": "proxy-1", "site": "primary"}


def test_a_run_that_ended_shows_in_its_job_its_vms_and_its_repository(
    world: World, state: State, service: Service, scheduler_registry: CollectorRegistry
) -> None:
    before = scrape(scheduler_registry)
    assert before["proxyfleet_proxy_slots", PROXY] == 2
    assert (
        "proxyfleet_job_last_run_state",
        frozenset({("backup_job", "nightly"), ("state", "failed")}),
    ) not in before.values

    run_to_its_end(world, state, service)

    seen = scrape(scheduler_registry)
    assert seen["proxyfleet_job_last_run_state", NIGHTLY | {"state": "succeeded"}] == 1
    assert seen["proxyfleet_job_last_run_state", NIGHTLY | {"state": "failed"}] == 0
    assert seen["proxyfleet_job_last_run_bytes", NIGHTLY | {"fate": "size"}] == 3 * DISK_BYTES
    assert seen["proxyfleet_job_last_run_bytes", NIGHTLY | {"fate": "stored"}] == 3
    assert seen["proxyfleet_job_last_run_vms", NIGHTLY | {"state": "succeeded"}] == 2
    assert seen["proxyfleet_job_last_success_timestamp_seconds", NIGHTLY] > 0
    assert seen["proxyfleet_repository_points", {"repository": "main"}] == 2
    assert seen["proxyfleet_repository_vms", {"repository": "main"}] == 2
    web01 = NIGHTLY | {"vm": "web01", "vm_id": "id-web01"}
    assert seen["proxyfleet_vm_newest_point_timestamp_seconds", web01] > 0
    assert seen["proxyfleet_runs", {"state": "running"}] == 0


def test_what_waits_is_counted_by_what_it_waits_for(
    world: World, state: State, service: Service, scheduler_registry: CollectorRegistry
) -> None:
    with state.write() as session:
        ask_for_run(session, "nightly", now=world.clock())
    while not any(message.kind == "disk.backup" for message in world.lanes.messages):
        service.turn()
        if any(message.kind != "disk.backup" for message in world.lanes.messages):
            world.fleet.work()
    seen = scrape(scheduler_registry)
    assert seen["proxyfleet_runs", {"state": "running"}] == 1
    assert seen["proxyfleet_tasks", {"kind": "disk.backup", "state": "dispatched"}] == 2
    assert seen["proxyfleet_tasks", {"kind": "disk.backup", "state": "ready"}] == 1
    assert seen["proxyfleet_tasks_waiting", {"reason": "pick_up"}] == 2
    assert seen["proxyfleet_tasks_waiting", {"reason": "slot"}] == 1
    assert seen["proxyfleet_proxy_slots_used", PROXY] == 2


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("waiting: all 3 proxies that reach datastore ds-12 are full (12 of 12 slots)", WaitingKind.SLOT),
        ("waiting: proxy p is full (2 of 2 slots); another proxy is taken after 60 s", WaitingKind.SLOT),
        ("waiting: repository main has 4 of 4 tasks at once", WaitingKind.LIMIT),
        ("waiting: 4 tasks of repository upkeep are ahead", WaitingKind.LIMIT),
        ("waiting: jobs may run 22:00-06:00, next from Mon 2026-11-23 22:00", WaitingKind.WINDOW),
        ("waiting: datastore ds1 answers in 31 ms, and gets nothing more from 30 ms on", WaitingKind.LATENCY),
        ("waiting: no proxy that runs reaches datastore ds1", WaitingKind.NO_PROXY),
        ("waiting: proxy p has not registered", WaitingKind.NO_PROXY),
        ("waiting: announced on lane disk.primary.network, not picked up yet", WaitingKind.PICK_UP),
        ("waiting: leases from before Redis lost its data end in 30 s", WaitingKind.QUIET),
        ("waiting: for somebody to word this", WaitingKind.OTHER),
    ],
)
def test_reasons_have_kinds(sentence: str, kind: WaitingKind) -> None:
    assert kind_of(sentence) is kind


def test_no_reason_that_the_policy_gives_is_without_a_kind(world: World, state: State, service: Service) -> None:
    """As it words them now: nobody there, nobody with the key, nobody with the mode, everybody full."""
    kinds = set()
    with state.write() as session:
        ask_for_run(session, "nightly", now=world.clock())
    for credentials, datastores in (
        ({}, {"ds1": (TransportMode.NETWORK,)}),
        ({"main": "write"}, {}),
        ({"main": "write"}, {"ds1": (TransportMode.NETWORK,)}),
    ):
        world.fleet.join("proxy-1", credentials=credentials, datastores=datastores)
        for _ in range(4):
            service.turn()
            world.fleet.work(1 if len(world.lanes.messages) == 1 else 0)
            with state.read() as session:
                kinds |= {kind_of(said) for said in waiting_reasons(session, world.fleet.ledger.view(), 0).values()}
    assert WaitingKind.NO_PROXY in kinds
    assert WaitingKind.OTHER not in kinds


def test_redis_that_is_away_is_said_and_the_database_goes_on(
    world: World,
    state: State,
    service: Service,
    scheduler_registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_to_its_end(world, state, service)
    monkeypatch.setattr("scheduler.monitoring.collector.FleetCollector._view", lambda _: None)
    seen = scrape(scheduler_registry)
    assert (seen["proxyfleet_ledger_up"], seen["proxyfleet_database_up"]) == (0, 1)
    assert seen["proxyfleet_repository_points", {"repository": "main"}] == 2
    assert not any(name.startswith("proxyfleet_proxy_") for name, _ in seen.values)


def test_names_follow_prometheus_own_rules(busy_scheduler: Exposition, worker_registry: CollectorRegistry) -> None:
    for text in (busy_scheduler.text, scrape(worker_registry).text):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_labels_are_names_and_fixed_words_and_never_ids_of_runs_or_tasks(everything: Exposition) -> None:
    ids = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
    assert not ids.search(everything.text)
    bounded = {
        *("backup_job", "bottleneck", "fate", "kind", "le", "notification", "outcome", "proxy", "reason"),
        *("repository", "site", "stage", "state", "step", "vcenter", "version", "vm", "vm_id"),
    }
    assert set().union(*everything.labels.values()) <= bounded


def test_a_worker_counts_what_it_was_told_and_what_the_report_adds(worker_registry: CollectorRegistry) -> None:
    seen = scrape(worker_registry)
    assert seen["proxyfleet_worker_tasks_total", {"kind": "disk.backup", "outcome": "done"}] == 1
    assert seen["proxyfleet_worker_bytes_total", {"kind": "disk.backup", "fate": "processed"}] == DISK_BYTES
    assert seen["proxyfleet_worker_tasks_running", {"kind": "disk.backup"}] == 1
    assert seen["proxyfleet_worker_dead_processes_total"] == 1


def test_metrics_are_offered_where_the_configuration_says(worker_registry: CollectorRegistry) -> None:
    settings = MetricsSettings(listen=f"127.0.0.1:{free_port()}")
    with exposed(worker_registry, settings) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert "proxyfleet_worker_info" in Exposition(answer.read().decode()).labels
        with pytest.raises(ListenError, match="Address already in use"), exposed(worker_registry, settings):
            pass
    with pytest.raises(URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60)


@pytest.mark.parametrize("path", ["", "/", "/metric", "/metrics/more", "/favicon.ico"])
def test_they_are_at_their_path_alone(worker_registry: CollectorRegistry, path: str) -> None:
    with exposed(worker_registry, MetricsSettings(listen="127.0.0.1:0")) as port:
        with pytest.raises(HTTPError, match="404") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60)
        with refused.value as answer:
            assert answer.read() == b"Metrics are at /metrics.\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?name[]=x", timeout=60) as answer:
            assert answer.status == 200


def test_nothing_is_offered_unless_asked_for(worker_registry: CollectorRegistry, tmp_path: Path) -> None:
    with exposed(worker_registry, MetricsSettings()) as port:
        assert port is None
