"""The ledger call by call: submitted, dispatched, claimed, done, cancelled."""

from __future__ import annotations

from proxy_worker.ledger import (
    Claim,
    Ledger,
    RenewAnswer,
    TaskState,
    TaskVerdict,
)
from tests.ledger.calls import FAILURE, RESULT, claim, dispatch, held, state, submit


def test_task_is_submitted_dispatched_claimed_and_done(ledger: Ledger) -> None:
    submit(ledger)
    assert state(ledger) is TaskState.READY
    assert dispatch(ledger) == 1
    assert state(ledger) is TaskState.DISPATCHED

    claimed = claim(ledger)

    assert isinstance(claimed, Claim)
    assert (claimed.signed, claimed.title, claimed.checkpoint) == (b"specification 1", "disk.backup t1", None)
    assert ledger.view().proxies["proxy-1"].slots_used == 1
    assert ledger.complete(claimed.fence, RESULT)
    [ended] = ledger.finished()
    assert (ended.state, ended.result, ended.proxy, ended.attempts) == (TaskState.DONE, RESULT, "proxy-1", 1)
    assert ended.fence_number == claimed.fence.number == 1 << 32 | 1
    assert ledger.view().proxies["proxy-1"].slots_used == 0


def test_finished_task_stays_until_it_is_acknowledged(ledger: Ledger) -> None:
    ledger.fail(held(ledger).fence, FAILURE)

    assert [task.failure for task in ledger.finished()] == [FAILURE]
    assert len(ledger.finished()) == 1
    ledger.acknowledge(["t1", "unknown"])
    assert ledger.finished() == []


def test_running_task_is_not_acknowledged_away(ledger: Ledger) -> None:
    held(ledger)

    ledger.acknowledge(["t1"])

    assert state(ledger) is TaskState.RUNNING


def test_verdicts_reach_the_holder_with_its_next_renewal(ledger: Ledger) -> None:
    fence = held(ledger).fence
    for verdict, answer in (("pause", RenewAnswer.PAUSE), ("run", RenewAnswer.OK), ("cancel", RenewAnswer.CANCEL)):
        assert ledger.set_verdict("t1", verdict)
        assert ledger.renew(fence) is answer
    ledger.set_verdict("t1", TaskVerdict.RUN)
    assert ledger.renew(fence) is RenewAnswer.CANCEL, "cancelling is final"

    ledger.fail(fence, FAILURE)

    assert [task.state for task in ledger.finished()] == [TaskState.CANCELLED]


def test_work_that_was_done_before_the_cancellation_arrived_counts(ledger: Ledger) -> None:
    fence = held(ledger).fence
    ledger.cancel("t1")

    ledger.complete(fence, RESULT)

    assert [task.state for task in ledger.finished()] == [TaskState.DONE]
    assert not ledger.cancel("t1")


def test_task_nobody_holds_is_cancelled_at_once(ledger: Ledger) -> None:
    submit(ledger, "t1")
    submit(ledger, "t2")
    dispatch(ledger, "t2", proxy="proxy-1")

    assert ledger.cancel("t1")
    assert ledger.cancel("t2")

    assert {task.state for task in ledger.finished()} == {TaskState.CANCELLED}
    assert ledger.view().proxies["proxy-1"].slots_used == 0


def test_bell_rings_for_what_a_dispatcher_may_act_on(ledger: Ledger) -> None:
    while ledger.wait(0.01):
        pass
    claimed = held(ledger)
    assert not ledger.wait(0.01)

    ledger.complete(claimed.fence, RESULT)

    assert ledger.wait(60)
    assert not ledger.wait(0.01)
