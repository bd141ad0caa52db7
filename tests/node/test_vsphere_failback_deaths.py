"""A proxy that dies at every call that changes the original in a vCenter, and at writes; another one goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pyVmomi.SoapAdapter import SoapStubAdapter

from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.transport.writing_network import ServedSink
from tests.node.vcenter_originals import Original, original
from tests.node.vcenter_proxy import proxy

__all__ = ["original", "proxy"]

READING = frozenset({"CancelTask", "FindByUuid", "Login", "Logout", "RetrieveServiceContent"})


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Deaths:
    """Stands in every call that changes something: the first life ends before it, the second one after it."""

    armed: bool = False
    after: bool = False
    passed: set[tuple[str, bool]] = field(default_factory=set)
    """Whoever died of something once doesn't again: a revert is done in every life."""

    def around(self, what: str, call: Callable[[], Any]) -> Any:
        moment = (what, self.after)
        if not self.armed or moment in self.passed:
            return call()
        self.armed = False
        self.passed.add(moment)
        if self.after:
            call()
        raise Killed

    def outlive(self, step: Callable[[], object]) -> None:
        """Have a step done by one life after the other, until one ends it."""
        alive = False
        while not alive:
            self.armed = True
            try:
                step()
                alive = True
            except Killed:
                self.after = not self.after
            finally:
                self.armed = False


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    """Every change that a proxy makes goes through this."""
    found = Deaths()
    soap, write = SoapStubAdapter.InvokeMethod, ServedSink.write_from

    def invoke(stub: Any, target: Any, info: Any, *rest: Any) -> Any:
        def call() -> Any:
            return soap(stub, target, info, *rest)

        return found.around(str(info.wsdlName), call) if info.wsdlName.endswith("_Task") else call()

    def write_from(sink: ServedSink, offset: int, view: memoryview) -> None:
        found.around("write", lambda: write(sink, offset, view))

    monkeypatch.setattr(SoapStubAdapter, "InvokeMethod", invoke)
    monkeypatch.setattr(ServedSink, "write_from", write_from)
    return found


@contextmanager
def another(one: Original) -> Iterator[Original]:
    """The same, where a proxy that has just started sees to it."""
    with one.proxy.another() as other:
        yield replace(one, proxy=other)


@pytest.mark.parametrize("undone", [False, True], ids=["committed", "undone"])
def test_a_failback_is_finished_or_undone_whenever_a_proxy_dies(
    original: Original, deaths: Deaths, *, undone: bool
) -> None:
    settings, before, brought = original.settings, original.content, original.proxy.original.read_bytes()

    def survive(step: Callable[[Original], object]) -> None:
        def life() -> None:
            with another(original) as seen:
                step(seen)

        deaths.outlive(life)

    survive(lambda seen: seen.open())
    survive(lambda seen: seen.keep())
    survive(lambda seen: seen.receive())
    assert original.content == brought
    survive(lambda seen: seen.mark(ReplicaCondition.FAILED_OVER))
    original.write(0, b"written since")
    if undone:
        survive(lambda seen: seen.revert())
    survive(lambda seen: seen.mark(ReplicaCondition.PERMANENT))

    changes = {"ReconfigVM_Task", "CreateSnapshot_Task", "write", "PowerOnVM_Task", "RemoveSnapshot_Task"}
    changes |= {"PowerOffVM_Task", "RevertToSnapshot_Task"} if undone else set()
    assert deaths.passed == {(what, after) for what in changes for after in (False, True)}
    assert original.content == (before if undone else b"written since" + brought[13:])
    assert original.vm.powered_on is not undone
    assert original.vm.snapshots == ()
    assert original.settings == settings
