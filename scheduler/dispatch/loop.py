"""The loop's body: release what the policy chooses among the journal's open tasks, and put that into the ledger.

A task is in the ledger from its first release, or its cancellation, until its end. So the ledger, and each look at
it, are as large as what is in flight; what waits is in the backlog here, which is told what changes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Final, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy_worker.contract.errors import LedgerError
from proxy_worker.contract.names import TaskKind, TransportMode, proxy_lane
from proxy_worker.contract.signing import sign
from proxy_worker.contract.specification import TaskBody
from proxy_worker.ledger import FleetView, Ledger, Refusal, TaskState, TaskVerdict
from scheduler.dispatch.backlog import Backlog
from scheduler.dispatch.declared import DeclaredFleet
from scheduler.dispatch.fleet import Placement, Release, subscribed_lanes
from scheduler.dispatch.flight import begun_vms, flies, in_flight
from scheduler.dispatch.latency import Reading, paused
from scheduler.dispatch.limits import Limits
from scheduler.dispatch.pairs import Pairs, exchanging, followers, receiving, sending, session_of
from scheduler.dispatch.pending import OpenTask
from scheduler.dispatch.policy import choose, count_waiting
from scheduler.dispatch.reach import Reach
from scheduler.dispatch.room import Room
from scheduler.dispatch.traffic import DeclaredTraffic, TrafficOrders
from scheduler.dispatch.unserved import ANSWERED, obstacles, without_repository

logger = logging.getLogger(__name__)
T = TypeVar("T")

CLAIM_WITHIN_S = 300.0
"""How long after its dispatch a specification may still be claimed; the dispatch deadline comes much sooner."""
CANCELLED_AT_ONCE: Final = 500
"""Cancellations passed on in one turn, so that other things don't have to wait long for them."""
_PAIRED = frozenset({TaskKind.DISK_RECEIVE, TaskKind.DISK_REPLICATE})


class Publish(Protocol):
    """Announces a dispatched task on its lane."""

    def __call__(self, *, kind: TaskKind, title: str, lane: str, task_id: str, number: int) -> None:
        """Raises `LedgerError` when it can't."""


