"""Which steps at vCenters are started, and what the others are told to wait for."""

from __future__ import annotations

from dataclasses import replace

from scheduler.vcenters.choice import Choice, OpenSnapshot, Pending, Reading, choose

SESSIONS = {"vc1": 4, "vc2": 1}


def snapshot(name: str, *, vm: str = "", at: float = 0.0, vcenter: str = "vc1", store: str = "ds") -> Pending:
    """A step that makes the snapshot `name`."""
    return Pending(
        name,
        vcenter,
        priority=100,
        created_at=at,
        vm=vm or f"vm-{name}",
        vm_name=name,
        snapshot=name,
        makes_snapshot=True,
        datastores=(store,),
    )


def removal(name: str, *, vm: str = "", climbs: bool = False) -> Pending:
    """A step that removes the snapshot `name`."""
    return Pending(
        f"{name}.remove", "vc1", 10, 9.0, vm=vm or f"vm-{name}", vm_name=name, snapshot=name, climbs=climbs
    )


def held(name: str, *, vm: str = "", store: str = "ds") -> OpenSnapshot:
    """A snapshot that a backup needs."""
    return OpenSnapshot(name, "vc1", vm or f"vm-{name}", (store,))


def test_removals_go_first_and_older_steps_before_younger() -> None:
    chosen = choose([snapshot("b", at=2), snapshot("a", at=1), removal("old")], [], [], SESSIONS, restoring={})
    assert chosen == Choice(("old.remove", "a", "b"), {})


def test_a_datastore_with_four_snapshots_open_gets_no_fifth_from_any_job() -> None:
    others = [held(str(number)) for number in range(3)]
    chosen = choose(
        [snapshot("a", at=1), snapshot("b", at=2), snapshot("c", store="else")], [], others, SESSIONS, restoring={}
    )
    assert chosen.start == ("c", "a")
    assert chosen.waiting == {"b": "waiting: datastore ds of vCenter vc1 has 4 of 4 snapshots open"}


def test_no_more_is_frozen_than_proxies_can_soon_read() -> None:
    steps = [snapshot(name, at=at, store=name) for at, name in enumerate("abc")]
    chosen = choose(steps, [], [], SESSIONS, restoring={}, reading=Reading(disks=2, slots=2))
    assert chosen.start == ("a", "b")
    assert chosen.waiting == {"c": "waiting: proxies have 4 frozen disks to read with 2 slots"}


def test_nothing_is_frozen_while_no_proxy_runs_and_removals_go_on() -> None:
    chosen = choose(
        [snapshot("a"), removal("old")], [], [], SESSIONS, restoring={}, reading=Reading(disks=0, slots=0)
    )
    assert chosen.start == ("old.remove",)
    assert chosen.waiting == {"a": "waiting: no proxy is running to read its disks once they are frozen"}


def test_a_snapshot_that_is_tried_again_keeps_the_place_it_holds() -> None:
    others = [held(str(number)) for number in range(3)]
    assert choose([snapshot("a")], [], [*others, held("a")], SESSIONS, restoring={}).start == ("a",)


def test_a_vm_waits_for_the_snapshot_that_another_backup_of_it_holds() -> None:
    chosen = choose([snapshot("a", vm="vm-1")], [], [held("other", vm="vm-1")], SESSIONS, restoring={})
    assert chosen.waiting == {"a": "waiting: another run of VM a still has its snapshot (other)"}


def test_a_vm_is_dealt_with_by_one_step_at_a_time() -> None:
    going_on = replace(removal("x", vm="vm-1"), vm_name="x")
    chosen = choose([snapshot("a", vm="vm-1")], [going_on], [], SESSIONS, restoring={})
    assert chosen.waiting == {"a": "waiting: vCenter vc1 is doing something else with VM a"}


def test_the_ladder_is_not_climbed_while_a_backup_reads_the_vm() -> None:
    old = removal("old", vm="vm-1", climbs=True)
    chosen = choose([old], [], [held("new", vm="vm-1")], SESSIONS, restoring={})
    assert chosen.start == ()
    assert choose([replace(old, climbs=False)], [], [held("new", vm="vm-1")], SESSIONS, restoring={}).start == (
        "old.remove",
    )


def test_no_more_steps_go_on_than_a_vcenter_has_sessions_for() -> None:
    chosen = choose(
        [snapshot("a", vcenter="vc2"), snapshot("b", at=1, vcenter="vc2")], [], [], SESSIONS, restoring={}
    )
    assert chosen.start == ("a",)
    assert chosen.waiting == {"b": "waiting: all 1 sessions of vCenter vc2 are in use"}


def test_steps_at_a_vcenter_that_is_not_declared_any_more_are_told_apart() -> None:
    assert choose([snapshot("a", vcenter="gone")], [], [], SESSIONS, restoring={}) == Choice((), {}, ("a",))
