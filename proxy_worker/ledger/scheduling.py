"""The scheduler's side of the ledger: submit, dispatch, watch, reap, collect."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from proxy_worker.ledger.connection import Connection
from proxy_worker.ledger.errors import LedgerEmptyError, StaleEpochError
from proxy_worker.ledger.reading import finished_task, proxy_view, task_view
from proxy_worker.ledger.records import FinishedTask, FleetView, NewTask, Reaped, Refusal, TaskVerdict
from proxy_worker.ledger.shares import Traffic, traffic_arguments
from proxy_worker.ledger.timings import DEFAULT_TIMINGS, Timings


class SchedulerSide(Connection):
    """What the scheduler does. Calls that change something need an epoch, opened or joined, that is still in force.

    All raise `LedgerError`s when Redis can't be used, and `StaleEpochError` when another scheduler took over.
    """

    _epoch: int | None = None
    _term = 0

    def epoch(self) -> int | None:
        """The epoch in force; None when this ledger is new or has lost its data."""
        return self.view().epoch

    def open_epoch(self, epoch: int, timings: Timings = DEFAULT_TIMINGS, *, term: int = 0) -> None:
        """Begin `epoch`, which must be higher than any before; keep it durably elsewhere first.

        Where several schedulers stand by, `term` is higher for each that takes over.

        Tasks that have not ended are forgotten and must be submitted again; their holders are answered lost,
        and their slots stay taken for one lease. When the ledger had lost its data and so doesn't know them, no
        slot is given out for one lease. Tasks that ended stay until they are acknowledged.
        """
        answer, current = self._run("open_epoch", epoch, timings.model_dump_json(), term)
        if answer != "ok":
            raise _stale(epoch, current)
        self._epoch, self._term = epoch, term

    def join_epoch(self, epoch: int, timings: Timings = DEFAULT_TIMINGS, *, term: int = 0) -> None:
        """Go on with what the ledger holds, as after a restart of the scheduler alone; sets the timings anew.

        A scheduler of an earlier `term` is refused from now on, though the epoch is the same.
        """
        answer, current = self._run("join_epoch", epoch, timings.model_dump_json(), term)
        if answer != "ok":
            raise _stale(epoch, current)
        self._epoch, self._term = epoch, term

    def submit(self, task: NewTask) -> None:
        """Make a task ready to be dispatched. A task id that is known already is left as it is."""
        self._guarded(
            "submit",
            task.task_id,
            task.kind,
            task.title,
            int(task.takes_slot),
            json.dumps(task.caps),
            task.checkpoint or "",
        )

    def dispatch(
        self,
        task_id: str,
        *,
        lane: str,
        sign: Callable[[int], bytes],
        proxy: str | None = None,
        caps: Mapping[str, int] = MappingProxyType({}),
    ) -> int | Refusal:
        """Reserve what a ready task needs; the caller then publishes `(task_id, number)` to `lane`.

        `sign` gets the dispatch number and returns the signed specification. `caps` are the limits of those of
        the task's caps that have one; with `proxy`, a disk task also takes one of its slots now. Returns the
        number, or why not.
        """
        number = int(self._run("dispatch_number", task_id))
        if number == 0:
            return Refusal("not-ready", "unknown")
        signed = base64.b64encode(sign(number)).decode()
        code, detail = self._guarded("dispatch", task_id, number, lane, proxy or "", signed, json.dumps(dict(caps)))
        return number if code == "ok" else Refusal(code, detail)

    def dispatch_pair(
        self,
        first: str,
        *,
        lane: str,
        proxy: str,
        sign: Callable[[int], bytes],
        second: str,
        second_proxy: str,
        caps: Mapping[str, int] = MappingProxyType({}),
    ) -> int | Refusal:
        """Reserve what two ready tasks need, both or neither; the caller then publishes the first to `lane`.

        The second is `reserved`: it holds a slot of `second_proxy`, and is dispatched there once the first is ready
        for it. Until both have ended, they are ready again together. Otherwise as `dispatch`.
        """
        number = int(self._run("dispatch_number", first))
        if number == 0:
            return Refusal("not-ready", "unknown")
        signed = base64.b64encode(sign(number)).decode()
        limits = json.dumps(dict(caps))
        code, detail = self._guarded(
            "dispatch_pair", first, number, lane, proxy, signed, second, second_proxy, limits
        )
        return number if code == "ok" else Refusal(code, detail)

    def unreserve(self, task_id: str, why: str) -> None:
        """Make the reserved second task of a pair ready again, and the first with it."""
        self._guarded("unreserve", task_id, why)

    def set_verdict(self, task_id: str, verdict: TaskVerdict | str) -> bool:
        """Tell a task's holder to run, pause or cancel; False when the task is over. Cancelling is final.

        A task that nobody holds is cancelled at once; a running one when its holder has stopped, or is lost.
        """
        return bool(self._guarded("set_verdict", task_id, TaskVerdict(verdict))[0] == "ok")

    def cancel(self, task_id: str) -> bool:
        """The same as the verdict `cancel`."""
        return self.set_verdict(task_id, TaskVerdict.CANCEL)

    def reap(self) -> Reaped:
        """One pass: give up messages nobody took and holders that stopped renewing. Call it about each tick."""
        _, requeued, ended = self._guarded("reap", self._run_id())
        return Reaped(tuple(requeued), tuple(ended))

    def view(self) -> FleetView:
        """Everything that runs or waits, at one moment."""
        epoch, now, quiet, tasks, proxies, caps, refused = self._run("view")
        return FleetView(
            epoch=int(epoch) if epoch else None,
            server_time=float(now),
            quiet_s=float(quiet),
            tasks={view.task_id: view for view in map(task_view, tasks)},
            proxies={view.name: view for view in map(proxy_view, proxies) if view is not None},
            caps={name: int(count) for name, count in caps},
            refused_fences=int(refused),
        )

    def finished(self, limit: int = 200) -> list[FinishedTask]:
        """Tasks that ended, oldest first, at most `limit`; the same again until they are acknowledged."""
        return [finished_task(row) for row in self._run("finished", limit)]

    def acknowledge(self, task_ids: Iterable[str]) -> None:
        """Forget tasks that ended, once their end is recorded durably. Others are left alone."""
        self._guarded("acknowledge", *task_ids)

    def set_proxy(
        self, name: str, *, lanes: Sequence[str], enabled: bool, max_concurrent_tasks: int | None = None
    ) -> None:
        """What a proxy is to subscribe to and may do; its next heartbeat carries it. It need not be known yet."""
        self._guarded("set_proxy", name, json.dumps(list(lanes)), int(enabled), max_concurrent_tasks or "")

    def set_traffic(self, traffic: Traffic, before: Traffic | None = None) -> None:
        """Which limits of traffic are in force from now on; holders hear of them when they ask for their share.

        With what was said `before`, the ledger is only told what differs from that.
        """
        self._guarded("set_traffic", *traffic_arguments(traffic, before))

    def forget_proxy(self, name: str) -> bool:
        """Remove a proxy that is away and holds nothing; False when it isn't. Needs no epoch: it does no harm."""
        return bool(self._run("forget_proxy", name)[0] == "ok")

    def wait(self, timeout_s: float) -> bool:
        """Wait until something happened that a dispatcher may act on, at most `timeout_s`, and a few seconds.

        For one waiter only. True when something did: a task ended or became ready again, a proxy came or left.
        """
        return self._bell(timeout_s)

    def _guarded(self, script: str, *arguments: str | float) -> Any:
        answer = self._run(script, f"{self._epoch or 0}.{self._term}", *arguments)
        if answer[0] == "stale":
            raise _stale(self._epoch, self.epoch())
        return answer


def _stale(epoch: int | None, current: str | int | None) -> StaleEpochError | LedgerEmptyError:
    what = f"epoch {epoch} of the ledger"
    if current is None:
        return LedgerEmptyError(what, why="the ledger is empty, since Redis has lost its data")
    return StaleEpochError(
        what,
        why="another scheduler has taken over within it"
        if str(current) == str(epoch)
        else f"epoch {current} is in force, so another scheduler has taken over",
        remedy="Stop one of the two schedulers.",
    )
