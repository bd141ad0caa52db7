"""Leading among schedulers that share a PostgreSQL database: one works, the others stand by and take over.

Who leads holds a lease that it renews by the server's clock. A leader that can't renew in time gives up before
anybody can follow it, and one that was frozen meanwhile finds every transaction refused: its term is over. The
same number is shown to the ledger, which refuses former terms too.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import ColumnElement, Double, cast, delete, func, inspect, select, update
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.state.access import DatabaseAccess
from scheduler.state.errors import (
    LeadershipLostError,
    StateLockedError,
    StateReadOnlyError,
    StateUnreachableError,
)
from scheduler.state.serving import SchedulerProcess, Servers
from scheduler.state.store import State, open_state, reach_state

logger = logging.getLogger(__name__)

LEASE_S: Final = 10.0
"""A leader that hasn't been seen for so long is followed by another."""
RENEW_S: Final = 2.0
_POLL_S: Final = 1.0
_ANSWER_S: Final = 2.0
"""How long the server's answer to a renewal is waited for."""
_FORGET_S: Final = 60.0


def look_at_servers(session: Session) -> Servers:
    """Who leads and who stands by. For PostgreSQL."""
    seen = func.abs(_server_time() - SchedulerProcess.seen_at) < LEASE_S
    leader = _leader(session)
    alive = session.scalars(select(SchedulerProcess).where(seen).order_by(SchedulerProcess.name)).all()
    leads = next((one.name for one in alive if leader is not None and one.id == leader.id), None)
    return Servers(leads is not None, leads, tuple(one.name for one in alive if one.term is None))


class Leadership:
    """One scheduler's part in it. `wait_for_it` and `resign` belong to one thread; `on_lost` is called from any."""

    def __init__(
        self,
        access: DatabaseAccess,
        on_lost: Callable[[], None],
        *,
        name: str | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        """`on_lost` is to stop all that the leader does, at once."""
        self.name = name or f"process {os.getpid()} on {socket.gethostname()}"
        self.term = 0
        self._id = secrets.token_hex(8)
        self._access = access
        self._on_lost = on_lost
        self._lease_s = lease_s
        self._state = reach_state(access, busy_timeout_s=_ANSWER_S / 2, socket_timeout_s=_ANSWER_S)
        self._good_until = 0.0
        """By this machine's monotonic clock, which goes on while the process is frozen."""
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="leadership", daemon=True)

    def wait_for_it(self, stop: threading.Event) -> bool:
        """Stand by until this scheduler leads; False when `stop` was set before.

        A server that doesn't answer or is a replica is waited out; raises the other errors of the database.
        """
        waiting_for: str | None = None
        while not stop.is_set():
            try:
                reason = self._contend()
            except (StateUnreachableError, StateLockedError, StateReadOnlyError) as error:
                reason = str(error)
            if reason is None:
                logger.info("leading, in term %d: %s", self.term, self.name)
                self._watch.start()
                return True
            if reason != waiting_for:
                logger.warning("standing by: %s", reason)
                waiting_for = reason
            stop.wait(_POLL_S)
        self._leave()
        return False

    def guard(self, session: Session) -> None:
        """Let a transaction go on only while this scheduler leads; raises `LeadershipLostError`."""
        leader = None if time.monotonic() >= self._good_until else _leader(session)
        if leader is None or leader.id != self._id:
            self._lose("another scheduler leads" if leader is not None else "its lease has run out")
            raise LeadershipLostError(
                f"database {self._state.name}",
                why="this scheduler doesn't lead any more",
                remedy="Nothing was written; the one that leads goes on.",
            )

    def resign(self) -> None:
        """Stop leading, so that another takes over at once. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        if self._watch.is_alive():
            self._watch.join()
        self._leave()

    def _contend(self) -> str | None:
        """Try to lead; why not, or None when it does. Writers wait for each other, so that one at most succeeds."""
        _set_up(self._access, self._state)
        began = time.monotonic()
        with self._state.write() as session:
            now = session.scalars(select(_server_time())).one()
            leader = _leader(session)
            me = session.merge(SchedulerProcess(id=self._id, name=self.name, seen_at=now))
            # The server's clock may have been set back: a sign of life from the future says nothing.
            if leader is not None and abs(now - leader.seen_at) < self._lease_s:
                return f"{leader.name} leads"
            me.term = (leader.term or 0) + 1 if leader is not None else 1
            session.flush()
            gone = SchedulerProcess.term.is_not(None) | (SchedulerProcess.seen_at < now - _FORGET_S)
            session.execute(delete(SchedulerProcess).where(SchedulerProcess.id != self._id, gone))
            self.term = me.term
        self._good_until = began + self._lease_s - _ANSWER_S
        return None

    def _keep(self) -> None:
        """Renew the lease until it is over: in a thread, so that no long step is in the way."""
        pause_s = RENEW_S
        failure: ProxyfleetError | None = None
        while not self._over.wait(min(pause_s, max(0.0, self._good_until - time.monotonic()))):
            if time.monotonic() >= self._good_until:
                self._lose(f"its lease couldn't be renewed in time ({failure})")
                return
            try:
                renewed = self._renew()
            except ProxyfleetError as error:  # whatever it is, it may pass before the lease has run out
                failure = error
                pause_s = RENEW_S / 4
                continue
            if not renewed:
                self._lose("another scheduler leads")
                return
            pause_s = RENEW_S

    def _renew(self) -> bool:
        began = time.monotonic()
        mine = update(SchedulerProcess).where(SchedulerProcess.id == self._id, SchedulerProcess.term == self.term)
        # Not as a writer: those may wait for each other longer than a lease lasts.
        with self._state.explained(), self._state.engine.connect() as connection:
            beside = connection.execution_options(beside_writers=True)
            renewed = beside.execute(mine.values(seen_at=_server_time())).rowcount == 1
            beside.commit()
        if renewed:
            self._good_until = began + self._lease_s - _ANSWER_S
        return renewed

    def _lose(self, why: str) -> None:
        if not self._over.is_set():
            self._over.set()
            self._good_until = 0.0
            logger.error("%s stops leading: %s", self.name, why)
            self._on_lost()

    def _leave(self) -> None:
        mine = SchedulerProcess.id == self._id
        try:
            with self._state.write() as session:
                session.execute(delete(SchedulerProcess).where(mine, SchedulerProcess.term.is_(None)))
                # The row of a term stays: the next one is counted from it.
                session.execute(update(SchedulerProcess).where(mine).values(seen_at=0.0))
        except ProxyfleetError as error:
            logger.warning("another scheduler takes over after %.0f s only: %s", self._lease_s, error)
        finally:
            self._state.close()


def _set_up(access: DatabaseAccess, state: State) -> None:
    """Make the tables of a database that has none yet: nobody can lead there."""
    with state.explained(), state.engine.connect() as connection:
        there = inspect(connection).has_table(SchedulerProcess.__tablename__)
    if not there:
        open_state(access, migrate=True).close()


def _leader(session: Session) -> SchedulerProcess | None:
    terms = select(SchedulerProcess).where(SchedulerProcess.term.is_not(None))
    return session.scalars(terms.order_by(SchedulerProcess.term.desc()).limit(1)).first()


def _server_time() -> ColumnElement[float]:
    return cast(func.extract("epoch", func.clock_timestamp()), Double)