class Dispatcher:
    """Mirrors the journal's open tasks, and applies the policy to them. Not thread-safe.

    Each of them is in `backlog`, or among `_elsewhere` or `cancelling`.
    """

    def __init__(self, ledger: Ledger, publish: Publish, key: Ed25519PrivateKey) -> None:
        self.ledger = ledger
        self.publish = publish
        self.key = key
        self.epoch = 0
        self.traffic = TrafficOrders(ledger)
        self.orders: dict[str, tuple[tuple[str, ...], bool, int | None]] = {}
        self._reach: Reach | None = None
        self.waiting: Counter[str] = Counter()
        """How many tasks the last release left, by reason."""
        self.forget_tasks()

    def forget_tasks(self) -> None:
        """Know of no task, before the journal is mirrored anew."""
        self.tasks: dict[str, OpenTask] = {}
        self.backlog = Backlog()
        """What is ready."""
        self.placements: Counter[Placement] = Counter()
        """How many open tasks there are of each placement."""
        self.started_vms: set[str] = set()
        self.cancelling: set[str] = set()
        self._owed: set[str] = set()
        """Cancellations that the ledger hasn't been told of."""
        self._elsewhere: set[str] = set()
        """What was in flight when the ledger was looked at last, or is new."""
        self._chosen_vms: set[str] = set()
        """Those that the policy last chose disks of: they have begun in the backlog, in the ledger perhaps not."""
        self._vms: Counter[str] = Counter()
        """How many open tasks there are of each VM run."""
        self._pairs = Pairs()
        """Tasks that send or receive a replica's disk."""
        self._asked_for: set[str] = set()
        """Tasks that somebody waits to be answered about."""
        self._unserved_since: dict[str, float] = {}
        """Since when nobody could take them, those that are waited for so long only."""

    def add(self, tasks: Iterable[OpenTask]) -> None:
        """Take tasks over from the journal."""
        for task in tasks:
            task_id = task.new.task_id
            self.drop([task_id])
            self.tasks[task_id] = task
            if task.new.kind in _PAIRED:
                self._pairs.add(task)
            if task.new.kind is not TaskKind.DISK_RECEIVE:  # which goes with the task that sends
                self._elsewhere.add(task_id)
            self.placements[task.placement] += 1
            if task.vm_run_id is not None:
                self._vms[task.vm_run_id] += 1
            if task.new.kind in ANSWERED:
                self._asked_for.add(task_id)

    def begin(self, vm_run_ids: Iterable[str]) -> None:
        """Know of VMs that have begun, though no disk of theirs is in flight: what is left of them is finished."""
        self.started_vms.update(self._vms.keys() & vm_run_ids)

    def cancel(self, task_ids: Iterable[str]) -> None:
        """Have the ledger told to cancel tasks, as often as it takes; they are not released any more."""
        for task_id in self.tasks.keys() & task_ids:
            self.backlog.discard(task_id)
            self._elsewhere.discard(task_id)
            self.cancelling.add(task_id)
            self._owed.add(task_id)

    def drop(self, task_ids: Iterable[str]) -> None:
        """Forget tasks whose outcome is recorded."""
        for task_id in task_ids:
            task = self.tasks.pop(task_id, None)
            if task is None:
                continue
            self.backlog.discard(task_id)
            for among in (self._elsewhere, self.cancelling, self._owed, self._asked_for):
                among.discard(task_id)
            self._pairs.drop(task_id)
            _less(self.placements, task.placement)
            if task.vm_run_id is not None:
                _less(self._vms, task.vm_run_id)
                if task.vm_run_id not in self._vms:
                    self.started_vms.discard(task.vm_run_id)

    def forget_ledger(self) -> None:
        """Assume nothing of the ledger, since it is another one or has lost its data."""
        self.orders.clear()
        self._owed |= self.cancelling
        self.traffic.forget()

    def give_orders(self, view: FleetView, declared: DeclaredFleet) -> None:
        """Tell registered proxies which lanes to pull from, and whether they may, where that has changed.

        One that nobody declared, as a replica of a container, is forgotten once it has ended in order.
        """
        for name, seen in view.proxies.items():
            if seen.left and name not in declared.proxies:
                if self.ledger.forget_proxy(name):
                    self.orders.pop(name, None)
                continue
            proxy = declared.proxy(seen)
            limit = declared.proxies[name].max_concurrent_tasks if name in declared.proxies else None
            # What the policy doesn't count on must not pull from lanes that others share, only to refuse.
            lanes = subscribed_lanes(proxy, declared.repositories) if proxy.enabled else ()
            orders = (lanes, proxy.enabled, limit)
            if self.orders.get(name) != orders:
                self.ledger.set_proxy(name, lanes=orders[0], enabled=orders[1], max_concurrent_tasks=orders[2])
                self.orders[name] = orders

    def limit_traffic(self, view: FleetView, rules: DeclaredTraffic, moment: float) -> None:
        """Tell the ledger which limits hold, before a release announces the sources that `view` shows reserved."""
        self.traffic.give(view, rules, moment, exchanging(view, self.tasks))

    def pass_on_cancellations(self, view: FleetView) -> bool:
        """Cancel in the ledger what the journal wants cancelled, and what only the ledger knows, e.g. since the
        database was restored from a backup. Answers whether some are left for the next turn.

        What the ledger has never held is given to it first, so that its end is found there as any other.
        """
        for task_id in list(islice(self._owed, CANCELLED_AT_ONCE)):
            if task_id not in view.tasks:
                self.ledger.submit(self.tasks[task_id].new)
            self.ledger.cancel(task_id)
            self._owed.discard(task_id)
        for task_id, seen in view.tasks.items():
            if task_id not in self.tasks and seen.verdict is not TaskVerdict.CANCEL:
                logger.warning("%s is in the ledger but not in the database, and is cancelled", seen.title)
                self.ledger.cancel(task_id)
        return bool(self._owed)

    def release(self, view: FleetView, declared: DeclaredFleet, now: float) -> None:
        """Dispatch and publish what the policy chooses among tasks that `view` doesn't show in flight."""
        self.started_vms |= begun_vms(view, self.tasks)
        self._keep_backlog(view)
        fleet = declared.fleet(view, in_flight(view, self.tasks))
        self._slow_down(view, fleet.latency_ms, declared.limits)
        if self._reach is None or not self._reach.holds_for(fleet):
            self._reach = Reach(fleet)
        room = Room(fleet, declared.limits, self._reach)
        releases = choose(self.backlog, room, now)
        self.waiting = count_waiting(self.backlog, room, now)
        self._elsewhere.update(release.task_id for release in releases)
        chosen = (self.tasks[release.task_id].vm_run_id for release in releases)
        self._chosen_vms = {vm for vm in chosen if vm is not None}
        for release in releases:
            self._dispatch(self.tasks[release.task_id], release, view, declared.limits.caps)
        self._follow(view, declared)

    def unserved(
        self, view: FleetView, declared: DeclaredFleet, unwanted: Collection[str], *, wait_s: float, now: float
    ) -> dict[str, str]:
        """Tasks which nobody could have taken for longer than `wait_s`, however idle, with the reason.

        What a run consists of waits for its proxies to come back, unless it is `unwanted` by now, or its repository
        isn't declared any more; who asked for anything else wants an answer.
        """
        fleet = declared.fleet(view, ())
        wanted = self._asked_for.union(unwanted, without_repository(self.tasks, self.placements, fleet))
        reasons = obstacles(wanted, self.tasks, view, fleet)
        before = self._unserved_since
        since = self._unserved_since = {task_id: min(now, before.get(task_id, now)) for task_id in reasons}
        return {task_id: reason for task_id, reason in reasons.items() if since[task_id] < now - wait_s}

    def _slow_down(self, view: FleetView, latency_ms: Mapping[str, float], limits: Limits) -> None:
        """Have disks of slow datastores paused, and others go on."""
        running = {
            task_id: seen
            for task_id, seen in view.tasks.items()
            if seen.kind is TaskKind.DISK_BACKUP
            and seen.state is TaskState.RUNNING
            and seen.verdict is not TaskVerdict.CANCEL
            and task_id in self.tasks
        }
        disks = [
            Reading(
                task_id,
                self.tasks[task_id].placement.datastore or "",
                seen.since,
                seen.verdict is TaskVerdict.PAUSE,
            )
            for task_id, seen in running.items()
        ]
        to_pause = paused(disks, latency_ms, limits)
        for disk in disks:
            if disk.paused is not (disk.task_id in to_pause):
                verdict = TaskVerdict.RUN if disk.paused else TaskVerdict.PAUSE
                took_ms = latency_ms.get(disk.datastore, 0.0)
                title = running[disk.task_id].title
                logger.info("%s is to %s: datastore %s answers in %.0f ms", title, verdict, disk.datastore, took_ms)
                self.ledger.set_verdict(disk.task_id, verdict)

    def _keep_backlog(self, view: FleetView) -> None:
        """Have the backlog hold exactly what is ready, with a look at nothing but what changed."""
        flying = {task_id for task_id, seen in view.tasks.items() if flies(seen) and task_id in self.tasks}
        for task_id in flying:
            self.backlog.discard(task_id)
        back = self._elsewhere - flying
        received = {task_id for task_id in flying if self.tasks[task_id].new.kind is TaskKind.DISK_RECEIVE}
        self._elsewhere = flying - self.cancelling - received
        refused = (self.backlog.of_vm(vm) for vm in self._chosen_vms - self.started_vms)
        for task_id in back.union(*refused):
            task = self.tasks[task_id]
            self.backlog.add(task.pending(vm_started=task.vm_run_id in self.started_vms))

    def _dispatch(self, task: OpenTask, release: Release, view: FleetView, caps: Mapping[str, int]) -> None:
        task_id, partner = task.new.task_id, self.tasks.get(task.partner or "")
        for one in (task, partner):
            if one is not None and one.new.task_id not in view.tasks:
                self.ledger.submit(one.new)
        limits = {cap: caps[cap] for cap in (*task.new.caps, *(partner.new.caps if partner else ())) if cap in caps}
        if release.target not in {None, release.proxy}:
            if partner is not None:
                self._dispatch_pair(task, partner, release, view, limits)
            return
        body = sending(task, session_of(task_id, self.epoch, 0), None) if release.target is not None else None
        mode = release.mode if release.name_mode else None
        specify = self._specifying(task, view, release.lane, mode=mode, body=_as_it_is(body))
        number = self.ledger.dispatch(task_id, lane=release.lane, proxy=release.proxy, caps=limits, sign=specify)
        self._announce(task, number, release.lane, release.proxy, release.reason)

    def _dispatch_pair(
        self, task: OpenTask, partner: OpenTask, release: Release, view: FleetView, caps: Mapping[str, int]
    ) -> None:
        """Reserve both slots, and have the target's proxy make its disk ready."""
        first, source = partner.new.task_id, release.proxy or ""

        def body(number: int) -> TaskBody:
            return receiving(partner, session_of(first, self.epoch, number), source)

        lane, target = release.target_lane or "", release.target or ""
        number = self.ledger.dispatch_pair(
            first,
            lane=lane,
            proxy=target,
            sign=self._specifying(partner, view, lane, body=body),
            second=task.new.task_id,
            second_proxy=source,
            caps=caps,
        )
        self._announce(partner, number, lane, target, release.reason)

    def _follow(self, view: FleetView, declared: DeclaredFleet) -> None:
        """Announce sources' tasks whose targets listen by now; give up pairs that have lost a proxy or a task."""
        for follower in followers(view, self.tasks):
            task = follower.task
            if follower.receiver is None:
                self.ledger.unreserve(task.new.task_id, f"{follower.proxy} went away before its target was ready")
                continue
            body = sending(task, follower.session, follower.receiver)
            proxy = declared.proxy(view.proxies[follower.proxy])
            lane = proxy_lane(proxy.site, proxy.name)
            specify = self._specifying(task, view, lane, mode=declared.only_mode(proxy), body=_as_it_is(body))
            number = self.ledger.dispatch(task.new.task_id, lane=lane, proxy=proxy.name, sign=specify)
            self._announce(task, number, lane, proxy.name, f"to {proxy.name}, since its target is ready")
        for task_id in set(self._pairs.left_alone(view)) - self.cancelling:
            if task_id not in view.tasks:
                self.ledger.submit(self.tasks[task_id].new)
            self.ledger.cancel(task_id)

    def _specifying(
        self,
        task: OpenTask,
        view: FleetView,
        lane: str,
        *,
        mode: TransportMode | None = None,
        body: Callable[[int], TaskBody | None],
    ) -> Callable[[int], bytes]:
        def specify(number: int) -> bytes:
            specification = task.specification(
                epoch=self.epoch,
                number=number,
                lane=lane,
                expires_at=view.server_time + CLAIM_WITHIN_S,
                mode=mode,
                contract_version=view.contract_version,
                body=body(number),
            )
            return sign(specification, self.key)

        return specify

    def _announce(self, task: OpenTask, number: int | Refusal, lane: str, proxy: str | None, why: str) -> None:
        about = {"task": task.new.task_id, "job": task.job, "proxy": proxy}
        if isinstance(number, Refusal):
            logger.debug("%s stays: %s %s", task.new.title, number.code, number.detail, extra=about)
            return
        if task.vm_run_id is not None:
            self.started_vms.add(task.vm_run_id)
        logger.debug("%s released %s", task.new.title, why, extra=about)
        try:
            self.publish(
                kind=task.new.kind, title=task.new.title, lane=lane, task_id=task.new.task_id, number=number
            )
        except LedgerError as error:
            logger.warning("%s was not announced and will be again: %s", task.new.title, error, extra=about)


def _as_it_is(body: TaskBody | None) -> Callable[[int], TaskBody | None]:
    """Whatever its dispatch's number; None: what the journal holds."""
    return lambda _: body


def _less(counts: Counter[T], counted: T) -> None:
    counts[counted] -= 1
    if not counts[counted]:
        del counts[counted]
