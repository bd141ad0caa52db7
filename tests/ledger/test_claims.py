"""A message is claimed once, by whom it was meant for."""

from __future__ import annotations

import pytest

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import (
    Claim,
    Ledger,
    Refused,
    TaskState,
)
from tests.ledger.calls import RESULT, Clock, claim, dispatch, held, state, submit


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"number": 2}, "stale"),
        ({"number": 0}, "stale"),
        ({"task_id": "never issued"}, "unknown"),
        ({"kind": TaskKind.DISK_RESTORE}, "altered"),
        ({"lane": "proxy.proxy-1"}, "wrong-lane"),
    ],
)
def test_message_that_was_never_issued_or_was_altered_changes_nothing(
    ledger: Ledger, change: dict[str, object], code: str
) -> None:
    submit(ledger)
    dispatch(ledger)

    assert claim(ledger, **change) == Refused(code, requeued=False)  # type: ignore[arg-type]

    assert state(ledger) is TaskState.DISPATCHED


def test_replayed_message_is_refused_while_the_task_runs_and_after(ledger: Ledger) -> None:
    claimed = held(ledger)
    assert claim(ledger) == Refused("stale", requeued=False)

    ledger.complete(claimed.fence, RESULT)
    assert claim(ledger) == Refused("stale", requeued=False)


def test_message_of_an_earlier_dispatch_is_refused(ledger: Ledger, clock: Clock) -> None:
    submit(ledger)
    dispatch(ledger)
    assert clock.reap_for(40) == ["t1"]
    assert dispatch(ledger) == 2

    assert claim(ledger, number=1) == Refused("stale", requeued=False)
    assert isinstance(claim(ledger, number=2), Claim)


def test_claim_whose_answer_was_lost_is_repeated_with_its_token(ledger: Ledger) -> None:
    submit(ledger)
    dispatch(ledger)

    first, second = claim(ledger, token="mine"), claim(ledger, token="mine")

    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert first.fence == second.fence
    assert claim(ledger, token="another's") == Refused("stale", requeued=False)
