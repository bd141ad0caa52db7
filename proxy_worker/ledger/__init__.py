"""What runs now: which proxy holds which task until when, how far it is, and how it ended.

Celery carries `(task_id, dispatch_number)`; the ledger, in Redis, decides. A task goes
`READY -> DISPATCHED(n, deadline) -> RUNNING(fence, lease) -> DONE | FAILED`, or to `CANCELLED`. Every
transition is one Lua script (`lua/*.lua`) on the server's time that may be repeated without harm, so that a
call whose answer was lost is simply made again. `lua/schema.lua` is the only place that knows a key's name.

- **fence**: who holds a task: epoch, counter and a random token. A call with another fence is answered lost.
- **epoch**: raised by the scheduler when it rebuilds the ledger from its database.
- **slot**: one of a proxy's `max_concurrent_tasks`; held from the claim, or from a reservation at dispatch.
- **cap**: a limit across proxies, e.g. `repository:main`; held from dispatch until the task ends or is ready again.
- **lease**: how long a holder may go on without renewing. Counted in ledger time, which stands still while
  nobody reaps and while the server itself was away.

It must not know what a task does, and has no secret to keep: checkpoints and results come sealed.
"""

from proxy_worker.ledger.access import RedisAccess
from proxy_worker.ledger.client import Ledger
from proxy_worker.ledger.errors import (
    LedgerCertificateError,
    LedgerEmptyError,
    LedgerFullError,
    LedgerPasswordError,
    LedgerReadOnlyError,
    LedgerUnavailableError,
    ProxyNameTakenError,
    StaleEpochError,
)
from proxy_worker.ledger.records import (
    Claim,
    Fence,
    FinishedTask,
    FleetView,
    Forfeited,
    NewTask,
    ProxyIdentity,
    ProxyOrders,
    ProxyView,
    Reaped,
    Refusal,
    Refused,
    RenewAnswer,
    TaskState,
    TaskVerdict,
    TaskView,
)
from proxy_worker.ledger.shares import Flow, Share, Traffic
from proxy_worker.ledger.timings import Timings

__all__ = [
    "Claim",
    "Fence",
    "FinishedTask",
    "FleetView",
    "Flow",
    "Forfeited",
    "Ledger",
    "LedgerCertificateError",
    "LedgerEmptyError",
    "LedgerFullError",
    "LedgerPasswordError",
    "LedgerReadOnlyError",
    "LedgerUnavailableError",
    "NewTask",
    "ProxyIdentity",
    "ProxyNameTakenError",
    "ProxyOrders",
    "ProxyView",
    "Reaped",
    "RedisAccess",
    "Refusal",
    "Refused",
    "RenewAnswer",
    "Share",
    "StaleEpochError",
    "TaskState",
    "TaskVerdict",
    "TaskView",
    "Timings",
    "Traffic",
]
