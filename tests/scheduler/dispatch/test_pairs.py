"""Disks that are replicated: a slot at the source and one at the target, or one where both are the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.specification import InventoryScan
from proxy_worker.ledger import FleetView, NewTask, TaskView
from scheduler.dispatch.fleet import Fleet, FleetProxy, PendingTask, Placement, Release, Urgency
from scheduler.dispatch.limits import JobTerms, Limits
from scheduler.dispatch.pairs import Pairs
from scheduler.dispatch.pending import OpenTask
from scheduler.dispatch.policy import decide

IN_PLACE = (TransportMode.DIRECT_STORAGE,)
NOW = 1_000_000.0


def proxy(name: str, *datastores: str, used: int = 0, receives: bool = True) -> FleetProxy:
    return FleetProxy(
        name=name,
        site="primary",
        slots=1,
        used=used,
        datastores=dict.fromkeys(datastores, IN_PLACE),
        modes=(),
        credentials={},
        receives=receives,
    )


NEAR = Placement(
    TaskKind.DISK_REPLICATE, datastore="near", target=Placement(TaskKind.DISK_RECEIVE, datastore="far")
)


def disk(task_id: str = "disk") -> PendingTask:
    return PendingTask(task_id, NEAR, "away", Urgency.REGULAR, NOW)


def decided(*proxies: FleetProxy, limits: Limits | None = None) -> Release | str:
    decision = decide([disk()], Fleet(proxies, {}), limits or Limits(), NOW)
    return decision.releases[0] if decision.releases else decision.waiting["disk"]


def test_one_proxy_reads_and_another_writes() -> None:
    release = decided(proxy("p1", "near"), proxy("p2", "far"))
    assert isinstance(release, Release)
    assert (release.proxy, release.target) == ("p1", "p2")
    assert (release.lane, release.target_lane) == ("proxy.primary.p1", "proxy.primary.p2")


def test_a_proxy_that_reaches_both_does_both_in_one_slot() -> None:
    release = decided(proxy("p1", "near"), proxy("p2", "far"), proxy("p3", "near", "far", receives=False))
    assert isinstance(release, Release)
    assert (release.proxy, release.target) == ("p3", "p3")


def test_only_as_many_go_as_both_sides_have_slots_for() -> None:
    proxies = (proxy("p1", "near"), proxy("p2", "near"), proxy("p3", "far"))
    decision = decide([disk("a"), disk("b")], Fleet(proxies, {}), Limits(), NOW)
    assert [release.task_id for release in decision.releases] == ["a"]
    assert decision.waiting["b"] == "waiting: of its replica: proxy p3 is full (1 of 1 slots)"


def test_a_pair_counts_with_both_its_slots_where_jobs_share_what_there_is() -> None:
    proxies = (
        *(proxy(f"near{number}", "near") for number in range(6)),
        *(proxy(f"far{n}", "far") for n in range(6)),
    )
    backups = [replace(disk(f"b{n}"), job="nightly", placement=replace(NEAR, target=None)) for n in range(9)]
    decision = decide([*(disk(f"r{n}") for n in range(9)), *backups], Fleet(proxies, {}), Limits(), NOW)
    released = Counter(release.task_id[0] for release in decision.releases)
    assert released == {"r": 2, "b": 4}, "four slots each, of the six near and the six far ones"


def test_what_is_missing_is_said() -> None:
    assert decided(proxy("p1", "near")) == (
        "waiting: of its replica: no proxy that is running has datastore far as a folder, with direct_storage"
    )
    assert decided(proxy("p1", "near"), proxy("p2", "far", receives=False)) == (
        "waiting: none of the proxies that reach datastore far in place takes replicas from others: "
        "that needs [link]"
    )
    assert decided(proxy("p1", "near", used=1), proxy("p2", "far")) == "waiting: proxy p1 is full (1 of 1 slots)"


def test_a_job_may_say_who_reads_and_who_writes() -> None:
    limits = Limits(jobs={"away": JobTerms(proxies=("p1",), targets=("p4",))})
    proxies = [proxy("p1", "near"), proxy("p2", "near"), proxy("p3", "far"), proxy("p4", "far")]
    release = decided(*proxies, limits=limits)
    assert isinstance(release, Release)
    assert (release.proxy, release.target) == ("p1", "p4")


def test_who_reads_and_who_writes_change_places_when_a_replica_is_brought_back() -> None:
    limits = Limits(jobs={"away": JobTerms(proxies=("p4",), targets=("p1",))})
    proxies = [proxy("p1", "near"), proxy("p2", "near"), proxy("p3", "far"), proxy("p4", "far")]
    back = replace(NEAR, back=True, target=Placement(TaskKind.DISK_RECEIVE, datastore="far", back=True))
    decision = decide([replace(disk(), placement=back)], Fleet(tuple(proxies), {}), limits, NOW)
    assert [(release.proxy, release.target) for release in decision.releases] == [("p1", "p4")]


def pair(number: int) -> tuple[OpenTask, OpenTask]:
    """Who receives and who sends, of which no more counts here than their ids."""

    def task(kind: TaskKind, partner: str | None) -> OpenTask:
        new, body = NewTask(f"{kind}-{number}", kind, ""), InventoryScan(datastore="near")
        return OpenTask(new, body, Placement(kind), "away", Urgency.REGULAR, NOW, None, partner)

    return task(TaskKind.DISK_RECEIVE, None), task(TaskKind.DISK_REPLICATE, f"{TaskKind.DISK_RECEIVE}-{number}")


class Counted(dict[str, TaskView]):
    """Tasks that a ledger has, and how often somebody looked for one."""

    looks = 0

    def get(self, *wanted: Any) -> Any:
        self.looks += 1
        return super().get(*wanted)


def test_of_a_pair_that_lost_one_task_the_other_is_left_alone_and_no_other_pair_is_looked_at() -> None:
    pairs, tasks = Pairs(), Counted()
    view = FleetView(epoch=1, server_time=NOW, quiet_s=0, tasks=tasks, proxies={}, caps={})
    for number in range(1000):
        for task in pair(number):
            pairs.add(task)
    assert list(pairs.left_alone(view)) == []

    pairs.drop("disk.receive-7")
    pairs.drop("disk.replicate-8")
    for _ in range(2):
        assert set(pairs.left_alone(view)) == {"disk.replicate-7", "disk.receive-8"}
    assert tasks.looks == 4

    for task in pair(8):
        pairs.drop(task.new.task_id)
        pairs.add(task)
    pairs.drop("disk.replicate-7")
    assert list(pairs.left_alone(view)) == []
