"""The clean-up ladder: which step comes next, and what each does."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.vsphere.cleanup import (
    BETWEEN_TRIES_S,
    TRIES,
    Decision,
    Step,
    Trace,
    decide,
    look,
    take,
)
from proxy_worker.vsphere.faults import VsphereError
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import ForeignSnapshotError, Mark, create, tree
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm
from tests.vsphere.test_snapshots import by_user

HOUR = 3600.0
STEPS = (Step.REMOVE, Step.CONSOLIDATE, Step.DELETE_ALL)


def climb(trace: Trace) -> tuple[list[Step], Trace]:
    """The steps of one try when none helps, and the trace after it."""
    taken = []
    while (decision := decide(trace, trace.last_try_at + 100 * HOUR)).step in STEPS:
        taken.append(decision.step)
        trace = dataclasses.replace(trace, taken=(*trace.taken, decision.step))
    return taken, dataclasses.replace(trace, taken=(), tries=trace.tries + 1)


@pytest.mark.parametrize(
    ("trace", "steps"),
    [
        (Trace(0, 0, needs_consolidation=False), []),
        (Trace(0, 3, needs_consolidation=False), []),
        (Trace(1, 0, needs_consolidation=False), [Step.REMOVE, Step.CONSOLIDATE, Step.DELETE_ALL]),
        (Trace(1, 1, needs_consolidation=False), [Step.REMOVE, Step.CONSOLIDATE]),
        (Trace(0, 0, needs_consolidation=True), [Step.CONSOLIDATE, Step.DELETE_ALL]),
        (Trace(0, 1, needs_consolidation=True), [Step.CONSOLIDATE]),
    ],
)
def test_one_try_goes_up_the_ladder(trace: Trace, steps: list[Step]) -> None:
    assert climb(trace)[0] == steps


def test_four_tries_four_hours_apart_and_then_it_is_given_up() -> None:
    trace, now = Trace(1, 0, needs_consolidation=False), 0.0
    for _ in range(TRIES):
        steps, trace = climb(trace)
        assert steps == list(STEPS)
        trace = dataclasses.replace(trace, last_try_at=now)
        waiting = decide(trace, now + 1)
        if trace.tries < TRIES:
            assert waiting == Decision(Step.WAIT, waiting.reason, now + BETWEEN_TRIES_S)
            assert BETWEEN_TRIES_S == 4 * HOUR
        now += BETWEEN_TRIES_S
    assert decide(trace, now).step is Step.GIVE_UP


traces = st.builds(
    Trace,
    ours=st.integers(0, 3),
    others=st.integers(0, 3),
    needs_consolidation=st.booleans(),
    taken=st.lists(st.sampled_from(STEPS), unique=True).map(tuple),
    tries=st.integers(0, TRIES + 1),
    last_try_at=st.floats(0, 1e6),
)


@given(trace=traces, now=st.floats(0, 2e6))
def test_delete_all_is_never_chosen_where_a_user_has_snapshots(trace: Trace, now: float) -> None:
    if decide(trace, now).step is Step.DELETE_ALL:
        assert trace.others == 0
        assert Step.CONSOLIDATE in trace.taken


@given(trace=traces, now=st.floats(0, 2e6))
def test_a_clean_vm_is_left_alone_and_no_step_is_taken_twice(trace: Trace, now: float) -> None:
    decision = decide(trace, now)
    assert (decision.step is Step.NOTHING) == (not trace.ours and not trace.needs_consolidation)
    assert decision.step not in trace.taken
    assert decision.reason


def test_removal_that_fails_is_followed_by_consolidation(vsphere: VsphereSimulator, session: Session) -> None:
    vm, mark = make_vm(session, MIB), Mark("installation-c", "run-1")
    create(session, vm, mark, waiting=IMPATIENT)
    vsphere.go_wrong("RemoveSnapshot_Task", "fail_after", "GenericVmConfigFault")
    vsphere.need_consolidation(vm.ref)
    with pytest.raises(VsphereError, match="removing snapshot"):
        take(session, vm, Step.REMOVE, mark, IMPATIENT)
    assert look(session, vm.ref) == ((), True)
    assert decide(Trace(0, 0, needs_consolidation=True), 0).step is Step.CONSOLIDATE
    take(session, vm, Step.CONSOLIDATE, mark, IMPATIENT)
    assert look(session, vm.ref) == ((), False)


def test_delete_all_takes_ours_and_refuses_where_a_user_has_one(session: Session) -> None:
    vm, mark = make_vm(session, MIB), Mark("installation-c", "run-2")
    create(session, vm, mark, waiting=IMPATIENT)
    take(session, vm, Step.DELETE_ALL, mark, IMPATIENT)
    assert tree(session, vm.ref) == ()
    users = by_user(session, vm)
    with pytest.raises(ForeignSnapshotError, match="before the upgrade"):
        take(session, vm, Step.DELETE_ALL, mark, IMPATIENT)
    assert [node.ref for node in tree(session, vm.ref)] == [users]
