"""What a command opens by the scheduler's own configuration, and whether that is being served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy_worker.contract.errors import ConflictError
from proxy_worker.ledger import Ledger
from scheduler.cli.printing import note
from scheduler.configuration import SchedulerConfiguration, load_configuration
from scheduler.state.lock import is_served
from scheduler.state.store import State, open_state


class NotServingError(ConflictError):
    """No `scheduler serve` is running, so that what a command would wait for could not happen."""


def configuration() -> SchedulerConfiguration:
    """The configuration that applies; raises `SettingsError`."""
    return load_configuration()


@contextmanager
def opened_state(*, migrate: bool = False) -> Iterator[State]:
    """The database; with `migrate`, made or brought up to date first. Raises the errors of `scheduler.state`."""
    state = open_state(configuration().database_access(), migrate=migrate)
    try:
        yield state
    finally:
        state.close()


def require_service(state: State, what: str) -> None:
    """Raise `NotServingError`, which says `what` didn't happen, unless a scheduler serves from this database."""
    if not is_served(state):
        raise NotServingError(
            what,
            why="no `scheduler serve` is running, so nothing would happen",
            remedy="Start it, or leave out the waiting to have it done once it runs.",
        )


def warn_without_service(state: State, what: str) -> None:
    """Say that `what` happens only once a scheduler serves, unless one does."""
    if not is_served(state):
        note(f"No `scheduler serve` is running: {what} once it does.")


def open_ledger() -> Ledger:
    """The ledger; nothing is sent until it is used. Raises `SecretError` when a file for it can't be read."""
    return Ledger(configuration().redis_access())
