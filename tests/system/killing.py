"""Random violence against a live fleet, and a witness of what its proxies really do meanwhile."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import psutil

from tests.system.live_fleet import SCHEDULER, LiveFleet

DISK_FILE = re.compile(r"/([\w.-]+-flat\.vmdk)$")


class Killer:
    """Kills -9 a random process of the fleet every other moment, and brings back what was killed."""

    def __init__(self, fleet: LiveFleet, source: random.Random, *, for_s: float) -> None:
        self._fleet = fleet
        self._source = source
        self._for_s = for_s
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.kills: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._work = self._pool.submit(self._strike_on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._pool.shutdown()
        self._work.result()

    @property
    def over(self) -> bool:
        """Whether nothing is killed any more."""
        return self._work.done()

    def _strike_on(self) -> None:
        end = time.monotonic() + self._for_s
        while time.monotonic() < end and not self._stopping.wait(self._source.uniform(0.2, 1.5)):
            self._strike()

    def _strike(self) -> None:
        """One kill, a moment of absence, and the return."""
        kind = self._source.choice(("server", "scheduler", "proxy", "proxy", "proxy with its pool", "pool process"))
        proxy = self._source.choice(self._fleet.proxies).name
        absence_s = self._source.uniform(0.1, 1.5)
        self.kills[kind] += 1
        if kind == "server":
            self._fleet.valkey.kill()
            time.sleep(absence_s)
            self._fleet.valkey.start()
        elif kind == "pool process":
            _kill_one(psutil.Process(self._fleet.main_process(proxy)).children(), self._source)
        else:
            name = SCHEDULER if kind == "scheduler" else proxy
            self._fleet.kill(name, whole_group=kind == "proxy with its pool")
            time.sleep(absence_s)
            self._fleet.start(name)


class Witness:
    """Counts, from outside, how many disks each proxy reads at once: its NBD servers, each serving one disk file.

    What a killed proxy leaves behind for a moment is no longer its own and isn't counted.
    """

    def __init__(self, fleet: LiveFleet) -> None:
        self._fleet = fleet
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most: Counter[str] = Counter()
        """The most disks at once, by proxy."""
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for proxy in self._fleet.proxies:
                count = len(_disks_read_by(self._fleet.main_process(proxy.name)))
                self.most[proxy.name] = max(self.most[proxy.name], count)
            self.looks += 1


def _disks_read_by(main_process: int) -> set[str]:
    try:
        processes = psutil.Process(main_process).children(recursive=True)
        lines = [word for process in processes for word in _command_line(process)]
    except psutil.NoSuchProcess:
        return set()
    return {found[1] for word in lines if (found := DISK_FILE.search(word))}


def _command_line(process: psutil.Process) -> list[str]:
    try:
        words = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
    return words if words and words[0].endswith("nbdkit") else []


def _kill_one(processes: list[psutil.Process], source: random.Random) -> None:
    if processes:
        victim = source.choice(processes)
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return
