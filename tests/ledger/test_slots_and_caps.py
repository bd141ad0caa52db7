"""Never more than a proxy's slots and a cap allow."""

from __future__ import annotations

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import (
    Claim,
    Ledger,
    NewTask,
    Refusal,
    Refused,
    TaskState,
)
from tests.ledger.calls import LANE, PROXY, RESULT, Clock, claim, dispatch, held, submit


def test_full_proxy_is_refused_and_the_task_ready_again(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        held(ledger, task_id)
    submit(ledger, "t3")
    dispatch(ledger, "t3")

    assert claim(ledger, "t3") == Refused("full", requeued=True)

    task = ledger.view().tasks["t3"]
    assert (task.state, task.note) == (TaskState.READY, "proxy-1 was full")


def test_upkeep_runs_beside_full_slots(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        held(ledger, task_id)
    ledger.submit(NewTask("u", TaskKind.REPOSITORY_COMMIT, "commit"))
    dispatch(ledger, "u", proxy="proxy-1")

    assert isinstance(claim(ledger, "u", kind=TaskKind.REPOSITORY_COMMIT), Claim)


def test_reservation_holds_a_slot_until_the_message_is_given_up(ledger: Ledger, clock: Clock) -> None:
    for task_id in ("t1", "t2", "t3"):
        submit(ledger, task_id)
    assert dispatch(ledger, "t1", proxy="proxy-1") == 1
    assert dispatch(ledger, "t2", proxy="proxy-1") == 1
    assert dispatch(ledger, "t3", proxy="proxy-1") == Refusal("proxy-full", "proxy-1")

    clock.reap_for(40)

    assert dispatch(ledger, "t3", proxy="proxy-1") == 1


def test_cap_is_held_from_dispatch_to_the_end(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        submit(ledger, task_id, caps=("repository:main",))
    assert dispatch(ledger, "t1", cap=1) == 1
    assert dispatch(ledger, "t2", cap=1) == Refusal("cap-full", "repository:main")
    claimed = claim(ledger)
    assert isinstance(claimed, Claim)
    assert dispatch(ledger, "t2", cap=1) == Refusal("cap-full", "repository:main")

    ledger.complete(claimed.fence, RESULT)

    assert ledger.view().caps == {}
    assert dispatch(ledger, "t2", cap=1) == 1


def test_disabled_or_lowered_proxy_takes_nothing_new(ledger: Ledger) -> None:
    submit(ledger)
    dispatch(ledger)
    ledger.set_proxy("proxy-1", lanes=[LANE], enabled=False)
    assert claim(ledger) == Refused("disabled", requeued=True)
    assert dispatch(ledger, proxy="proxy-1") == Refusal("proxy-disabled", "proxy-1")

    ledger.set_proxy("proxy-1", lanes=[LANE], enabled=True, max_concurrent_tasks=1)
    held(ledger, "t2")
    assert dispatch(ledger, proxy="proxy-1") == Refusal("proxy-full", "proxy-1")
    orders = ledger.heartbeat(PROXY)
    assert orders is not None
    assert (orders.lanes, orders.max_concurrent_tasks) == ((LANE,), 1)
