"""What time does: leases and deadlines run out, checkpoints outlive their holders."""

from __future__ import annotations

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.ledger import (
    Claim,
    Forfeited,
    Ledger,
    RenewAnswer,
)
from tests.ledger.calls import PROXY, RESULT, TIMINGS, Clock, claim, dispatch, held, submit


def test_lease_runs_out_unless_it_is_renewed(ledger: Ledger, clock: Clock) -> None:
    renewed, silent = held(ledger, "t1"), held(ledger, "t2")
    clock.reap_for(50)
    assert ledger.renew(renewed.fence) is RenewAnswer.OK

    assert clock.reap_for(50) == ["t2"]

    assert ledger.renew(silent.fence) is RenewAnswer.LOST
    assert ledger.view().tasks["t2"].note == "proxy-1 stopped renewing its lease"
    assert not ledger.complete(silent.fence, RESULT)


def test_a_late_pass_charges_one_tick(ledger: Ledger, clock: Clock) -> None:
    held(ledger)

    assert clock.reap_after(3600) == []
    assert clock.reap_for(40) == []
    assert clock.reap_for(20) == ["t1"]


def test_no_lease_runs_out_while_the_server_has_just_been_away(ledger: Ledger, clock: Clock) -> None:
    held(ledger)
    clock.reap_for(50)
    clock.restart_server()

    assert clock.reap_for(20) == []
    assert clock.reap_for(20) == ["t1"]


def test_a_message_that_was_lost_after_the_server_restarted_is_given_up_as_ever(
    ledger: Ledger, clock: Clock
) -> None:
    clock.restart_server()
    ledger.reap()
    submit(ledger)
    dispatch(ledger)

    assert clock.reap_for(40) == ["t1"]


def test_checkpoint_and_progress_outlive_their_holder(ledger: Ledger, clock: Clock) -> None:
    claimed = held(ledger)
    progress = DiskProgress(size_bytes=10, processed_bytes=3, read_bytes=3, stored_bytes=1, rate=1.5)
    ledger.renew(claimed.fence, "sealed", progress)
    assert ledger.view().tasks["t1"].progress == progress

    clock.reap_for(70)
    dispatch(ledger)
    again = claim(ledger, number=2)

    assert isinstance(again, Claim)
    assert again.checkpoint == "sealed"
    assert again.fence.number > claimed.fence.number


def test_task_that_kills_its_holders_fails_by_itself(ledger: Ledger, clock: Clock) -> None:
    held(ledger)
    clock.reap_for(70)
    dispatch(ledger)
    claim(ledger, number=2)
    clock.reap_for(70)

    [ended] = ledger.finished()
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.retryable) == ("holders-lost", True)
    assert "2 attempts ended without a word" in ended.failure.why


def test_task_over_which_processes_die_is_quarantined_with_its_last_log(ledger: Ledger) -> None:
    ledger.join_epoch(1, TIMINGS.model_copy(update={"max_lost_attempts": 10}))
    held(ledger)
    for number in (1, 2, 3):
        assert ledger.finished() == []
        ledger.forfeit("t1", number, PROXY, why="was killed by SIGSEGV", log=[f"line {number}"])
        if number < TIMINGS.max_deaths:
            dispatch(ledger)
            claim(ledger, number=number + 1)

    [ended] = ledger.finished()
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.retryable) == ("quarantined", False)
    assert ended.failure.why.endswith("at last: its process on proxy-1 was killed by SIGSEGV")
    assert ended.failure.log == ("line 3",)


def test_deaths_before_a_checkpoint_count_no_more(ledger: Ledger) -> None:
    held(ledger)
    for number in range(1, 6):
        assert ledger.forfeit("t1", number, PROXY, log=[]) is Forfeited.READY
        dispatch(ledger)
        again = claim(ledger, number=number + 1)
        assert isinstance(again, Claim)
        ledger.renew(again.fence, f"checkpoint {number}")
