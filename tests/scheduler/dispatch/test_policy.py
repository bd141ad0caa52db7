"""The dispatch policy: what it may never do, whom it prefers, and what it says to those who wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import TaskKind, TransportMode
from scheduler.dispatch.backlog import Backlog
from scheduler.dispatch.candidates import Candidates, candidates
from scheduler.dispatch.fleet import (
    Fleet,
    FleetProxy,
    FleetRepository,
    InFlight,
    PendingTask,
    Placement,
    Urgency,
    stands_at,
    subscribed_lanes,
)
from scheduler.dispatch.limits import Limits, repository_cap
from scheduler.dispatch.policy import choose, count_waiting, decide
from scheduler.dispatch.room import Room

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
MAIN = FleetRepository("main", "primary", "main")
NOW = 1_000_000.0


def proxy(name: str, **changes: object) -> FleetProxy:
    fields: dict[str, object] = {
        "site": "primary",
        "slots": 2,
        "used": 0,
        "datastores": {"ds1": (DIRECT, NETWORK)},
        "modes": (NETWORK,),
        "credentials": {"main": "read"},
    }
    return FleetProxy(name=name, **{**fields, **changes})  # type: ignore[arg-type]


def backup(task_id: str, *, job: str = "nightly", urgency: int = Urgency.REGULAR, **changes: object) -> PendingTask:
    fields: dict[str, object] = {"kind": TaskKind.DISK_BACKUP, "repository": "main", "datastore": "ds1"}
    started = bool(changes.pop("vm_started", False))
    since = float(changes.pop("since", NOW))  # type: ignore[arg-type]
    placement = Placement(**{**fields, **changes})  # type: ignore[arg-type]
    return PendingTask(task_id, placement, job, urgency, since, started)


def commit(task_id: str) -> PendingTask:
    placement = Placement(TaskKind.REPOSITORY_COMMIT, repository="main")
    return PendingTask(task_id, placement, "nightly", Urgency.UPKEEP, NOW)


def fleet(*proxies: FleetProxy, in_flight: tuple[InFlight, ...] = ()) -> Fleet:
    return Fleet(proxies, {"main": MAIN}, in_flight)


# --- whatever the fleet and the tasks ---

SITES = st.sampled_from(["primary", "remote"])
MODES = st.lists(st.sampled_from([DIRECT, NETWORK]), unique=True).map(tuple)
PROXIES = st.lists(
    st.builds(
        FleetProxy,
        name=st.sampled_from(["p1", "p2", "p3", "p4"]),
        site=SITES,
        slots=st.integers(1, 4),
        used=st.integers(0, 5),
        datastores=st.dictionaries(st.sampled_from(["ds1", "ds2"]), MODES),
        modes=MODES,
        credentials=st.dictionaries(st.just("main"), st.sampled_from(["read", "write"])),
        live=st.booleans(),
        enabled=st.booleans(),
        restricted=st.booleans(),
    ),
    unique_by=lambda one: one.name,
    max_size=4,
).map(tuple)
PLACEMENTS = st.builds(
    Placement,
    kind=st.sampled_from([TaskKind.DISK_BACKUP, TaskKind.DISK_RESTORE, TaskKind.REPOSITORY_COMMIT]),
    repository=st.sampled_from(["main", "gone"]),
    needs_read_key=st.booleans(),
    datastore=st.sampled_from(["ds1", "ds2", None]),
    preference=st.sampled_from(["automatic", DIRECT, NETWORK]),
    pinned_proxy=st.sampled_from([None, None, "p1"]),
)
PENDING = st.lists(
    st.builds(
        PendingTask,
        task_id=st.integers(0, 999).map(str),
        placement=PLACEMENTS,
        job=st.sampled_from(["a", "b"]),
        urgency=st.sampled_from(list(Urgency)),
        since=st.floats(NOW - 1000, NOW),
        vm_started=st.booleans(),
    ),
    unique_by=lambda one: one.task_id,
    max_size=30,
)
LIMITS = st.builds(Limits, caps=st.dictionaries(st.just(repository_cap("main")), st.integers(0, 4)))


@given(PROXIES, PENDING, LIMITS)
def test_every_task_is_released_once_or_waits_for_a_reason(
    proxies: tuple[FleetProxy, ...], pending: list[PendingTask], limits: Limits
) -> None:
    decision = decide(pending, fleet(*proxies), limits, NOW)

    released = [release.task_id for release in decision.releases]
    assert sorted([*released, *decision.waiting]) == sorted(task.task_id for task in pending)
    assert all(reason.startswith("waiting: ") and "\n" not in reason for reason in decision.waiting.values())

    backlog, room = Backlog(pending), Room(fleet(*proxies), limits)
    choose(backlog, room, NOW)
    assert count_waiting(backlog, room, NOW) == Counter(decision.waiting.values())


@given(PROXIES, PENDING, LIMITS)
def test_no_proxy_can_come_to_hold_more_than_its_slots(
    proxies: tuple[FleetProxy, ...], pending: list[PendingTask], limits: Limits
) -> None:
    everyone = fleet(*proxies)
    decision = decide(pending, everyone, limits, NOW)

    kinds = {task.task_id: task.placement.kind for task in pending}
    disks = [release for release in decision.releases if kinds[release.task_id].takes_slot]
    for one in proxies:
        lanes = subscribed_lanes(one, everyone.repositories) if one.live and one.enabled else ()
        at_worst = sum(
            release.proxy == one.name or (not release.proxy and release.lane in lanes) for release in disks
        )
        assert at_worst == 0 or one.used + at_worst <= one.slots


@given(PROXIES, PENDING, LIMITS)
def test_whoever_pulls_from_the_lane_may_take_the_task(
    proxies: tuple[FleetProxy, ...], pending: list[PendingTask], limits: Limits
) -> None:
    everyone = fleet(*proxies)
    tasks = {task.task_id: task for task in pending}
    for release in decide(pending, everyone, limits, NOW).releases:
        who = candidates(tasks[release.task_id].placement, everyone)
        assert isinstance(who, Candidates)
        eligible = {name for tier in who.tiers for name in tier.names}
        pulling = {
            one.name
            for one in proxies
            if one.live and one.enabled and release.lane in subscribed_lanes(one, everyone.repositories)
        }
        assert pulling
        assert pulling <= eligible


@given(PROXIES, PENDING, LIMITS)
def test_caps_hold(proxies: tuple[FleetProxy, ...], pending: list[PendingTask], limits: Limits) -> None:
    decision = decide(pending, fleet(*proxies), limits, NOW)

    tasks = {task.task_id: task for task in pending}
    used = Counter(cap for release in decision.releases for cap in tasks[release.task_id].placement.caps)
    assert all(used[cap] <= limit for cap, limit in limits.caps.items())


@given(PENDING)
def test_nothing_waits_behind_something_less_urgent(pending: list[PendingTask]) -> None:
    alike = [replace(task, placement=backup("x").placement) for task in pending]
    decision = decide(alike, fleet(proxy("p1", slots=3), proxy("p2", slots=3)), Limits(), NOW)

    released = {release.task_id for release in decision.releases}
    worst = max((task.urgency for task in alike if task.task_id in released), default=0)
    assert all(task.urgency >= worst for task in alike if task.task_id in decision.waiting)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_jobs_share_the_slots_whatever_their_sizes(slots: int, many: int, few: int) -> None:
    pending = [backup(f"a{n}", job="a") for n in range(many)] + [backup(f"b{n}", job="b") for n in range(few)]

    decision = decide(pending, fleet(proxy("p1", slots=slots)), Limits(), NOW)

    got = Counter(release.task_id[0] for release in decision.releases)
    half = slots // 2
    assert got.total() == min(slots, many + few)
    assert got["a"] >= min(many, half)
    assert got["b"] >= min(few, half)


def test_a_long_backlog_fills_every_slot_and_no_more() -> None:
    pending = [backup(f"{n:05}", job=f"job{n % 50}", datastore=f"ds{n % 20}") for n in range(10_000)]
    datastores = {f"ds{n}": (DIRECT, NETWORK) for n in range(20)}
    proxies = [proxy(f"p{n}", slots=8, datastores=datastores) for n in range(30)]

    decision = decide(pending, fleet(*proxies), Limits(), NOW)

    assert len(decision.releases) == 240
    assert len(decision.waiting) == 10_000 - 240


# --- whom it prefers ---


def test_a_restore_goes_before_everything_that_was_there_first() -> None:
    restore = PendingTask(
        "restore", Placement(TaskKind.DISK_RESTORE, "main", needs_read_key=True), "r", Urgency.RESTORE, NOW
    )
    pending = [backup("old", since=NOW - 9000, urgency=Urgency.HIGH), restore]

    decision = decide(pending, fleet(proxy("p1", slots=1)), Limits(), NOW)

    assert [release.task_id for release in decision.releases] == ["restore"]


def test_the_job_with_the_least_in_flight_comes_first() -> None:
    busy = (InFlight("proxy.primary.p1", "p1", takes_slot=True, job="big"),)
    pending = [backup("big", job="big", since=NOW - 9000), backup("small", job="small")]

    decision = decide(pending, fleet(proxy("p1", used=1), in_flight=busy), Limits(), NOW)

    assert [release.task_id for release in decision.releases] == ["small"]


def test_vms_that_have_begun_are_finished_before_others_begin() -> None:
    pending = [backup("new", since=NOW - 9000), backup("begun", vm_started=True)]

    decision = decide(pending, fleet(proxy("p1", slots=1)), Limits(), NOW)

    assert [release.task_id for release in decision.releases] == ["begun"]


def test_a_single_task_is_left_to_whichever_proxy_is_first() -> None:
    decision = decide([backup("one")], fleet(proxy("p1"), proxy("p2")), Limits(), NOW)

    (release,) = decision.releases
    assert (release.lane, release.proxy, release.mode) == ("disk.primary.direct_storage.ds1", None, DIRECT)


def test_when_there_is_more_than_anybody_could_take_each_proxy_gets_what_it_has_slots_for() -> None:
    pending = [backup(str(number)) for number in range(9)]

    decision = decide(pending, fleet(proxy("p1"), proxy("p2"), proxy("p3", used=1)), Limits(), NOW)

    assert Counter(release.proxy for release in decision.releases) == {"p1": 2, "p2": 2, "p3": 1}
    lanes = {release.lane for release in decision.releases}
    assert lanes == {"proxy.primary.p1", "proxy.primary.p2", "proxy.primary.p3"}


def test_what_is_announced_on_a_shared_lane_may_fill_anybody() -> None:
    announced = (InFlight("disk.primary.direct_storage.ds1", None, takes_slot=True, job="x"),) * 2

    decision = decide([backup("one")], fleet(proxy("p1"), proxy("p2"), in_flight=announced), Limits(), NOW)

    assert decision.releases == ()


def test_a_lane_that_somebody_else_pulls_from_is_not_used() -> None:
    without_key = proxy("p3", credentials={})

    decision = decide([backup("one")], fleet(proxy("p1"), proxy("p2"), without_key), Limits(), NOW)

    assert decision.releases[0].proxy in {"p1", "p2"}


def test_a_full_better_mode_is_waited_for_and_then_given_up() -> None:
    proxies = proxy("near", used=2), proxy("far", datastores={"ds1": (NETWORK,)})

    patient = decide([backup("one")], fleet(*proxies), Limits(patience_s=60), NOW)
    impatient = decide([backup("one")], fleet(*proxies), Limits(patience_s=60), NOW + 61)

    assert patient.waiting["one"] == (
        "waiting: proxy near with direct_storage is full (2 of 2 slots); a worse mode is taken after 60 s"
    )
    assert (impatient.releases[0].proxy, impatient.releases[0].mode) == ("far", NETWORK)


def test_a_proxy_restricted_to_a_mode_is_told_which() -> None:
    restricted = proxy("p1", datastores={"ds1": (NETWORK,)}, restricted=True)

    (release,) = decide([backup("one")], fleet(restricted), Limits(), NOW).releases

    assert (release.mode, release.name_mode) == (NETWORK, True)


def test_upkeep_takes_no_slot_and_is_spread_thin() -> None:
    pending = [commit(f"c{number}") for number in range(9)]

    decision = decide(pending, fleet(proxy("p1", used=2), proxy("p2", used=2)), Limits(), NOW)

    assert [release.lane for release in decision.releases] == ["repository.main"] * 4
    assert decision.waiting["c4"] == "waiting: 4 tasks of repository upkeep are ahead"


# --- what it says ---


def _reason(task: PendingTask, *proxies: FleetProxy, limits: Limits | None = None) -> str:
    return decide([task], fleet(*proxies), limits or Limits(), NOW).waiting[task.task_id]


@pytest.mark.parametrize("kind", [TaskKind.DISK_BACKUP, TaskKind.DISK_RESTORE, TaskKind.REPOSITORY_COMMIT])
def test_a_repository_that_is_not_encrypted_needs_no_key(kind: TaskKind) -> None:
    clear = FleetRepository("clear", "primary", None)
    placement = Placement(kind, repository="clear", needs_read_key=kind is TaskKind.DISK_RESTORE, datastore="ds1")
    task = PendingTask("t", placement, "job", Urgency.REGULAR, NOW)

    decision = decide([task], Fleet((proxy("p1", credentials={}),), {"clear": clear}), Limits(), NOW)

    assert [release.task_id for release in decision.releases] == ["t"]


def test_reasons_name_what_is_missing() -> None:
    task = backup("t")
    assert _reason(task) == "waiting: no proxy is running"
    assert _reason(task, proxy("p1", live=False)) == "waiting: no proxy is running"
    assert _reason(task, proxy("p1", enabled=False)) == "waiting: every running proxy is disabled"
    assert _reason(task, proxy("p1", site="remote")) == (
        "waiting: no proxy that reaches datastore ds1 reaches repository main (all of site primary may)"
    )
    assert _reason(task, proxy("p1", credentials={})) == (
        "waiting: no proxy that reaches datastore ds1 holds the key of repository main (main)"
    )
    assert _reason(task, proxy("p1", datastores={})) == ("waiting: no proxy that is running reaches datastore ds1")
    assert _reason(backup("t", preference="virtual_appliance", failover_to_network=False), proxy("p1")) == (
        "waiting: no proxy that reaches datastore ds1 offers virtual_appliance for it"
    )


def test_reasons_count_slots_and_caps() -> None:
    full = [proxy(name, slots=4, used=4) for name in ("p1", "p2", "p3")]
    assert _reason(backup("t"), *full) == (
        "waiting: all 3 proxies that reach datastore ds1 are full (12 of 12 slots)"
    )
    assert _reason(backup("t"), full[0]) == "waiting: proxy p1 is full (4 of 4 slots)"
    assert _reason(backup("t"), proxy("p1"), limits=Limits(caps={repository_cap("main"): 0})) == (
        "waiting: repository main has 0 of 0 tasks at once"
    )


def test_reasons_of_pinned_tasks_name_the_proxy() -> None:
    task = PendingTask(
        "t",
        Placement(TaskKind.DISK_RESTORE, "main", needs_read_key=True, pinned_proxy="p9"),
        "r",
        Urgency.RESTORE,
        NOW,
    )
    assert _reason(task, proxy("p1")) == "waiting: proxy p9 has not registered"
    assert _reason(task, proxy("p9", live=False)) == "waiting: proxy p9 is not running"
    assert _reason(task, proxy("p9", enabled=False)) == "waiting: proxy p9 is disabled"
    assert _reason(task, proxy("p9", credentials={"main": "write"})) == (
        "waiting: proxy p9 does not hold the read key of repository main (main)"
    )


@pytest.mark.parametrize(
    "kind",
    [TaskKind.POINT_DELETE, TaskKind.REPOSITORY_COLLECT, TaskKind.REPOSITORY_CHECK, TaskKind.REPOSITORY_PROVE],
)
def test_what_removes_from_behind_a_gateway_goes_to_who_may(kind: TaskKind) -> None:
    behind = {"main": replace(MAIN, behind_gateway=True)}
    task = PendingTask("t", Placement(kind, repository="main"), "upkeep", Urgency.UPKEEP, NOW)

    decision = decide([task], Fleet((proxy("p1"), proxy("vault", tends_gateways=True)), behind), Limits(), NOW)
    assert [release.proxy for release in decision.releases] == ["vault"]
    refused = decide([task], Fleet((proxy("p1"),), behind), Limits(), NOW)
    assert refused.waiting["t"] == (
        "waiting: no proxy that is running reaches repository main with a certificate of role gateway, "
        "which its gateway wants to see for that"
    )


def test_the_same_question_gets_the_same_answer() -> None:
    pending = [backup(str(number), job=f"j{number % 3}") for number in range(20)]
    everyone = fleet(proxy("p1"), proxy("p2"))

    assert decide(pending, everyone, Limits(), NOW) == decide(pending[::-1], everyone, Limits(), NOW)


@pytest.mark.parametrize(
    ("proxies", "reach"),
    [(None, {"p1"}), (("p2",), {"p2"}), (("*",), {"p1", "p2", "q1"}), (("p*", "x"), {"p1", "p2"}), ((), set())],
)
def test_a_repository_is_reached_from_its_site_or_by_name_or_pattern(
    proxies: tuple[str, ...] | None, reach: set[str]
) -> None:
    sites = {"p1": "primary", "p2": "remote", "q1": "remote"}
    assert {name for name, site in sites.items() if stands_at("primary", proxies, site, name)} == reach
