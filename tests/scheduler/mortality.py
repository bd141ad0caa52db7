"""Schedulers that die at a chosen moment: before or after a commit, or a call to a vCenter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import settings
from pyVmomi.SoapAdapter import SoapStubAdapter
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from proxy_worker.vsphere import tags
from scheduler.state.store import State
from tests.scheduler.vcenters import VsphereWorld

STEPS = "vcenter step"
"""What the executor's threads are called."""


EVERY_DEATH: Final = settings.get_current_profile_name() == "thorough"
"""Whether each story is told with each kind of moment, as `make fuzz` does; the suite has each kind in one."""
MOMENTS = ("before commit", "after commit", "before call", "after change")
_CHANGING = frozenset({"ReconfigVM_Task", "CreateSnapshot_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"})
"""All others change nothing: of several in a row within a step, the first stands for all."""


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Life:
    """How long a scheduler lives: up to the `deadly`-th moment of a kind, or for ever."""

    moment: str = ""
    """One of `MOMENTS`."""
    deadly: int = 0
    passed: int = 0
    last: str = ""
    """What it died at."""
    over: threading.Event = field(default_factory=threading.Event)

    def pass_moment(self, moment: str, what: str) -> None:
        """Die, if this is the moment; nothing is done by the dead."""
        if self.over.is_set():
            raise Killed
        if moment == self.moment:
            self.passed += 1
            if self.passed == self.deadly:
                self.last = what
                self.over.set()
                raise Killed


class MortalState(State):
    """A database whose user may die right after a commit."""

    def __init__(self, engine: Engine, life: Life) -> None:
        super().__init__(engine)
        self.life = life

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.life.over.is_set():
            raise Killed
        with super().write() as session:
            yield session
            self.life.pass_moment("before commit", "a commit")
        self.life.pass_moment("after commit", "a commit")


@dataclass
class Calls:
    """Stands in every call that steps make to a vCenter, in SOAP or REST; the tests' own calls pass."""

    life: Life = field(default_factory=Life)
    of_step: threading.local = field(default_factory=threading.local)
    """Every step has a thread of its own."""

    def around(self, what: str, call: Callable[[], Any]) -> Any:
        """Do a call that the present life may die of."""
        if not threading.current_thread().name.startswith(STEPS):
            return call()
        life, changes = self.life, what in _CHANGING
        if changes or not getattr(self.of_step, "reads", False):
            life.pass_moment("before call", what)
        elif life.over.is_set():
            raise Killed
        self.of_step.reads = not changes
        answer = call()
        if changes:
            life.pass_moment("after change", what)
        return answer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Every call of the executor's threads goes through this."""
    stand = Calls()
    soap, rest = SoapStubAdapter.InvokeMethod, tags._exchange

    def invoke(stub: Any, target: Any, info: Any, *rest: Any) -> Any:
        return stand.around(str(info.wsdlName), lambda: soap(stub, target, info, *rest))

    def exchange(*request: Any, **more: Any) -> Any:
        return stand.around("REST", lambda: rest(*request, **more))

    monkeypatch.setattr(SoapStubAdapter, "InvokeMethod", invoke)
    monkeypatch.setattr(tags, "_exchange", exchange)
    return stand


def bury() -> None:
    """Wait until no step of a former life goes on."""
    for thread in threading.enumerate():
        if thread.name.startswith(STEPS):
            thread.join(120)
            assert not thread.is_alive()


def outlive(one: VsphereWorld, run_id: str, calls: Calls, life: Life) -> None:
    """Bring a run to its end in this life, or in the next one where it ends before."""
    calls.life = life
    try:
        service = one.world.start(MortalState(one.open().engine, life))
        one.world.turn_until(service, lambda: one.settled(run_id))
    except Killed:
        bury()
        calls.life = Life()
        service = one.world.start()
        one.world.turn_until(service, lambda: one.settled(run_id))
