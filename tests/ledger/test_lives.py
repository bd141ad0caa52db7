"""Proxies come, go and come back; so do schedulers, and the server itself."""

from __future__ import annotations

import pytest

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import (
    Ledger,
    ProxyIdentity,
    ProxyNameTakenError,
    Refusal,
    Refused,
    RenewAnswer,
    StaleEpochError,
    TaskState,
)
from proxy_worker.ledger.errors import LedgerEmptyError
from tests.ledger.calls import PROXY, TIMINGS, Clock, claim, dispatch, held, registration, state, submit


def test_live_namesake_and_live_clone_are_refused(ledger: Ledger) -> None:
    for stranger in (
        ProxyIdentity("proxy-1", "other instance", life="b", lock="other lock"),
        ProxyIdentity("proxy-1", "instance", life="b", lock="lock of another machine"),
    ):
        with pytest.raises(ProxyNameTakenError, match=r"has registered it, at site 'primary'"):
            ledger.register(registration(), stranger)
    assert ledger.heartbeat(PROXY) is not None


def test_new_life_with_the_same_lock_gets_the_former_ones_tasks_back(ledger: Ledger) -> None:
    claimed = held(ledger)
    reborn = ProxyIdentity("proxy-1", "instance", life="next life", lock="lock")

    assert ledger.register(registration(), reborn) == ("t1",)

    assert state(ledger) is TaskState.READY
    assert ledger.renew(claimed.fence) is RenewAnswer.LOST
    with pytest.raises(ProxyNameTakenError):
        ledger.heartbeat(PROXY)
    submit(ledger, "t2")
    dispatch(ledger, "t2")
    assert claim(ledger, "t2") == Refused("unregistered", requeued=True)


def test_name_is_free_once_its_holder_has_left(ledger: Ledger) -> None:
    ledger.depart(PROXY)

    ledger.register(registration(), ProxyIdentity("proxy-1", "other", life="b", lock="other lock"))

    assert ledger.view().proxies["proxy-1"].live


def test_what_was_reserved_for_a_proxy_that_leaves_is_ready_at_once(ledger: Ledger) -> None:
    submit(ledger)
    dispatch(ledger, proxy="proxy-1")

    ledger.depart(PROXY)

    task = ledger.view().tasks["t1"]
    assert (task.state, task.note) == (TaskState.READY, "proxy-1 has left")
    assert dispatch(ledger, proxy="proxy-1") == Refusal("proxy-away", "proxy-1")


def test_higher_epoch_takes_over_and_slots_stay_taken_for_one_lease(ledger: Ledger, clock: Clock) -> None:
    claimed = held(ledger)
    ledger.open_epoch(2, TIMINGS)

    assert ledger.renew(claimed.fence) is RenewAnswer.LOST
    assert ledger.view().tasks == {}
    assert ledger.view().proxies["proxy-1"].slots_used == 1
    clock.reap_for(70)
    assert ledger.view().proxies["proxy-1"].slots_used == 0


def test_scheduler_of_a_lower_epoch_can_do_nothing(ledger: Ledger, valkey: EmbeddedValkey) -> None:
    with Ledger(valkey.url, password=valkey.password) as other:
        other.open_epoch(2, TIMINGS)
    with pytest.raises(StaleEpochError, match="epoch 2 is in force"):
        submit(ledger)
    with pytest.raises(StaleEpochError):
        ledger.open_epoch(2, TIMINGS)


def test_scheduler_that_stood_by_goes_on_with_what_runs_and_the_former_one_can_do_nothing(
    ledger: Ledger, valkey: EmbeddedValkey
) -> None:
    claimed = held(ledger)
    with Ledger(valkey.url, password=valkey.password) as other:
        other.join_epoch(1, TIMINGS, term=2)
        assert ledger.renew(claimed.fence) is RenewAnswer.OK
        with pytest.raises(StaleEpochError, match="another scheduler has taken over within it"):
            ledger.cancel("t1")
        with pytest.raises(StaleEpochError):
            ledger.join_epoch(1, TIMINGS, term=1)
        assert other.cancel("t1")


def test_ledger_that_lost_its_data_gives_out_no_slot_for_one_lease(ledger: Ledger, clock: Clock) -> None:
    held(ledger)
    clock.lose_everything()
    with pytest.raises(LedgerEmptyError, match="the ledger is empty"):
        submit(ledger)
    assert ledger.heartbeat(PROXY) is None, "the proxy is to register again"

    ledger.open_epoch(2, TIMINGS)
    ledger.register(registration(), PROXY)
    submit(ledger, "t1")
    assert dispatch(ledger) == Refusal("quiet")

    clock.reap_for(70)
    assert dispatch(ledger) == 1


def test_restarted_scheduler_joins_the_epoch_that_is_open(ledger: Ledger, valkey: EmbeddedValkey) -> None:
    held(ledger)
    with Ledger(valkey.url, password=valkey.password) as restarted:
        assert restarted.epoch() == 1
        restarted.join_epoch(1, TIMINGS)
        assert state(restarted) is TaskState.RUNNING
        submit(restarted, "t2")


def test_what_was_announced_to_a_former_life_alone_is_ready_at_once(ledger: Ledger) -> None:
    for task_id, proxy in (("for it", "proxy-1"), ("for all", None)):
        submit(ledger, task_id)
        dispatch(ledger, task_id, proxy=proxy)

    ledger.register(registration(), ProxyIdentity("proxy-1", "instance", life="next life", lock="lock"))

    assert state(ledger, "for it") is TaskState.READY, "the dead process may have taken the message with it"
    assert state(ledger, "for all") is TaskState.DISPATCHED
    assert ledger.view().proxies["proxy-1"].slots_used == 0


def test_what_was_announced_before_the_server_restarted_is_ready_at_once(ledger: Ledger, clock: Clock) -> None:
    held(ledger, "running")
    submit(ledger, "announced")
    dispatch(ledger, "announced")
    clock.restart_server()

    assert ledger.reap().requeued == ("announced",)
    assert state(ledger, "running") is TaskState.RUNNING
    assert ledger.reap().requeued == ()
