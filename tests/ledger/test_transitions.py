"""The ledger call by call: what is granted, what is refused, what time does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import DiskProgress, ProxyRegistration, RepositoryAbandonResult, TaskFailure
from proxy_worker.ledger import (
    Claim,
    Ledger,
    NewTask,
    ProxyIdentity,
    ProxyNameTakenError,
    Refusal,
    Refused,
    RenewAnswer,
    StaleEpochError,
    TaskState,
    TaskVerdict,
    Timings,
)
from proxy_worker.ledger.errors import LedgerEmptyError

TIMINGS = Timings(lease_s=60, dispatch_deadline_s=30, tick_s=10, reap_grace_s=20, max_lost_attempts=2)
PROXY = ProxyIdentity("proxy-1", "instance", life="life", lock="lock")
LANE = "disk.primary.network"
RESULT = RepositoryAbandonResult(committed=False)
FAILURE = TaskFailure(code="source-gone", what="disk")


class Clock:
    """Moves the ledger's idea of when it was last reaped."""

    def __init__(self, ledger: Ledger, client: redis.Redis) -> None:
        self._ledger = ledger
        self._client = client

    def reap_after(self, seconds: float) -> list[str]:
        """One pass that long after the last."""
        self._client.hincrbyfloat("{pf}:meta", "passed_at", -seconds)
        reaped = self._ledger.reap()
        return [*reaped.requeued, *reaped.ended]

    def reap_for(self, seconds: float) -> list[str]:
        """As many passes as a punctual reaper makes in that time."""
        return [task for _ in range(int(seconds / TIMINGS.tick_s)) for task in self.reap_after(TIMINGS.tick_s)]

    def restart_server(self) -> None:
        """What the ledger sees when the server was restarted."""
        self._client.hset("{pf}:meta", "run_id", "another")

    def lose_everything(self) -> None:
        self._client.flushall()


@pytest.fixture
def ledger(valkey: EmbeddedValkey) -> Iterator[Ledger]:
    with Ledger(valkey.url, password=valkey.password) as opened:
        opened.open_epoch(1, TIMINGS)
        opened.register(registration(), PROXY)
        yield opened


@pytest.fixture
def clock(ledger: Ledger, valkey: EmbeddedValkey) -> Iterator[Clock]:
    with redis.Redis(port=valkey.port, password=valkey.password) as client:
        ledger.reap()
        yield Clock(ledger, client)


def registration(name: str = "proxy-1", slots: int = 2) -> ProxyRegistration:
    return ProxyRegistration(
        name=name,
        instance_id="instance",
        site="primary",
        max_concurrent_tasks=slots,
        datastores={},
        modes=(),
        credentials={},
        version="1",
        contract_version=1,
    )


def submit(ledger: Ledger, task_id: str = "t1", *, caps: tuple[str, ...] = ()) -> str:
    ledger.submit(NewTask(task_id, TaskKind.DISK_BACKUP, f"disk.backup {task_id}", caps))
    return task_id


def dispatch(
    ledger: Ledger, task_id: str = "t1", *, proxy: str | None = None, cap: int | None = None
) -> int | Refusal:
    caps = {"repository:main": cap} if cap is not None else {}
    return ledger.dispatch(task_id, lane=LANE, proxy=proxy, caps=caps, sign=lambda n: b"specification %d" % n)


def claim(
    ledger: Ledger,
    task_id: str = "t1",
    number: int = 1,
    *,
    kind: TaskKind = TaskKind.DISK_BACKUP,
    lane: str = LANE,
    identity: ProxyIdentity = PROXY,
    token: str | None = None,
) -> Claim | Refused:
    return ledger.claim(task_id, number, kind=kind, lane=lane, identity=identity, token=token)


def held(ledger: Ledger, task_id: str = "t1") -> Claim:
    submit(ledger, task_id)
    number = dispatch(ledger, task_id)
    assert isinstance(number, int)
    claimed = claim(ledger, task_id, number)
    assert isinstance(claimed, Claim)
    return claimed


def state(ledger: Ledger, task_id: str = "t1") -> TaskState:
    return ledger.view().tasks[task_id].state


def test_task_is_submitted_dispatched_claimed_and_done(ledger: Ledger) -> None:
    submit(ledger)
    assert state(ledger) is TaskState.READY
    assert dispatch(ledger) == 1
    assert state(ledger) is TaskState.DISPATCHED

    claimed = claim(ledger)

    assert isinstance(claimed, Claim)
    assert (claimed.signed, claimed.title, claimed.checkpoint) == (b"specification 1", "disk.backup t1", None)
    assert ledger.view().proxies["proxy-1"].slots_used == 1
    assert ledger.complete(claimed.fence, RESULT)
    [ended] = ledger.finished()
    assert (ended.state, ended.result, ended.proxy, ended.attempts) == (TaskState.DONE, RESULT, "proxy-1", 1)
    assert ended.fence_number == claimed.fence.number == 1 << 32 | 1
    assert ledger.view().proxies["proxy-1"].slots_used == 0


