"""The ledger's calls as its tests make them, and a clock that they move."""

from __future__ import annotations

import redis

from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import RepositoryAbandonResult, TaskFailure
from proxy_worker.ledger import (
    Claim,
    Ledger,
    NewTask,
    ProxyIdentity,
    Refusal,
    Refused,
    TaskState,
    Timings,
)

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
