"""The ledger against a model, in any order of calls, answers lost, leases run out, epochs and restarts.

Whatever happens: never two live holders of a task, never over a slot or cap limit, nothing leaks, everything ends.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import RepositoryAbandonResult, TaskFailure
from proxy_worker.ledger import (
    Claim,
    Fence,
    Ledger,
    NewTask,
    ProxyIdentity,
    ProxyNameTakenError,
    RenewAnswer,
    TaskState,
    Timings,
)
from tests.servers import PASSWORD

TIMINGS = Timings(
    lease_s=600, dispatch_deadline_s=300, tick_s=100_000, reap_grace_s=0, proxy_timeout_s=1000, max_lost_attempts=5
)
MARGIN_S = 100.0
"""More than an example takes, and less than the lease."""
PROXIES = {"proxy-a": 1, "proxy-b": 2}
CAPS = {"repository:main": 2}
TROUBLES = ["restart", "namesake", "leases", "rebuild", "early"]
KINDS = st.sampled_from(
    [TaskKind.DISK_BACKUP, TaskKind.DISK_BACKUP, TaskKind.DISK_RESTORE, TaskKind.REPOSITORY_LIST]
)
RESULT = RepositoryAbandonResult(committed=False)
FAILURE = TaskFailure(code="source", what="disk", retryable=True)


@functools.cache
def server() -> EmbeddedValkey:
    """One for all examples; ends with the process."""
    folder = tempfile.TemporaryDirectory()
    started = EmbeddedValkey(Path(folder.name), PASSWORD, extra_settings=["appendonly no"]).start()
    atexit.register(folder.cleanup)
    atexit.register(started.kill)
    return started


@dataclasses.dataclass
class Held:
    """What the model knows of a task that somebody holds."""

    fence: Fence
    proxy: str
    life: str


class LedgerMachine(RuleBasedStateMachine):
    """Any number of proxies' lives and one scheduler, on one ledger."""

    messages = Bundle("messages")
    fences = Bundle("fences")

    def __init__(self) -> None:
        super().__init__()
        started = server()
        self.raw = redis.Redis(port=started.port, password=PASSWORD, decode_responses=True)
        self.raw.flushall()
        self.ledger = Ledger(started.url, password=PASSWORD)
        self.epoch = 1
        self.ledger.open_epoch(1, TIMINGS)
        self.kinds: dict[str, TaskKind] = {}
        self.numbers: dict[str, int] = {}
        self.held: dict[str, Held] = {}
        self.ended: dict[str, TaskState] = {}
        self.lives: dict[str, ProxyIdentity] = {}
        self.residue: dict[str, list[float]] = {name: [] for name in PROXIES}
        self.counter = 0

    def teardown(self) -> None:
        """Everything that was submitted ends, and nothing is left behind."""
        self.wait_out_every_lease()
        for task_id, kind in self.kinds.items():
            if task_id in self.ended:
                continue
            self.ledger.reap()
            for name in PROXIES:
                self.restart_proxy(name)
            number = self.ledger.dispatch(
                task_id, lane="proxy.proxy-a", proxy="proxy-a", caps=CAPS, sign=lambda _: b"s"
            )
            assert isinstance(number, int), (task_id, number)
            claim = self.claim(task_id, number, "proxy-a")
            assert isinstance(claim, Claim), (kind, claim)
            assert self.ledger.complete(claim.fence, RESULT)
        ended = self.ledger.finished()
        assert {task.task_id for task in ended} == set(self.kinds)
        self.ledger.acknowledge(task.task_id for task in ended)
        left = {
            key
            for key in self.raw.scan_iter()
            if not key.startswith(("{pf}:proxy:", "{pf}:orders:", "{pf}:residue:"))
        }
        assert left <= {"{pf}:meta", "{pf}:proxies", "{pf}:bell"}, left
        self.ledger.close()
        self.raw.close()

    @initialize()
    def proxies_register(self) -> None:
        for name in PROXIES:
            self.restart_proxy(name)

    def submit(self, kind: TaskKind, capped: bool) -> str:
        task_id = f"task-{len(self.kinds)}"
        self.kinds[task_id] = kind
        self.submit_again(task_id, capped)
        return task_id

    def submit_again(self, task_id: str, capped: bool = True) -> None:
        caps = tuple(CAPS) if capped else ()
        self.ledger.submit(NewTask(task_id, self.kinds[task_id], f"title of {task_id}", caps))

    @rule(target=messages, kind=KINDS, capped=st.booleans(), proxy=st.sampled_from([None, *PROXIES]))
    def submit_and_dispatch(self, kind: TaskKind, capped: bool, proxy: str | None) -> Any:
        return self.dispatch_to(self.submit(kind, capped), proxy)

    @rule(target=messages, data=st.data(), proxy=st.sampled_from([None, *PROXIES]))
    def dispatch(self, data: st.DataObject, proxy: str | None) -> Any:
        task_id = self.any_task(data)
        return self.dispatch_to(task_id, proxy) if task_id else multiple()

    def dispatch_to(self, task_id: str, proxy: str | None) -> Any:
        answer = self.ledger.dispatch(
            task_id, lane=self.lane(proxy), proxy=proxy, caps=CAPS, sign=lambda n: b"specification %d" % n
        )
        if not isinstance(answer, int):
            return multiple()
        self.numbers[task_id] = answer
        return (task_id, answer, proxy)

    @rule(target=fences, message=messages, name=st.sampled_from(list(PROXIES)), again=st.booleans())
    def message_arrives(self, message: tuple[str, int, str | None], name: str, again: bool) -> Any:
        """Now or much later, once or twice, where it was sent to or not."""
        task_id, number, addressed = message
        token = f"token {self.counter}"
        self.counter += 1
        lane = self.lane(addressed)
        answers = [
            self.ledger.claim(
                task_id, number, kind=self.kinds[task_id], lane=lane, identity=self.lives[name], token=token
            )
            for _ in range(2 if again else 1)
        ]
        if again and isinstance(answers[0], Claim):
            assert isinstance(answers[1], Claim), "a repeated claim is answered alike"
            assert answers[1].fence == answers[0].fence
        claim = answers[0]
        if not isinstance(claim, Claim):
            return multiple()
        assert task_id not in self.held, "two live holders"
        assert task_id not in self.ended
        assert addressed in (None, name)
        assert number == self.numbers[task_id], "a message that is no longer in force"
        former = [held.fence.number for held in self.held.values()]
        assert all(number < claim.fence.number for number in former), "fences rise"
        self.held[task_id] = Held(claim.fence, name, self.lives[name].life)
        return claim.fence

    @rule(fence=fences, checkpoint=st.sampled_from([None, "sealed"]))
    def renew(self, fence: Fence, checkpoint: str | None) -> None:
        answer = self.ledger.renew(fence, checkpoint)
        assert (answer is not RenewAnswer.LOST) == self.is_holder(fence)

    @rule(fence=fences, succeed=st.booleans(), again=st.booleans())
    def finish(self, fence: Fence, succeed: bool, again: bool) -> None:
        holder = self.is_holder(fence)
        cancelled = holder and self.ledger.view().tasks[fence.task_id].verdict == "cancel"
        finish = self.ledger.complete if succeed else self.ledger.fail
        accepted = finish(fence, RESULT if succeed else FAILURE)  # type: ignore[operator]
        if holder:
            assert accepted
            del self.held[fence.task_id]
            self.ended[fence.task_id] = (
                TaskState.DONE if succeed else TaskState.CANCELLED if cancelled else TaskState.FAILED
            )
        if again:
            assert finish(fence, RESULT if succeed else FAILURE) == accepted  # type: ignore[operator]

    @rule(fence=fences)
    def hand_back(self, fence: Fence) -> None:
        holder = self.is_holder(fence)
        cancelled = holder and self.ledger.view().tasks[fence.task_id].verdict == "cancel"
        assert self.ledger.release(fence, "sealed") == holder
        if holder:
            del self.held[fence.task_id]
            if cancelled:
                self.ended[fence.task_id] = TaskState.CANCELLED

    @rule(data=st.data(), verdict=st.sampled_from(["run", "pause", "cancel"]))
    def judge(self, data: st.DataObject, verdict: str) -> None:
        task_id = self.any_task(data)
        if task_id is None:
            return
        assert self.ledger.set_verdict(task_id, verdict) == (task_id not in self.ended)
        if verdict == "cancel" and task_id not in self.held:
            self.ended.setdefault(task_id, TaskState.CANCELLED)

    @rule(name=st.sampled_from(list(PROXIES)), what=st.sampled_from(TROUBLES))
    def trouble(self, name: str, what: str) -> None:
        match what:
            case "restart":
                self.restart_proxy(name)
            case "namesake":
                self.namesake_is_refused(name)
            case "leases":
                self.wait_out_every_lease()
            case "rebuild":
                self.scheduler_rebuilds()
            case "early":
                self.reap_too_early()

    def restart_proxy(self, name: str) -> None:
        former = self.lives.get(name)
        self.counter += 1
        life = ProxyIdentity(name, f"instance of {name}", life=f"life {self.counter}", lock=f"lock of {name}")
        announced = {
            task.task_id
            for task in self.ledger.view().tasks.values()
            if task.state is TaskState.DISPATCHED and task.proxy == name
        }
        freed = self.ledger.register(self.registration(name), life)
        held = {task for task, held in self.held.items() if former and held.life == former.life}
        assert set(freed) == held | (announced if former else set())
        self.lives[name] = life
        self.drop(held)

    def namesake_is_refused(self, name: str) -> None:
        for stranger in (
            ProxyIdentity(name, "other instance", life="other", lock="other lock"),
            ProxyIdentity(name, f"instance of {name}", life="clone", lock="lock on another machine"),
        ):
            try:
                self.ledger.register(self.registration(name), stranger)
            except ProxyNameTakenError:
                continue
            raise AssertionError("two proxies of one name")

    @rule(message=consumes(messages), name=st.sampled_from(list(PROXIES)))
    def process_dies(self, message: tuple[str, int, str | None], name: str) -> None:
        """With the message, before or after it has claimed."""
        task_id, number, _ = message
        held = self.held.get(task_id)
        if held is not None and held.proxy != name:
            assert not self.ledger.forfeit(task_id, number, self.lives[name]), "somebody else's process died"
            return
        self.ledger.forfeit(task_id, number, self.lives[name])
        state = self.state_of(task_id)
        if state is not TaskState.RUNNING:
            self.drop({task_id} & set(self.held))
        self.notice_lost(task_id)

    def wait_out_every_lease(self) -> None:
        """All of them at once: a pass later than the longest of them."""
        self.pass_time(TIMINGS.lease_s + MARGIN_S)
        reaped = self.ledger.reap()
        assert set(self.held) <= {*reaped.requeued, *reaped.ended}
        lost = set(self.held)
        self.drop(lost)
        for task_id in reaped.ended:
            self.notice_lost(task_id)

    def reap_too_early(self) -> None:
        """Twice: what was renewed in between is not given up."""
        for _ in range(2):
            for held in self.held.values():
                assert self.ledger.renew(held.fence) is not RenewAnswer.LOST
            self.pass_time(TIMINGS.lease_s - MARGIN_S)
            reaped = self.ledger.reap()
            assert not set(self.held) & {*reaped.requeued, *reaped.ended}

    def scheduler_rebuilds(self) -> None:
        """A higher epoch: holders are lost, but their slots stay taken for one lease."""
        for held in self.held.values():
            if self.kinds[held.fence.task_id].takes_slot:
                self.residue[held.proxy].append(TIMINGS.lease_s - MARGIN_S / 2)
        self.epoch += 1
        self.ledger.open_epoch(self.epoch, TIMINGS)
        self.held.clear()
        for task_id in self.kinds:
            if task_id not in self.ended:
                self.submit_again(task_id)

    @invariant()
    def limits_hold(self) -> None:
        view = self.ledger.view()
        running = dict.fromkeys(PROXIES, 0)
        for held in self.held.values():
            if self.kinds[held.fence.task_id].takes_slot:
                running[held.proxy] += 1
        for name, slots in PROXIES.items():
            assert running[name] + len(self.residue[name]) <= view.proxies[name].slots_used <= slots
        for cap, limit in CAPS.items():
            assert view.caps.get(cap, 0) <= limit

    @invariant()
    def agrees_with_model(self) -> None:
        view = self.ledger.view()
        assert set(view.tasks) == set(self.kinds) - set(self.ended)
        running = {task_id for task_id, task in view.tasks.items() if task.state is TaskState.RUNNING}
        assert running == set(self.held)
        reserved = {
            name: {
                task.task_id
                for task in view.tasks.values()
                if task.kind.takes_slot
                and task.proxy == name
                and task.state in (TaskState.DISPATCHED, TaskState.RUNNING)
            }
            for name in PROXIES
        }
        for name, tasks in reserved.items():
            assert set(self.raw.smembers(f"{{pf}}:slots:{name}")) == tasks, "slots leak or are lost"
        for cap in CAPS:
            holders = self.raw.smembers(f"{{pf}}:cap:{cap}")
            assert all(view.tasks[task].state in (TaskState.DISPATCHED, TaskState.RUNNING) for task in holders)
        finished = {task.task_id: task.state for task in self.ledger.finished()}
        assert finished == self.ended

    def claim(self, task_id: str, number: int, name: str) -> Any:
        return self.ledger.claim(
            task_id, number, kind=self.kinds[task_id], lane=self.lane(name), identity=self.lives[name]
        )

    def any_task(self, data: st.DataObject) -> str | None:
        return data.draw(st.sampled_from(sorted(self.kinds))) if self.kinds else None

    def is_holder(self, fence: Fence) -> bool:
        held = self.held.get(fence.task_id)
        return held is not None and held.fence == fence

    def drop(self, tasks: set[str]) -> None:
        for task_id in tasks:
            del self.held[task_id]
            self.notice_lost(task_id)

    def notice_lost(self, task_id: str) -> None:
        """A task whose holders vanish again and again fails by itself, or ends if it was to be cancelled."""
        state = {task.task_id: task.state for task in self.ledger.finished()}.get(task_id)
        if state is not None:
            assert state in (TaskState.FAILED, TaskState.CANCELLED) or task_id in self.ended
            self.ended.setdefault(task_id, state)

    def state_of(self, task_id: str) -> TaskState | None:
        task = self.ledger.view().tasks.get(task_id)
        return task.state if task else None

    def pass_time(self, seconds: float) -> None:
        """Let ledger time go by, as if the last pass had been so long ago."""
        self.raw.hincrbyfloat("{pf}:meta", "passed_at", -seconds)
        for name, leases in self.residue.items():
            self.residue[name] = [left_s - seconds for left_s in leases if left_s > seconds]

    @staticmethod
    def lane(proxy: str | None) -> str:
        return f"proxy.{proxy}" if proxy else "disk.primary.network"

    @staticmethod
    def registration(name: str) -> ProxyRegistration:
        return ProxyRegistration(
            name=name,
            instance_id=f"instance of {name}",
            site="primary",
            max_concurrent_tasks=PROXIES[name],
            datastores={},
            modes=(),
            credentials={},
            version="1",
            contract_version=1,
        )


LedgerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLedgerAgainstModel = LedgerMachine.TestCase
