"""Runs of the job that `World.declare` makes, as somebody asks for them and looks at them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.state.asking import ask_for_run
from scheduler.state.models import LedgerTask, Run
from scheduler.state.store import open_state
from tests.scheduler.conftest import World


def ask(world: World) -> str:
    """Ask for a run of the job `nightly`; its id."""
    state = open_state(world.url)
    with state.write() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id
    state.close()
    return run_id


def read(world: World) -> Session:
    """A look at the database, to be closed."""
    return Session(open_state(world.url).engine)


def run_ended(world: World, run_id: str) -> bool:
    """Whether a run has, and all tasks with it."""
    with read(world) as session:
        return session.get_one(Run, run_id).state.final and not session.scalars(select(LedgerTask)).all()