def test_finished_task_stays_until_it_is_acknowledged(ledger: Ledger) -> None:
    ledger.fail(held(ledger).fence, FAILURE)

    assert [task.failure for task in ledger.finished()] == [FAILURE]
    assert len(ledger.finished()) == 1
    ledger.acknowledge(["t1", "unknown"])
    assert ledger.finished() == []


def test_running_task_is_not_acknowledged_away(ledger: Ledger) -> None:
    held(ledger)

    ledger.acknowledge(["t1"])

    assert state(ledger) is TaskState.RUNNING


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"number": 2}, "stale"),
        ({"number": 0}, "stale"),
        ({"task_id": "never issued"}, "unknown"),
        ({"kind": TaskKind.DISK_RESTORE}, "altered"),
        ({"lane": "proxy.proxy-1"}, "wrong-lane"),
    ],
)
def test_message_that_was_never_issued_or_was_altered_changes_nothing(
    ledger: Ledger, change: dict[str, object], code: str
) -> None:
    submit(ledger)
    dispatch(ledger)

    assert claim(ledger, **change) == Refused(code, requeued=False)  # type: ignore[arg-type]

    assert state(ledger) is TaskState.DISPATCHED


def test_replayed_message_is_refused_while_the_task_runs_and_after(ledger: Ledger) -> None:
    claimed = held(ledger)
    assert claim(ledger) == Refused("stale", requeued=False)

    ledger.complete(claimed.fence, RESULT)
    assert claim(ledger) == Refused("stale", requeued=False)


def test_message_of_an_earlier_dispatch_is_refused(ledger: Ledger, clock: Clock) -> None:
    submit(ledger)
    dispatch(ledger)
    assert clock.reap_for(40) == ["t1"]
    assert dispatch(ledger) == 2

    assert claim(ledger, number=1) == Refused("stale", requeued=False)
    assert isinstance(claim(ledger, number=2), Claim)


def test_claim_whose_answer_was_lost_is_repeated_with_its_token(ledger: Ledger) -> None:
    submit(ledger)
    dispatch(ledger)

    first, second = claim(ledger, token="mine"), claim(ledger, token="mine")

    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert first.fence == second.fence
    assert claim(ledger, token="another's") == Refused("stale", requeued=False)


