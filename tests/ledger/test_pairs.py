"""Two tasks that go together: both have their slots, or neither; given up together, too."""

from __future__ import annotations

import pytest

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import (
    Claim,
    Ledger,
    NewTask,
    ProxyIdentity,
    Refusal,
    RenewAnswer,
    TaskState,
)
from tests.ledger.calls import RESULT, TIMINGS, Clock, claim, registration

FAR = ProxyIdentity("far", "instance", life="life", lock="far")
RECEIVE, REPLICATE = TaskKind.DISK_RECEIVE, TaskKind.DISK_REPLICATE


@pytest.fixture
def pair(ledger: Ledger) -> Ledger:
    """A ledger with `first` and `second`, of which `far` and `proxy-1` are to have one each."""
    ledger.register(registration("far", slots=1), FAR)
    ledger.submit(NewTask("first", RECEIVE, "disk.receive", ("datastore:b",)))
    ledger.submit(NewTask("second", REPLICATE, "disk.replicate", ("datastore:a",)))
    return ledger


def dispatch_pair(ledger: Ledger, **caps: int) -> int | Refusal:
    return ledger.dispatch_pair(
        "first",
        lane="proxy.remote.far",
        proxy="far",
        sign=lambda n: b"first %d" % n,
        second="second",
        second_proxy="proxy-1",
        caps={f"datastore:{name}": limit for name, limit in caps.items()},
    )


def used(ledger: Ledger) -> dict[str, int]:
    return {name: proxy.slots_used for name, proxy in ledger.view().proxies.items()}


def states(ledger: Ledger) -> tuple[TaskState, TaskState]:
    tasks = ledger.view().tasks
    return tasks["first"].state, tasks["second"].state


def begun(ledger: Ledger) -> tuple[Claim, Claim]:
    """Both are held."""
    assert dispatch_pair(ledger) == 1
    first = claim(ledger, "first", kind=RECEIVE, lane="proxy.remote.far", identity=FAR)
    follow = ledger.dispatch("second", lane="near", proxy="proxy-1", sign=lambda n: b"second %d" % n)
    assert follow == 1
    second = claim(ledger, "second", kind=REPLICATE, lane="near")
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    return first, second


def test_the_second_keeps_its_slot_until_it_follows(pair: Ledger) -> None:
    assert dispatch_pair(pair) == 1
    assert states(pair) == (TaskState.DISPATCHED, TaskState.RESERVED)
    assert used(pair) == {"far": 1, "proxy-1": 1}
    assert dispatch_pair(pair) == Refusal("not-ready", "dispatched")

    assert pair.dispatch("second", lane="near", proxy="proxy-1", sign=lambda _: b"") == 1
    assert used(pair) == {"far": 1, "proxy-1": 1}


def test_without_room_for_both_neither_has_any(pair: Ledger) -> None:
    for task_id in ("t1", "t2"):
        pair.submit(NewTask(task_id, REPLICATE, task_id))
        pair.dispatch(task_id, lane="near", proxy="proxy-1", sign=lambda _: b"")
    assert dispatch_pair(pair) == Refusal("proxy-full", "proxy-1")
    assert used(pair)["far"] == 0
    assert states(pair) == (TaskState.READY, TaskState.READY)
    pair.cancel("t1")
    assert dispatch_pair(pair, a=0) == Refusal("cap-full", "datastore:a")
    assert dispatch_pair(pair, b=0) == Refusal("cap-full", "datastore:b")
    assert "datastore:b" not in pair.view().caps
    assert dispatch_pair(pair) == 1


def test_given_up_before_it_began_both_are_ready_again(pair: Ledger, clock: Clock) -> None:
    dispatch_pair(pair)
    clock.reap_for(TIMINGS.dispatch_deadline_s + TIMINGS.tick_s)
    assert states(pair) == (TaskState.READY, TaskState.READY)
    dispatch_pair(pair)
    pair.unreserve("second", "proxy-1 went away")
    assert states(pair) == (TaskState.READY, TaskState.READY)
    assert used(pair) == {"far": 0, "proxy-1": 0}


@pytest.mark.parametrize("lost", [0, 1])
def test_a_holder_that_is_lost_takes_the_other_ones_fence_with_it(pair: Ledger, clock: Clock, lost: int) -> None:
    claims = begun(pair)
    for _ in range(int(TIMINGS.lease_s / TIMINGS.tick_s) + 1):
        clock.reap_for(TIMINGS.tick_s)
        pair.renew(claims[1 - lost].fence, None, None)
    assert states(pair) == (TaskState.READY, TaskState.READY)
    assert pair.renew(claims[1 - lost].fence, None, None) is RenewAnswer.LOST
    kept = ("proxy-1", "far")[lost]
    assert used(pair)[kept] == 1, "its holder may be at work until it hears of it"


def test_each_ends_by_itself(pair: Ledger) -> None:
    first, second = begun(pair)
    pair.complete(first.fence, RESULT)
    assert pair.renew(second.fence, None, None) is RenewAnswer.OK
    pair.release(second.fence, None, "drained")
    assert pair.view().tasks["second"].state is TaskState.READY
    assert {task.task_id for task in pair.finished()} == {"first"}


def test_a_reserved_task_is_cancelled_at_once(pair: Ledger) -> None:
    dispatch_pair(pair)
    assert pair.cancel("second")
    assert used(pair)["proxy-1"] == 0
    assert [task.state for task in pair.finished()] == [TaskState.CANCELLED]
