"""Who gets which slot when: shares of jobs, affinity, windows, slow datastores, patience."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import TaskKind, TransportMode
from scheduler.dispatch.backlog import Backlog
from scheduler.dispatch.fleet import FleetProxy, FleetRepository, InFlight, PendingTask, Urgency
from scheduler.dispatch.latency import Reading, paused
from scheduler.dispatch.limits import JobTerms, LatencyLimits, Limits, datastore_cap
from scheduler.dispatch.policy import choose, decide, explain
from scheduler.dispatch.room import Room
from scheduler.planning.window import Window
from tests.scheduler.dispatch.test_policy import LIMITS, NOW, PENDING, PROXIES, backup, fleet, proxy

GIB = 1 << 30
MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


def sized(task: PendingTask, gib: int) -> PendingTask:
    return replace(task, work_bytes=gib * GIB)


def released(pending: list[PendingTask], *proxies: FleetProxy, limits: Limits | None = None) -> list[str]:
    decision = decide(pending, fleet(*proxies), limits or Limits(), NOW)
    return [release.task_id for release in decision.releases]


# --- kept between decisions, it decides the same ---


@given(PROXIES, PENDING, LIMITS, st.data())
def test_what_is_kept_up_to_date_decides_as_what_is_told_everything(
    proxies: tuple[FleetProxy, ...], pending: list[PendingTask], limits: Limits, data: st.DataObject
) -> None:
    live = tuple(replace(one, used=0) for one in proxies)
    backlog, room = Backlog(), Room(fleet(*live), limits)
    flying: dict[str, InFlight] = {}
    waiting: dict[str, PendingTask] = {}
    for turn in range(4):
        for task in (
            data.draw(st.lists(st.sampled_from(pending), unique_by=lambda one: one.task_id)) if pending else []
        ):
            if task.task_id not in flying:
                waiting[task.task_id] = task
                backlog.add(task)
        for task_id in data.draw(st.lists(st.sampled_from(sorted(flying)), unique=True)) if flying else []:
            room.end(flying.pop(task_id))
        used = Counter(one.proxy for one in flying.values() if one.takes_slot and one.proxy is not None)
        now_live = tuple(replace(one, used=used[one.name]) for one in live)
        everything = fleet(*now_live, in_flight=tuple(flying.values()))

        fresh = decide(list(waiting.values()), everything, limits, NOW + turn)
        kept = choose(backlog, room, NOW + turn)

        assert tuple(kept) == fresh.releases
        assert explain(backlog, room, NOW + turn) == fresh.waiting
        for release in kept:
            task = waiting.pop(release.task_id)
            flying[release.task_id] = InFlight(
                release.lane, release.proxy, task.placement.kind.takes_slot, task.job, task.placement.caps
            )


@given(PENDING)
def test_no_slot_is_free_while_a_disk_could_use_it(pending: list[PendingTask]) -> None:
    alike = [replace(task, placement=backup("x").placement) for task in pending]
    assert len(released(alike, proxy("p1", slots=3), proxy("p2", slots=4))) == min(7, len(alike))


# --- shares ---


@given(st.integers(1, 60), st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_each_job_gets_half_of_an_equal_share_before_size_counts(slots: int, gib: list[int]) -> None:
    large = [sized(backup(f"large{n}", job="large"), 1000) for n in range(100)]
    small = [sized(backup(f"small{n}", job="small"), size) for n, size in enumerate(gib)]

    got = Counter(task_id[:5] for task_id in released(large + small, proxy("p1", slots=slots)))

    assert got["small"] >= min(len(small), max(2, slots // 4), slots // 2)


def test_a_job_of_two_disks_goes_next_however_large_the_other_is() -> None:
    running = (InFlight("proxy.primary.p1", "p1", takes_slot=True, job="large"),) * 98
    large = [sized(backup(f"large{n}", job="large", since=NOW - 9000), 1000) for n in range(9_000)]
    small = [sized(backup(f"small{n}", job="small"), 1) for n in range(2)]

    decision = decide([*large, *small], fleet(proxy("p1", slots=100, used=98), in_flight=running), Limits(), NOW)

    assert {release.task_id for release in decision.releases} == {"small0", "small1"}


def test_within_a_job_what_takes_longest_begins_first() -> None:
    pending = [sized(backup(f"{gib:03}"), gib) for gib in (1, 500, 20)]
    assert released(pending, proxy("p1", slots=2)) == ["500", "020"]


def test_a_vm_that_begins_is_finished_before_the_next() -> None:
    pending = [
        replace(sized(backup("a-large"), 9), vm="a"),
        replace(sized(backup("a-small"), 1), vm="a"),
        replace(sized(backup("b"), 5), vm="b"),
    ]
    assert released(pending, proxy("p1", slots=2)) == ["a-large", "a-small"]


def test_a_job_that_waits_for_an_hour_is_not_passed_over_for_more_urgent_ones_for_ever() -> None:
    running = (InFlight("proxy.primary.p1", "p1", takes_slot=True, job="urgent"),)
    urgent = [backup(f"urgent{n}", job="urgent", urgency=Urgency.HIGH) for n in range(5)]
    everyone = fleet(proxy("p1", used=1), in_flight=running)

    first = [
        decide([*urgent, backup("old", since=NOW - waited)], everyone, Limits(), NOW).releases[0].task_id
        for waited in (60, 3600)
    ]

    assert first == ["urgent0", "old"]


# --- where ---


def test_preferred_proxies_come_first_and_others_after_some_patience() -> None:
    terms = Limits(jobs={"nightly": JobTerms(preferred=("near-*",))})
    near, far = proxy("near-1", slots=1), proxy("far-1")

    assert decide([backup("one")], fleet(near, far), terms, NOW).releases[0].proxy == "near-1"
    full = fleet(replace(near, used=1), far)
    assert decide([backup("one")], full, terms, NOW).waiting["one"] == (
        "waiting: proxy near-1 with direct_storage is full (1 of 1 slots); another proxy is taken after 60 s"
    )
    (release,) = decide([backup("one")], full, terms, NOW + 60).releases
    assert release.proxy == "far-1"
    assert "proxy near-1 with direct_storage is full" in release.reason


def test_of_those_that_waited_for_better_the_one_that_waited_longest_gives_in_first() -> None:
    near, far = proxy("near", used=2), proxy("far", slots=1, datastores={"ds1": (TransportMode.NETWORK,)})
    pending = [sized(backup("large", since=NOW - 70), 900), sized(backup("old", since=NOW - 90), 1)]
    assert released(pending, near, far) == ["old"]


def test_proxies_that_a_job_is_bound_to_are_the_only_ones() -> None:
    terms = Limits(jobs={"nightly": JobTerms(proxies=("dmz-*",))})
    decision = decide([backup("one"), backup("two", job="other")], fleet(proxy("p1")), terms, NOW)
    assert [release.task_id for release in decision.releases] == ["two"]
    assert decision.waiting["one"] == (
        "waiting: no proxy that reaches datastore ds1 is one of those that the job may use (dmz-*)"
    )


def test_a_repository_prefers_proxies_too() -> None:
    preferring = FleetRepository("main", "primary", "main", preferred=("p1",))
    everyone = replace(fleet(proxy("p1"), proxy("p2")), repositories={"main": preferring})
    assert decide([backup("one")], everyone, Limits(), NOW).releases[0].proxy == "p1"


# --- work conserving ---


@pytest.mark.parametrize("disks", [1, 2, 3, 4])
def test_all_disks_of_a_vm_go_at_once_while_there_are_slots(disks: int) -> None:
    pending = [replace(backup(f"disk{n}"), vm="web") for n in range(disks)]

    decision = decide(pending, fleet(proxy("p1", slots=8)), Limits(), NOW)

    assert {release.task_id for release in decision.releases} == {task.task_id for task in pending}
    assert decision.waiting == {}


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=20),
)
def test_nothing_waits_while_a_slot_is_free(slots: int, disks: list[tuple[str, int, bool, int]]) -> None:
    pending = [
        replace(sized(backup(f"disk{n}", job=job, vm_started=begun), gib), vm=f"{job}{vm}")
        for n, (job, vm, begun, gib) in enumerate(disks)
    ]

    decision = decide(pending, fleet(proxy("p1", slots=slots)), Limits(), NOW)

    assert len(decision.releases) == min(slots, len(pending))


# --- when ---


def test_outside_its_window_a_job_begins_no_vm_and_finishes_those_that_have_begun() -> None:
    night = Limits(jobs={"nightly": JobTerms(window=Window(hours=("Mon-Fri 20:00-6:00",)))})
    pending = [backup("new"), backup("begun", vm_started=True), backup("other", job="other")]

    decision = decide(pending, fleet(proxy("p1", slots=9)), night, MONDAY_NOON)

    assert {release.task_id for release in decision.releases} == {"begun", "other"}
    assert decision.waiting["new"] == (
        "waiting: job nightly may run Mon-Fri 20:00-6:00 (UTC), next from Mon 2026-11-23 20:00"
    )


def test_the_fleet_has_a_window_that_restores_do_not_mind() -> None:
    night = Limits(window=Window(hours=("22:00-5:00",)))
    restore = replace(backup("restore", kind=TaskKind.DISK_RESTORE), urgency=Urgency.RESTORE)
    decision = decide([backup("one"), restore], fleet(proxy("p1")), night, MONDAY_NOON)
    assert [release.task_id for release in decision.releases] == ["restore"]
    assert decision.waiting["one"].startswith("waiting: jobs may run 22:00-5:00 (UTC), next from Mon ")


# --- how much ---


def test_a_datastore_has_a_limit_of_its_own() -> None:
    limited = Limits(caps={datastore_cap("ds1"): 2})
    assert len(released([backup(str(n)) for n in range(5)], proxy("p1", slots=9), limits=limited)) == 2


@pytest.mark.parametrize(("took_ms", "begins"), [(19.9, True), (20.0, False), (300.0, False)])
def test_a_datastore_that_is_slow_to_answer_gets_nothing_more(took_ms: float, begins: bool) -> None:
    slow = replace(fleet(proxy("p1")), latency_ms={"ds1": took_ms})
    decision = decide([backup("one")], slow, Limits(), NOW)
    assert bool(decision.releases) is begins
    if not begins:
        assert decision.waiting["one"] == (
            f"waiting: datastore ds1 answers in {took_ms:.0f} ms, and gets nothing more from 20 ms on"
        )


def test_limits_of_a_datastore_take_the_place_of_the_fleets() -> None:
    slow = replace(fleet(proxy("p1")), latency_ms={"ds1": 25.0})
    patient = Limits(latency_of={"ds1": LatencyLimits(40, 50)})
    assert decide([backup("one")], slow, patient, NOW).releases


def readings(moving: int, still: int = 0) -> list[Reading]:
    count = moving + still
    return [Reading(f"t{n}", "ds1", since=float(n), paused=n >= moving) for n in range(count)]


@pytest.mark.parametrize(
    ("disks", "took_ms", "still"),
    [
        (readings(6), 29.9, 0),
        (readings(6), 30.0, 2),
        (readings(6), 60.0, 4),
        (readings(6), 900.0, 5),
        (readings(1), 900.0, 0),
        (readings(4, still=2), 25.0, 2),
        (readings(4, still=2), 19.0, 0),
        (readings(4, still=2), 60.0, 5),
    ],
)
def test_disks_are_paused_from_30_ms_on_and_resumed_below_20(
    disks: list[Reading], took_ms: float, still: int
) -> None:
    assert len(paused(disks, {"ds1": took_ms}, Limits())) == still


def test_the_disks_that_began_last_are_paused_and_all_go_on_when_nobody_measures() -> None:
    assert paused(readings(3), {"ds1": 30.0}, Limits()) == {"t2"}
    assert paused(readings(1, still=2), {}, Limits()) == set()