def test_full_proxy_is_refused_and_the_task_ready_again(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        held(ledger, task_id)
    submit(ledger, "t3")
    dispatch(ledger, "t3")

    assert claim(ledger, "t3") == Refused("full", requeued=True)

    task = ledger.view().tasks["t3"]
    assert (task.state, task.note) == (TaskState.READY, "proxy-1 was full")


def test_upkeep_runs_beside_full_slots(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        held(ledger, task_id)
    ledger.submit(NewTask("u", TaskKind.REPOSITORY_COMMIT, "commit"))
    dispatch(ledger, "u", proxy="proxy-1")

    assert isinstance(claim(ledger, "u", kind=TaskKind.REPOSITORY_COMMIT), Claim)


def test_reservation_holds_a_slot_until_the_message_is_given_up(ledger: Ledger, clock: Clock) -> None:
    for task_id in ("t1", "t2", "t3"):
        submit(ledger, task_id)
    assert dispatch(ledger, "t1", proxy="proxy-1") == 1
    assert dispatch(ledger, "t2", proxy="proxy-1") == 1
    assert dispatch(ledger, "t3", proxy="proxy-1") == Refusal("proxy-full", "proxy-1")

    clock.reap_for(40)

    assert dispatch(ledger, "t3", proxy="proxy-1") == 1


def test_cap_is_held_from_dispatch_to_the_end(ledger: Ledger) -> None:
    for task_id in ("t1", "t2"):
        submit(ledger, task_id, caps=("repository:main",))
    assert dispatch(ledger, "t1", cap=1) == 1
    assert dispatch(ledger, "t2", cap=1) == Refusal("cap-full", "repository:main")
    claimed = claim(ledger)
    assert isinstance(claimed, Claim)
    assert dispatch(ledger, "t2", cap=1) == Refusal("cap-full", "repository:main")

    ledger.complete(claimed.fence, RESULT)

    assert ledger.view().caps == {}
    assert dispatch(ledger, "t2", cap=1) == 1


def test_disabled_or_lowered_proxy_takes_nothing_new(ledger: Ledger) -> None:
    submit(ledger)
    dispatch(ledger)
    ledger.set_proxy("proxy-1", lanes=[LANE], enabled=False)
    assert claim(ledger) == Refused("disabled", requeued=True)
    assert dispatch(ledger, proxy="proxy-1") == Refusal("proxy-disabled", "proxy-1")

    ledger.set_proxy("proxy-1", lanes=[LANE], enabled=True, max_concurrent_tasks=1)
    held(ledger, "t2")
    assert dispatch(ledger, proxy="proxy-1") == Refusal("proxy-full", "proxy-1")
    orders = ledger.heartbeat(PROXY)
    assert orders is not None
    assert (orders.lanes, orders.max_concurrent_tasks) == ((LANE,), 1)


def test_lease_runs_out_unless_it_is_renewed(ledger: Ledger, clock: Clock) -> None:
    renewed, silent = held(ledger, "t1"), held(ledger, "t2")
    clock.reap_for(50)
    assert ledger.renew(renewed.fence) is RenewAnswer.OK

    assert clock.reap_for(50) == ["t2"]

    assert ledger.renew(silent.fence) is RenewAnswer.LOST
    assert ledger.view().tasks["t2"].note == "proxy-1 stopped renewing its lease"
    assert not ledger.complete(silent.fence, RESULT)


def test_a_late_pass_charges_one_tick(ledger: Ledger, clock: Clock) -> None:
    held(ledger)

    assert clock.reap_after(3600) == []
    assert clock.reap_for(40) == []
    assert clock.reap_for(20) == ["t1"]


def test_no_lease_runs_out_while_the_server_has_just_been_away(ledger: Ledger, clock: Clock) -> None:
    held(ledger)
    clock.reap_for(50)
    clock.restart_server()

    assert clock.reap_for(20) == []
    assert clock.reap_for(20) == ["t1"]


def test_a_message_that_was_lost_after_the_server_restarted_is_given_up_as_ever(
    ledger: Ledger, clock: Clock
) -> None:
    clock.restart_server()
    ledger.reap()
    submit(ledger)
    dispatch(ledger)

    assert clock.reap_for(40) == ["t1"]


def test_checkpoint_and_progress_outlive_their_holder(ledger: Ledger, clock: Clock) -> None:
    claimed = held(ledger)
    progress = DiskProgress(size_bytes=10, processed_bytes=3, read_bytes=3, stored_bytes=1, rate=1.5)
    ledger.renew(claimed.fence, "sealed", progress)
    assert ledger.view().tasks["t1"].progress == progress

    clock.reap_for(70)
    dispatch(ledger)
    again = claim(ledger, number=2)

    assert isinstance(again, Claim)
    assert again.checkpoint == "sealed"
    assert again.fence.number > claimed.fence.number


def test_task_that_kills_its_holders_fails_by_itself(ledger: Ledger, clock: Clock) -> None:
    held(ledger)
    clock.reap_for(70)
    dispatch(ledger)
    claim(ledger, number=2)
    clock.reap_for(70)

    [ended] = ledger.finished()
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.retryable) == ("holders-lost", True)
    assert "2 attempts ended without a word" in ended.failure.why


def test_verdicts_reach_the_holder_with_its_next_renewal(ledger: Ledger) -> None:
    fence = held(ledger).fence
    for verdict, answer in (("pause", RenewAnswer.PAUSE), ("run", RenewAnswer.OK), ("cancel", RenewAnswer.CANCEL)):
        assert ledger.set_verdict("t1", verdict)
        assert ledger.renew(fence) is answer
    ledger.set_verdict("t1", TaskVerdict.RUN)
    assert ledger.renew(fence) is RenewAnswer.CANCEL, "cancelling is final"

    ledger.fail(fence, FAILURE)

    assert [task.state for task in ledger.finished()] == [TaskState.CANCELLED]


def test_work_that_was_done_before_the_cancellation_arrived_counts(ledger: Ledger) -> None:
    fence = held(ledger).fence
    ledger.cancel("t1")

    ledger.complete(fence, RESULT)

    assert [task.state for task in ledger.finished()] == [TaskState.DONE]
    assert not ledger.cancel("t1")


def test_task_nobody_holds_is_cancelled_at_once(ledger: Ledger) -> None:
    submit(ledger, "t1")
    submit(ledger, "t2")
    dispatch(ledger, "t2", proxy="proxy-1")

    assert ledger.cancel("t1")
    assert ledger.cancel("t2")

    assert {task.state for task in ledger.finished()} == {TaskState.CANCELLED}
    assert ledger.view().proxies["proxy-1"].slots_used == 0


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


def test_bell_rings_for_what_a_dispatcher_may_act_on(ledger: Ledger) -> None:
    while ledger.wait(0.01):
        pass
    claimed = held(ledger)
    assert not ledger.wait(0.01)

    ledger.complete(claimed.fence, RESULT)

    assert ledger.wait(1)
    assert not ledger.wait(0.01)


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
