"""The lease keeper on a clock of the test's own: when a mover runs, pauses and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.ledger import Claim, Fence, LedgerUnavailableError, RenewAnswer
from proxy_worker.mover.control import Verdict
from proxy_worker.node.draining import Draining
from proxy_worker.node.events import progress_line
from proxy_worker.node.lease import Ending, LeaseKeeper, until_answered

LEASE_S = 0.9
FENCE = Fence("t1", 1, 1, "token")
CLAIM = Claim(FENCE, "disk.backup web01 scsi0:0", b"", "first", server_time=0, lease_s=LEASE_S)
PROGRESS = DiskProgress(size_bytes=100, processed_bytes=37, read_bytes=37, stored_bytes=9, rate=412 * 2**20)


class ScriptedLedger:
    """Answers renewals as it is told, and remembers them."""

    def __init__(self) -> None:
        self.answer: RenewAnswer | LedgerUnavailableError = RenewAnswer.OK
        self.renewals: list[tuple[str | None, DiskProgress | None]] = []

    def renew(self, fence: Fence, checkpoint: str | None, progress: DiskProgress | None) -> RenewAnswer:
        assert fence == FENCE
        self.renewals.append((checkpoint, progress))
        if isinstance(self.answer, LedgerUnavailableError):
            raise self.answer
        return self.answer


def keeper(
    ledger: ScriptedLedger, draining: Draining | None = None, seen: Callable[[DiskProgress], None] = lambda _: None
) -> LeaseKeeper:
    return LeaseKeeper(
        ledger,  # type: ignore[arg-type]
        CLAIM,
        claimed_at_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        draining=draining or Draining(),
        on_progress=seen,
        progress_s=0.05,
    )


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lease_is_renewed_without_news() -> None:
    ledger = ScriptedLedger()
    with keeper(ledger) as held:
        eventually(lambda: len(ledger.renewals) >= 3)
        assert held.verdict() is Verdict.RUN
    assert set(ledger.renewals) == {(None, None)}


def test_news_are_taken_to_the_ledger_soon_and_to_watchers() -> None:
    ledger, seen = ScriptedLedger(), list[DiskProgress]()
    with keeper(ledger, seen=seen.append) as held:
        held.checkpoint("sealed")
        held.report(PROGRESS)
        eventually(lambda: seen)
        assert held.last_checkpoint == "sealed"
    assert {"sealed"} == {checkpoint for checkpoint, _ in ledger.renewals if checkpoint}
    assert seen == [PROGRESS]
    assert progress_line(PROGRESS) == "37% 412 MiB/s"


def test_mover_pauses_while_the_ledger_is_away_and_goes_on_after() -> None:
    ledger = ScriptedLedger()
    ledger.answer = LedgerUnavailableError("ledger")
    with keeper(ledger) as held:
        held.checkpoint("kept while it is away")
        eventually(lambda: held.verdict() is Verdict.PAUSE)
        assert held.ending is None
        ledger.answer = RenewAnswer.OK
        eventually(lambda: held.verdict() is Verdict.RUN)
    assert "kept while it is away" in {checkpoint for checkpoint, _ in ledger.renewals}


def test_mover_obeys_the_ledger() -> None:
    ledger = ScriptedLedger()
    with keeper(ledger) as held:
        ledger.answer = RenewAnswer.PAUSE
        eventually(lambda: held.verdict() is Verdict.PAUSE)
        ledger.answer = RenewAnswer.OK
        eventually(lambda: held.verdict() is Verdict.RUN)
        ledger.answer = RenewAnswer.CANCEL
        eventually(lambda: held.verdict() is Verdict.STOP)
        assert held.ending is Ending.CANCELLED


def test_lost_lease_stops_the_mover_for_good() -> None:
    ledger = ScriptedLedger()
    with keeper(ledger) as held:
        ledger.answer = RenewAnswer.LOST
        eventually(lambda: held.ending is Ending.LOST)
        asked = len(ledger.renewals)
        ledger.answer = RenewAnswer.OK
        assert held.verdict() is Verdict.STOP
    assert len(ledger.renewals) == asked


def test_draining_proxy_hands_back_only_when_its_time_is_up() -> None:
    draining = Draining()
    try:
        with keeper(ScriptedLedger(), draining) as held:
            draining.ask(60)
            assert held.verdict() is Verdict.RUN
            draining.ask(60)
            assert held.verdict() is Verdict.STOP
            assert held.ending is Ending.HANDED_BACK
    finally:
        draining.settle()


def test_a_proxy_that_has_settled_is_not_ended_by_its_deadlines() -> None:
    draining = Draining()
    draining.ask(60)
    draining.settle()
    assert not [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, threading.Timer) and thread.interval >= 60 and not thread.finished.is_set()
    ]


def test_report_is_repeated_until_it_is_answered() -> None:
    answers = iter([LedgerUnavailableError("ledger"), True])

    def call() -> bool:
        answer = next(answers)
        if isinstance(answer, LedgerUnavailableError):
            raise answer
        return answer

    assert until_answered(call, what="t1", draining=Draining(), patience_s=60) is True
