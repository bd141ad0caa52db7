"""`scheduler serve`: one loop that schedules, dispatches, reaps and records.

Order of truth in every turn: what the ledger says has ended is recorded in SQL, then acknowledged; what SQL says is
to be done is put into the ledger; only then is anything released. Killed between any two of these, the next
start repeats what was not finished.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import FinishedTask, FleetView, Ledger, LedgerEmptyError, Timings
from scheduler.dispatch.candidates import candidates, storage_snapshots
from scheduler.dispatch.declared import DeclaredFleet
from scheduler.dispatch.fleet import Fleet, Placement
from scheduler.dispatch.loop import Dispatcher, Publish
from scheduler.dispatch.pending import OpenTask
from scheduler.dispatch.reading import reading_of
from scheduler.dispatch.traffic import DeclaredTraffic
from scheduler.monitoring.meters import Meters
from scheduler.runs.advance import advance, give_up, is_due, replan, unwanted
from scheduler.runs.handling import HANDLING
from scheduler.runs.journal import Journal, journal
from scheduler.runs.outcome import Outcome
from scheduler.runs.outcomes import record
from scheduler.runs.scanned import scan_everything
from scheduler.runs.schedules import Timetable
from scheduler.runs.setting_back import SET_BACK_S, forget_the_future
from scheduler.runs.steps import record_steps, requeue_started, start_steps
from scheduler.runs.thawing_storage import look_for_left
from scheduler.runs.waiting import survey
from scheduler.state.errors import StateError, StateLockedError
from scheduler.state.history import forget_runs, forget_the_rest
from scheduler.state.models import LedgerTask, ServiceMark, WorkState
from scheduler.state.store import State
from scheduler.state.vm_runs import begun_vm_runs
from scheduler.vcenters.choice import Reading
from scheduler.vcenters.executor import Executor

logger = logging.getLogger(__name__)

TURN_S = 0.2
"""How long a turn waits for something to happen; what commands ask for is noticed within it."""
GATHER_S = 0.03
"""At most so long after something happened, a turn waits for more of it."""
ASK_S = 1.0
"""How often the database is asked what is due, even if nobody has written to it."""
VIEW_S = 1.0
"""How often the ledger is looked at while tasks are open, even if nothing rang."""
IDLE_VIEW_S = 2.0
"""How often it is looked at otherwise, for proxies that registered."""
UNSERVED_S = 60.0
"""How long a scan, a restore, upkeep, or what nobody needs any more waits for a proxy that could take it."""
FORGET_S = 3600.0
"""How often the past is looked at for what is to be forgotten."""
FORGET_MORE_S = 5.0
"""How soon again, when there was some: so little at a time, so that nobody waits for it."""
_LONGEST_PAUSE_S = 5.0
_BATCH = 200


class Service:
    """The scheduler's control loop over an open database and a ledger. Used by one thread."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        publish: Publish,
        key: Ed25519PrivateKey,
        *,
        timings: Timings | None = None,
        clock: Callable[[], float] = time.time,
        unserved_s: float = UNSERVED_S,
        executor: Executor | None = None,
        term: int = 0,
        history_s: float = float("inf"),
    ) -> None:
        """Without an `executor`, nothing that vCenters are to do is done.

        `term` tells this leader from earlier ones, where several schedulers share the database. What ended longer
        than `history_s` ago is forgotten.
        """
        self.state = state
        self.ledger = ledger
        self.timings = timings if timings is not None else Timings()
        self.clock = clock
        self.unserved_s = unserved_s
        self.executor = executor
        self.term = term
        self.history_s = history_s
        self.dispatcher = Dispatcher(ledger, publish, key)
        self.timetable = Timetable()
        self.meters = Meters()
        self._attached = False
        self._mirrored = False
        self._changed = True
        self._viewed_at = 0.0
        self._reaped_at = 0.0
        self._asked_at = 0.0
        self._version: int | None = None
        self._forget_at = 0.0
        self._clock_at = 0.0
        """When it was, the last time that anybody looked."""
        self._fleet: Fleet | None = None
        """Proxies as they were seen last, with nothing in flight; None before they were looked at."""
        self._storage: frozenset[str] | None = None
        """Datastores with storage snapshots; None before the fleet was looked at."""
        self._swept: set[str] = set()
        """Those of which what a crash left was looked for in this life."""

    def attach(self) -> None:
        """Take the ledger over, and give it what the journal holds open. Raises `LedgerError` if it is away.

        A ledger that this database opened and that kept its data is joined: what runs goes on. Any other gets a
        new epoch, kept here first, so that nothing issued before can count.
        """
        in_force = self.ledger.epoch()
        with self.state.write() as session:
            mark = session.get(ServiceMark, 1) or ServiceMark(id=1, epoch=0)
            session.add(mark)
            joined = in_force is not None and in_force == mark.epoch
            if not joined:
                mark.epoch = max(mark.epoch or 0, in_force or 0) + 1
            mark.installation = mark.installation or secrets.token_hex(8)
            epoch = mark.epoch
            if self.executor is not None:
                self.executor.installation = mark.installation
        if joined:
            self.ledger.join_epoch(epoch, self.timings, term=self.term)
        else:
            self.ledger.open_epoch(epoch, self.timings, term=self.term)
        logger.info("%s epoch %d of the ledger", "joined" if joined else "opened", epoch)
        self.dispatcher.epoch = epoch
        self.dispatcher.forget_ledger()
        self._attached = self._changed = True

    def load(self) -> None:
        """Mirror the journal, after finishing what an earlier life of the scheduler had begun."""
        self.timetable = Timetable()  # what it noted of a start that was not kept would keep that from being made
        self._clock_at = self.clock()
        with journal(self.state, self.clock) as steps:
            forget_the_future(steps)
            replan(steps)
            if self.executor is not None:
                requeue_started(steps, self.executor.running)
                scan_everything(steps)
        with self.state.read() as session:
            rows = session.scalars(select(LedgerTask).where(LedgerTask.state == WorkState.RUNNING)).all()
            self.dispatcher.forget_tasks()
            self.dispatcher.add(OpenTask.of(row) for row in rows)
            self.dispatcher.begin(begun_vm_runs(session))
            self.dispatcher.cancel(row.id for row in rows if row.cancelling)
        self._mirrored = True
        if rows:
            logger.info("%d tasks were open", len(rows))

    def serve(self, stop: threading.Event, each_turn: Callable[[], None] = lambda: None) -> None:
        """Turn until `stop` is set. Redis or the database being away is waited out, and said once."""
        pause_s = 0.0
        while not stop.is_set():
            each_turn()
            began = time.monotonic()
            try:
                self._catch_up()
                with self.meters.turn():
                    self.turn()
                if pause_s:
                    logger.info("going on")
                pause_s = 0.0
                if not stop.is_set() and self.ledger.wait(TURN_S):
                    self._changed = True
                    # What happens at about the same time is dealt with in one turn; a dear turn gathers more.
                    stop.wait(min(time.monotonic() - began, GATHER_S))
            except LedgerEmptyError as error:
                logger.warning("%s", error)
                self._attached = False
            except (LedgerError, StateLockedError, StateError) as error:
                if not pause_s:
                    logger.warning("%s", error)
                # A commit whose answer was lost may have happened, and nothing here knows what it opened or closed.
                self._mirrored = self._mirrored and isinstance(error, LedgerError)
                pause_s = min(pause_s * 2 or 0.5, _LONGEST_PAUSE_S)
                self._changed = True
                stop.wait(pause_s)

    def turn(self) -> None:
        """Do everything that can be done now."""
        self._reap()
        self._collect()
        if self._storage is None:  # what a snapshot is followed by depends on it
            with self.state.read() as session:
                declared = DeclaredFleet.load(session)
            self._look_for_storage(self._view(), declared)
        self._collect_steps()
        self._advance()
        self._forget()
        since = self.clock() - self._viewed_at
        if self._changed or since > (VIEW_S if self.dispatcher.tasks else IDLE_VIEW_S) or since < 0:
            self._changed = False
            self._dispatch()

    def _catch_up(self) -> None:
        now, before = self.clock(), self._clock_at
        self._clock_at = now
        if now < before - SET_BACK_S:
            logger.warning("the clock was set back by %.1f hours", (before - now) / 3600)
            self._mirrored = False
        if not self._attached:
            self.attach()
        if not self._mirrored:
            self.load()

    def _reap(self) -> None:
        now = time.monotonic()
        if now - self._reaped_at >= self.timings.tick_s / 2:
            reaped = self.ledger.reap()
            self._reaped_at = now
            self._changed |= bool(reaped.requeued or reaped.ended)

    def _collect(self) -> None:
        while finished := self.ledger.finished(_BATCH):
            with self._steps() as steps:
                record(steps, [_outcome(task) for task in finished])
            self.ledger.acknowledge([task.task_id for task in finished])
            if len(finished) < _BATCH:
                return

    def _collect_steps(self) -> None:
        outcomes = self.executor.finished() if self.executor is not None else []
        if outcomes:
            self.meters.steps_ended(outcomes)
            with self._steps() as steps:
                record_steps(steps, outcomes, HANDLING)

    def _advance(self) -> None:
        now = self.clock()
        version = self.state.version()
        if version is not None and version == self._version and abs(now - self._asked_at) < ASK_S:
            return
        self._version, self._asked_at = version, now
        with self.state.read() as session:
            due = is_due(session, now)
            jobs = self.timetable.due_jobs(session, now)
        if due or jobs:
            with self._steps() as steps:
                self.timetable.start(steps, jobs)
                steps.session.flush()
                advance(steps)
        self._start_steps()

    def _forget(self) -> None:
        """Forget a little of what is long past: more of it soon, otherwise in an hour."""
        now = time.monotonic()
        if now < self._forget_at or self.history_s == float("inf"):
            return
        with self.state.write() as session:
            before = self.clock() - self.history_s
            forgotten = forget_runs(session, before) + forget_the_rest(session, before)
        self._forget_at = now + (FORGET_MORE_S if forgotten else FORGET_S)

    def _start_steps(self) -> None:
        if self.executor is None:
            return
        with self.state.read() as session:
            choice = survey(session, self.clock(), self._reading())
        if choice.start or choice.undeclared:
            with self._steps() as steps:
                calls = start_steps(steps, HANDLING)
            for call in calls:
                self.meters.step_started(call)
                self.executor.start(call)

    def _dispatch(self) -> None:
        view = self._view()
        self._changed |= self.dispatcher.pass_on_cancellations(view)
        with self.state.read() as session:
            declared = DeclaredFleet.load(session)
            rules = DeclaredTraffic.load(session)
            rest = unwanted(session)
        self._look_for_storage(view, declared)
        self.dispatcher.give_orders(view, declared)
        self.dispatcher.limit_traffic(view, rules, self.clock())
        self.dispatcher.release(view, declared, self.clock())
        self.meters.waiting = self.dispatcher.waiting
        unserved = self.dispatcher.unserved(view, declared, rest, wait_s=self.unserved_s, now=self.clock())
        if unserved:
            with self._steps() as steps:
                for task_id, reason in unserved.items():
                    give_up(steps, task_id, reason)

    def _look_for_storage(self, view: FleetView, declared: DeclaredFleet) -> None:
        """Note which datastores have storage snapshots; those seen first have what a crash left looked for."""
        self._fleet = declared.fleet(view, ())
        self._storage = storage_snapshots(self._fleet)
        fresh = self._storage - self._swept
        if fresh:
            with self._steps() as steps:
                look_for_left(steps, fresh)
            self._swept |= fresh

    def _view(self) -> FleetView:
        view = self.ledger.view()
        self._viewed_at = self.clock()
        if view.epoch is None:
            raise LedgerEmptyError("ledger", why="Redis has lost its data")
        return view

    def _reading(self) -> Reading | None:
        return reading_of(self.dispatcher.placements, self._fleet) if self._fleet is not None else None

    def _obstacle(self, placement: Placement) -> str | None:
        found = candidates(placement, self._fleet) if self._fleet is not None else None
        return found if isinstance(found, str) else None

    @contextmanager
    def _steps(self) -> Iterator[Journal]:
        """A journal whose consequences for the ledger are noted once it is committed."""
        with journal(self.state, self.clock) as steps:
            steps.storage = self._storage or frozenset()
            steps.obstacle = self._obstacle
            steps.reading = self._reading()
            yield steps
        self.dispatcher.drop(steps.closed)
        self.dispatcher.add(OpenTask.of(row) for row in steps.opened)
        self.dispatcher.begin(steps.begun)
        self.dispatcher.cancel(steps.cancelling)
        if self.executor is not None:
            for step_id in steps.stopping:
                self.executor.cancel(step_id)
        self._changed = True


def _outcome(task: FinishedTask) -> Outcome:
    return Outcome(
        task_id=task.task_id,
        ended_at=task.ended_at,
        result=task.result,
        failure=task.failure,
        proxy=task.proxy,
        fence_number=task.fence_number,
        attempts=task.attempts,
        started_at=task.started_at,
        checkpoint=task.checkpoint,
        history=task.history,
    )
