"""What must hold while everything is hurt: seen from outside, many times a second."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import psutil

from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import FleetView, TaskState
from tests.surviving.fleet import HurtFleet

DISK_FILE: Final = re.compile(r"/([\w.-]+-flat\.vmdk)$")
LOOK_EVERY_S: Final = 0.2


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
        """From a blow to the task's next start, by what was struck: `proxy`, `process`, `server`, `orderly`."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def strike(self, what: str, proxy: str | None = None) -> None:
        """Note a blow that ends the tasks of a proxy, or of all, just before it falls."""
        view = self._view()
        if view is None:
            return
        with self._lock:
            for task_id, task in view.tasks.items():
                hit = task.state is TaskState.RUNNING and task.kind.takes_slot and proxy in {None, task.proxy}
                if hit and task.fence_number is not None and task_id not in self._struck:
                    self._struck[task_id] = task.fence_number, time.monotonic(), what

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
                elif task.state is TaskState.RUNNING and (task.fence_number or 0) > fence:
                    self.recoveries_s[what].append(now_s - struck_s)
                    del self._struck[task_id]


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
