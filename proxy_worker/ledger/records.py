"""What goes into the ledger and comes out of it. Times are the server's Unix seconds, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import TaskAttempt, TaskFailure, TaskResult
from proxy_worker.contract.versions import written_for


class TaskState(StrEnum):
    """Where a task is in its life."""

    READY = "ready"
    RESERVED = "reserved"
    """The second of a pair: it has its slot, and is announced once the first is ready for it."""
    DISPATCHED = "dispatched"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskVerdict(StrEnum):
    """What the scheduler wants a task's holder to do."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class RenewAnswer(StrEnum):
    """What the ledger says to a holder: whether the lease is its own for another while, and what to do."""

    OK = "ok"
    PAUSE = "pause"
    CANCEL = "cancel"
    LOST = "lost"


@dataclass(frozen=True)
class Fence:
    """The right to work on a task; any later holder's counter is higher."""

    task_id: str
    epoch: int
    counter: int
    token: str

    @property
    def number(self) -> int:
        """What the repository orders attempts by."""
        return self.epoch << 32 | self.counter


@dataclass(frozen=True)
class NewTask:
    """A task as the scheduler submits it."""

    task_id: str
    kind: TaskKind
    title: str
    """What people see, in Flower too, e.g. `disk.backup web01 scsi0:0`."""
    caps: tuple[str, ...] = ()
    """Limits it counts against from dispatch to its end, e.g. `repository:main`."""
    checkpoint: str | None = None
    """Sealed; where an earlier task got to."""

    @property
    def takes_slot(self) -> bool:
        """Whether it counts against a proxy's `max_concurrent_tasks`."""
        return self.kind.takes_slot


@dataclass(frozen=True)
class Refusal:
    """Why a task was not dispatched. Nothing has changed."""

    code: str
    """`not-ready`, `cap-full`, `proxy-full`, `proxy-disabled`, `proxy-away`, `quiet` (leases of a former epoch)."""
    detail: str = ""
    """The cap or the proxy."""


@dataclass(frozen=True)
class Refused:
    """Why a claim was not granted."""

    code: str
    """About the message: `no-epoch`, `unknown`, `stale`, `altered`, `wrong-lane`, `wrong-proxy`; about the proxy:
    `unregistered`, `disabled`, `full`; about the fleet: `quiet`, leases of a former epoch."""
    requeued: bool
    """Whether the task became ready again at once; otherwise the message was not valid and nothing changed."""


@dataclass(frozen=True)
class Claim:
    """A granted claim."""

    fence: Fence
    title: str
    signed: bytes
    """The specification as the scheduler signed it; to be verified before anything is done."""
    checkpoint: str | None
    server_time: float
    lease_s: float


class Forfeited(StrEnum):
    """What becomes of a task whose process died."""

    READY = "ok"
    """Somebody else may take it."""
    ENDED = "ended"
    """It was cancelled, or is quarantined."""


@dataclass(frozen=True)
class ProxyIdentity:
    """One life of one proxy."""

    name: str
    instance_id: str
    """Kept in the state folder."""
    life: str
    """Random, new at every start."""
    lock: str = ""
    """Names the host lock that this life holds. Who holds the same lock later proves that this life is over."""


@dataclass(frozen=True)
class ProxyOrders:
    """What the scheduler wants a proxy to do; the answer to a heartbeat."""

    lanes: tuple[str, ...] = ()
    enabled: bool = True
    max_concurrent_tasks: int | None = None
    """None: as registered."""
    server_time: float | None = None
    """The ledger's Unix time when it gave them."""


@dataclass(frozen=True)
class ProxyView:
    """A proxy as the ledger knows it."""

    name: str
    registration: ProxyRegistration
    orders: ProxyOrders
    live: bool
    """Whether its last heartbeat is recent and it has not left."""
    draining: bool
    """Finishing what it has and taking nothing new."""
    heartbeat_age_s: float
    slots_used: int
    """Held by running tasks, by reservations, and by tasks of a former epoch whose lease isn't over."""
    lost_leases: int = 0
    """How often a task of its was given up without a word from it, since Redis last lost its data."""
    note: str = ""
    """Why it takes nothing new although nobody told it so, e.g. that its disk is full."""
    left: bool = False
    """Whether it has ended in order."""
    refusal: str = ""
    """Why this version gives it no tasks: it speaks another version of the contract."""

    @property
    def slots(self) -> int:
        """How many disk tasks it may run at once."""
        ordered = self.orders.max_concurrent_tasks
        registered = self.registration.max_concurrent_tasks
        return registered if ordered is None else min(ordered, registered)


@dataclass(frozen=True)
class TaskView:
    """A task that has not ended."""

    task_id: str
    kind: TaskKind
    title: str
    state: TaskState
    dispatch_number: int
    lane: str | None
    proxy: str | None
    """Who holds it, or whose slot is reserved for it."""
    fence_number: int | None
    attempts: int
    """How often it was claimed."""
    since: float
    """When it entered this state."""
    progress: DiskProgress | None
    verdict: TaskVerdict
    note: str
    """What happened to it last, for people: `proxy-2 stopped renewing`. Empty when there is nothing to say."""


@dataclass(frozen=True)
class FleetView:
    """The whole ledger at one moment."""

    epoch: int | None
    server_time: float
    quiet_s: float
    """For so long no disk may start yet, because leases of a lost ledger may still be trusted."""
    tasks: Mapping[str, TaskView]
    proxies: Mapping[str, ProxyView]
    caps: Mapping[str, int]
    """How many tasks hold each cap; those that nobody holds are absent."""
    refused_fences: int = 0
    """How often a holder was told that its fence holds no more, since Redis last lost its data."""

    @property
    def contract_version(self) -> int:
        """The version that specifications have to be written in while every proxy is to read them."""
        return written_for(proxy.registration.contract_version for proxy in self.proxies.values() if proxy.live)


@dataclass(frozen=True)
class FinishedTask:
    """A task that has ended and waits to be acknowledged."""

    task_id: str
    kind: TaskKind
    title: str
    state: TaskState
    fence_number: int | None
    """Of its last holder; None when nobody ever held it."""
    proxy: str | None
    attempts: int
    started_at: float | None
    """When its last holder claimed it."""
    ended_at: float
    result: TaskResult | None
    failure: TaskFailure | None
    checkpoint: str | None
    """What a new task of the same run can go on from."""
    history: tuple[TaskAttempt, ...] = ()
    """The newest of its attempts, the last one last."""


@dataclass(frozen=True)
class Reaped:
    """What a reaping pass did."""

    requeued: tuple[str, ...]
    """Tasks that are ready again."""
    ended: tuple[str, ...]
    """Tasks that failed for good, or whose cancellation is complete."""
