"""A clock that was ahead and has been set back: what was put off by it until then is not to wait for that."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import update
from sqlalchemy.orm import InstrumentedAttribute

from scheduler.runs.journal import Journal
from scheduler.state.models import (
    Delivery,
    DiskTask,
    Job,
    LedgerTask,
    Repository,
    RestoredDisk,
    Run,
    ServiceMark,
    SnapshotEntry,
    VcenterScan,
    VcenterStep,
)

SET_BACK_S: Final = 600.0
"""From here on, a clock that is set back was wrong before; by less, those of two schedulers may differ."""
LONGEST_WAIT_S: Final = 7 * 86_400.0
"""Nothing that failed waits longer for its next try: the most that `retries` of a job can say."""
_DONE: Final = (Job.scheduled_after, ServiceMark.backup_tried_at, ServiceMark.backed_up_at)
"""Up to when starts have been dealt with: those that were just now aren't to be made once more."""
_PASSED: Final = (
    Run.scanned_after,
    VcenterScan.created_at,
    SnapshotEntry.last_try_at,
)
"""How new a look at a vCenter has to be; when a snapshot was given up."""
_UNKNOWN: Final = (Repository.collect_at, Repository.prove_at, VcenterStep.started_at)
"""When something comes next, and when vCenters were looked at: found out anew from None."""
_RETRIED: Final = (
    DiskTask.retry_at,
    LedgerTask.retry_at,
    VcenterStep.retry_at,
    RestoredDisk.retry_at,
    Delivery.next_at,
)


def forget_the_future(journal: Journal) -> None:
    """Take what was done later than now as done now, plan and look anew, and try again what waits too long."""
    now = journal.now
    for done in _DONE:
        _set(journal, done, later_than=now + SET_BACK_S, to=now)
    for passed in _PASSED:
        _set(journal, passed, later_than=now, to=now)
    for unknown in _UNKNOWN:
        _set(journal, unknown, later_than=now, to=None)
    for retried in _RETRIED:
        _set(journal, retried, later_than=now + LONGEST_WAIT_S, to=now)


def _set(journal: Journal, column: InstrumentedAttribute[Any], *, later_than: float, to: float | None) -> None:
    journal.session.execute(update(column.class_).where(column > later_than).values({column: to}))
