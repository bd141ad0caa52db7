"""Random violence against a fleet: one fault after the other, each healed after a while."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import psutil
import redis

from ops.demo.machines import MIB
from tests.surviving.fleet import HurtFleet
from tests.surviving.relay import Wire
from tests.surviving.watching import ORDERLY, Watch, disks_read_by
from tests.system.live_fleet import SCHEDULER

BEYOND_LEASE_S: Final = (33.0, 42.0)
"""Longer than the leases that are shipped."""
SHORT_S: Final = (0.3, 2.0)
TIMED: Final = ("proxy killed", "proxy ended in order")
"""Come twice as often: how long tasks take to start again after them has a target."""
HEAL_WITHIN_S: Final = 60.0


class Faults:
    """Strikes for so long, in a thread; on leaving, everything is healed and every process up again."""

    def __init__(
        self, fleet: HurtFleet, watch: Watch, source: random.Random, *, for_s: float, lasting: bool
    ) -> None:
        """With `lasting`, also what costs whole leases: proxies frozen and cut off for longer, Redis emptied."""
        self._fleet = fleet
        self._watch = watch
        self._source = source
        self._for_s = for_s
        self._lasting = lasting
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._hit_disks: set[str] = set()
        self._emptied = False
        self.counts: Counter[str] = Counter()
        self._kinds: dict[str, Callable[[str], None]] = {
            "proxy killed": self._kill_proxy,
            "proxy and its pool killed": self._kill_group,
            "pool process killed": self._kill_process,
            "pool processes without memory": self._starve,
            "disk gave I/O errors": self._break_disk,
            "proxy frozen": self._freeze,
            "proxy ended in order": self._end_in_order,
            "proxy of another version": self._change_version,
            "proxy cut off from Redis": self._cut,
            "proxy's wire hung": self._hang,
            "proxy lost its mount": self._hide,
            "proxy's state disk full": self._crowd,
            "proxy's clock jumped": self._jump,
            "scheduler killed": self._kill_scheduler,
            "scheduler's clock jumped": self._jump_scheduler,
            "scheduler's database full": self._fill_database,
            "Redis killed": self._kill_redis,
            "Redis read-only": self._stop_writes,
            "Redis slow": self._slow,
            "repository full": self._fill,
        }
        if lasting:
            self._kinds["Redis restarted empty"] = self._empty_redis

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
        """Whether nothing is hurt any more."""
        return self._work.done()

    def _strike_on(self) -> None:
        end = time.monotonic() + self._for_s
        bag: list[str] = []
        while time.monotonic() < end and not self._stopping.wait(self._source.uniform(0.1, 1.0)):
            if not bag:  # each kind comes before any comes again
                kinds = [*sorted(self._kinds), *TIMED]
                bag = self._source.sample(kinds, len(kinds))
            kind = bag.pop()
            if kind == "Redis restarted empty" and self._emptied:
                continue  # it costs everybody a lease
            self.counts[kind] += 1
            names = [proxy.name for proxy in self._fleet.proxies]
            busy = [name for name in names if disks_read_by(self._fleet, name)]
            self._kinds[kind](self._source.choice(busy or names))
            self._fleet.revive()
        self._fleet.heal()

    def _last(self, *, beyond_lease: bool = False) -> None:
        long = beyond_lease and self._lasting and self._source.random() < 0.5
        self._stopping.wait(self._source.uniform(*(BEYOND_LEASE_S if long else SHORT_S)))

    def _kill_proxy(self, name: str, *, whole_group: bool = False) -> None:
        self._watch.strike("proxy killed", name)
        self._fleet.kill(name, whole_group=whole_group)
        self._last(beyond_lease=True)
        self._fleet.start(name)

    def _kill_group(self, name: str) -> None:
        self._kill_proxy(name, whole_group=True)

    def _kill_process(self, name: str) -> None:
        """That of a disk which has not been hit in this way: three times would rightly quarantine it."""
        for disk, server in disks_read_by(self._fleet, name).items():
            if disk not in self._hit_disks:
                self._hit_disks.add(disk)
                self._watch.strike("pool process killed", name)
                try:
                    server.parent().kill()  # type: ignore[union-attr] # a child of the pool process
                except (psutil.NoSuchProcess, AttributeError):
                    continue
                self._last()
                self._watch.spare(name)  # the other disks
                return

    def _starve(self, name: str) -> None:
        starved = self._fleet.starve(name)
        self._last()
        self._fleet.feed(starved)

    def _break_disk(self, _: str) -> None:
        machine, disk = self._source.choice(self._fleet.disks)
        self._fleet.break_disk(machine, disk)
        self._last()
        self._fleet.break_disk(machine, disk, on=False)

    def _freeze(self, name: str) -> None:
        self._watch.strike("proxy frozen", name)
        frozen = self._fleet.freeze(name)
        self._last(beyond_lease=True)
        self._fleet.thaw(frozen)
        self._watch.spare(name)

    def _end_in_order(self, name: str) -> None:
        self._watch.strike(ORDERLY, name)
        self._fleet.terminate(name)
        self._last()
        self._fleet.start(name)

    def _change_version(self, name: str) -> None:
        self._fleet.as_old_as[name] = self._source.choice((0, 1, 3))
        self._end_in_order(name)
        self._last()
        del self._fleet.as_old_as[name]
        self._end_in_order(name)

    def _cut(self, name: str) -> None:
        self._interrupt(name, Wire.CUT, "proxy cut off from Redis")

    def _hang(self, name: str) -> None:
        self._interrupt(name, Wire.HUNG, "proxy's wire hung")

    def _interrupt(self, name: str, wire: Wire, what: str) -> None:
        self._watch.strike(what, name)
        self._fleet.wires[name].wire = wire
        self._last(beyond_lease=True)
        self._fleet.wires[name].wire = Wire.WHOLE
        self._watch.spare(name)

    def _hide(self, name: str) -> None:
        self._fleet.hide_repository(name)
        self._last()
        self._fleet.show_repository(name)

    def _crowd(self, name: str) -> None:
        self._fleet.crowd_state(name)
        self._last()
        self._fleet.clear_state(name)

    def _jump(self, name: str) -> None:
        self._fleet.set_clock(name, self._source.choice((-1, 1)) * self._source.uniform(60, 100_000))
        self._last()
        self._fleet.set_clock(name, 0)

    def _jump_scheduler(self, _: str) -> None:
        self._jump(SCHEDULER)

    def _kill_scheduler(self, _: str) -> None:
        self._fleet.kill(SCHEDULER, whole_group=False)
        self._last()
        self._fleet.start(SCHEDULER)

    def _kill_redis(self, _: str) -> None:
        self._fleet.valkey.kill()
        self._last()
        self._fleet.valkey.start()

    def _empty_redis(self, _: str) -> None:
        self._emptied = True
        self._watch.strike("Redis restarted empty")
        self._fleet.valkey.kill()
        shutil.rmtree(self._fleet.valkey.folder / "appendonlydir")
        self._last()
        self._fleet.valkey.start()

    def _stop_writes(self, _: str) -> None:
        with redis.Redis(port=self._fleet.valkey.port, password=self._fleet.valkey.password) as client:
            client.config_set("min-replicas-to-write", 1)
            self._last()
            client.config_set("min-replicas-to-write", 0)

    def _slow(self, _: str) -> None:
        for wire in self._fleet.wires.values():
            wire.answer_delay_s = 0.2
        self._last()
        self._last()
        for wire in self._fleet.wires.values():
            wire.answer_delay_s = 0.0

    def _fill(self, _: str) -> None:
        balloon = self._fleet.fill_repository(leave_bytes=MIB)
        self._last()
        balloon.unlink()

    def _fill_database(self, _: str) -> None:
        balloon = self._fleet.fill_database()
        self._last()
        balloon.unlink()
