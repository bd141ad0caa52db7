"""What must hold while everything is hurt: seen from outside, many times a second."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import psutil

from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import FleetView, TaskState, TaskView
from tests.surviving.fleet import HurtFleet

DISK_FILE: Final = re.compile(r"/([\w.-]+-flat\.vmdk)$")
LOOK_EVERY_S: Final = 0.2
ORDERLY: Final = "orderly stop"
TARGETS_S: Final = {"proxy killed": 60.0, ORDERLY: 15.0}
"""How long restarts may take at p95, with the settings that are shipped."""


class Watch:
    """Counts what proxies really read, looks for limits that are exceeded, and times how tasks come back."""

    def __init__(self, fleet: HurtFleet, *, cap: int) -> None:
        self._fleet = fleet
        self._cap = cap
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()
        self._struck: dict[str, tuple[int, float, str]] = {}
        self.most: Counter[str] = Counter()
        """The most disks that each proxy read at once: its NBD servers, each serving one disk file."""
        self.most_in_all = 0
        """The most tasks that held a cap at once."""
        self.exceeded: list[str] = []
        self.recoveries_s: dict[str, list[float]] = defaultdict(list)
        """From a blow to the task's next start, by kind of blow; after an orderly stop, from the handing back."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def strike(self, what: str, proxy: str | None = None) -> None:
        """Note a blow that may end the tasks of a proxy, or of all, just before it falls.

        What was struck before and isn't `spare`d keeps the earlier time.
        """
        view = self._view()
        if view is None:
            return
        with self._lock:
            for task_id, task in view.tasks.items():
                hit = task.state is TaskState.RUNNING and task.kind.takes_slot and proxy in {None, task.proxy}
                if hit and task.fence_number is not None and not self._is_dying(task_id, task.fence_number):
                    self._struck[task_id] = task.fence_number, time.monotonic(), what

    def _is_dying(self, task_id: str, fence: int) -> bool:
        struck = self._struck.get(task_id)
        return struck is not None and struck[0] == fence

    def spare(self, proxy: str) -> None:
        """Forget the tasks of a proxy that have survived the blow."""
        view = self._view()
        if view is None:
            return
        with self._lock:
            for task_id, (fence, _, _) in list(self._struck.items()):
                task = view.tasks.get(task_id)
                if task is not None and task.proxy == proxy and _runs_on(task, fence):
                    del self._struck[task_id]

    def _view(self) -> FleetView | None:
        try:
            return self._fleet.view()
        except LedgerError:
            return None

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            reading = {proxy.name: disks_read_by(self._fleet, proxy.name) for proxy in self._fleet.proxies}
            for name, disks in reading.items():
                self.most[name] = max(self.most[name], len(disks))
            view = self._view()
            if view is not None:
                self._compare(view)

    def _compare(self, view: FleetView) -> None:
        for name, proxy in view.proxies.items():
            if proxy.slots_used > proxy.slots:
                self.exceeded.append(f"{name}: {proxy.slots_used} of {proxy.slots} slots")
        for name, count in view.caps.items():
            if count > self._cap:
                self.exceeded.append(f"{name}: {count} of {self._cap}")
        self.most_in_all = max(self.most_in_all, *view.caps.values(), 0)
        now_s = time.monotonic()
        with self._lock:
            for task_id, (fence, struck_s, what) in list(self._struck.items()):
                task = view.tasks.get(task_id)
                if task is None:
                    if view.quiet_s == 0 and view.epoch is not None and now_s - struck_s > LOOK_EVERY_S:
                        del self._struck[task_id]  # it had ended before the blow could reach it
                elif what == ORDERLY and _runs_on(task, fence):
                    self._struck[task_id] = fence, now_s, what
                elif task.state is TaskState.RUNNING and (task.fence_number or 0) > fence:
                    self.recoveries_s[what].append(now_s - struck_s)
                    del self._struck[task_id]


def _runs_on(task: TaskView, fence: int) -> bool:
    return task.state is TaskState.RUNNING and task.fence_number == fence


def recovery_table(recoveries_s: Mapping[str, Sequence[float]]) -> str:
    """How long restarts took, in seconds, one line per kind of blow."""
    lines = [f"{'restart after':26}{'tasks':>6}{'p50':>8}{'p95':>8}{'most':>8}  target"]
    for what, values in sorted(recoveries_s.items()):
        p50, p95 = percentile(values, 0.5), percentile(values, 0.95)
        target = TARGETS_S.get(what)
        verdict = "" if target is None else f"  {target:.0f} s: {'met' if p95 <= target else 'MISSED'}"
        lines.append(f"{what:26}{len(values):6}{p50:8.1f}{p95:8.1f}{max(values):8.1f}{verdict}")
    return "\n".join(lines)


def disks_read_by(fleet: HurtFleet, proxy: str) -> dict[str, psutil.Process]:
    """The disks that a proxy reads now, each with its NBD server."""
    found = {}
    try:
        processes = psutil.Process(fleet.main_process(proxy)).children(recursive=True)
    except psutil.NoSuchProcess:
        return {}
    for process in processes:
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if words and words[0].endswith("nbdkit"):
            found.update({match[1]: process for word in words if (match := DISK_FILE.search(word))})
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all don't exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
