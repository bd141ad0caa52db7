"""Months of a job of 20 VMs, a day at a time: what is stored stays within 5% of what the kept restore points need.

Real are the repository, its writers, its collector and its keys, and what kills them: their store stops at some
operation, as for a process that is killed there. Simulated is the clock: each run's day is told to the retention of
the scheduler, which says which points go; and files that killed processes left are as old as the days since.

The short form runs `DAYS` days of these; `make days DAYS=60` all that are asked for.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.errors import RunEndedError
from proxy_worker.repository.index_run import Location
from proxy_worker.repository.keyring import ID_BYTES, ZERO_ID
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.pack_layout import ChunkKind
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import rotate
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from proxy_worker.repository.writer import WriterLimits
from scheduler.planning.retention import HeldPoint, Retention, judge
from tests.repository.faulty_store import FaultyStore, StoppedError
from tests.repository.making import (
    BLOCK,
    CHEAP,
    CREDENTIAL,
    KEY,
    PASSPHRASE,
    commit,
    make_repository,
    restore,
    write_disk,
)

pytestmark = pytest.mark.usefixtures("quick")

DAYS: Final = int(os.environ.get("DAYS", "6"))
FULL: Final = DAYS >= 30
VMS: Final = 20
BLOCKS: Final = 32 if FULL else 12
CHANGED: Final = 8 if FULL else 4
"""So many blocks of a disk get new content in a day, at most."""
RETENTION: Final = Retention(points=7, weekly=4, monthly=3) if FULL else Retention(points=2, weekly=2)
ROTATE_EVERY_DAYS: Final = 20 if FULL else 3
BEGIN_S: Final = 1_767_564_000.0
"""A Sunday, 22:00 UTC, so that weeks and months end within the short form, too."""
DAY_S: Final = 86_400.0
WITHIN: Final = 1.05
KILLED: Final = 2
"""Backups a day, from the second on; of collectors every second."""
LIMITS: Final = WriterLimits(pack_bytes=8 * BLOCK)


@dataclass
class Vm:
    """A VM, its disk as it is today, and its restore points as the scheduler knows them."""

    identity: VmIdentity
    content: bytearray
    points: dict[str, HeldPoint] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    """Of the disk, by restore point."""


@dataclass
class Months:
    """The job, day by day."""

    folder: Path
    dice: random.Random
    vms: list[Vm]
    happened: Counter[str] = field(default_factory=Counter)
    left_on: dict[Path, int] = field(default_factory=dict)
    """The day on which each unfinished file was first seen."""

    @contextlib.contextmanager
    def opened(self, *, dies_after: int | None = None) -> Iterator[Repository]:
        """The repository as a process of its own has it, which may be killed at some operation on the store."""
        store: Store = LocalStore(self.folder / "repository")
        if dies_after is not None:
            store = FaultyStore(store, stop_at=dies_after, after=self.dice.random() < 0.5)
        with Repository.open(store, CREDENTIAL, cache_dir=self.folder / "cache") as repository:
            yield repository

    def live_through(self, day: int) -> tuple[int, int]:
        """A day; the bytes that are stored at its end, and those that its restore points need."""
        if day % ROTATE_EVERY_DAYS == ROTATE_EVERY_DAYS - 1:
            rotate(LocalStore(self.folder / "repository"), [PASSPHRASE], cost=CHEAP)
            self.happened["rotations"] += 1
        run = f"day-{day:03d}"
        late, *others = self.dice.sample(self.vms, len(self.vms))
        with self.opened() as repository:
            for place, vm in enumerate(others):
                self.change(vm)
                self.back_up(repository, vm, run, day, killed=day > 0 and place < KILLED)
            self.change(late)
            result = write_disk(repository, bytes(late.content), run=run, vm=late.identity, limits=LIMITS)
            self.apply_retention(repository, day)
            self.grow_old(day)
            self.collect_and_die(day)
            collect(repository)  # beside the run that hasn't ended
            commit(repository, result, run=run, vm=late.identity)
            self.hold(late, run, day)
            report = collect(repository)
            assert not report.waiting_for
            return folder_bytes(self.folder / "repository"), needed_bytes(repository)

    def change(self, vm: Vm) -> None:
        """Some blocks of the disk become new ones, one that of another VM, and sometimes one is emptied."""
        other = self.dice.choice(self.vms)
        for _ in range(self.dice.randrange(1, CHANGED)):
            self.put(vm, self.dice.randbytes(BLOCK))
        if self.dice.random() < 0.5:
            at = self.dice.randrange(BLOCKS) * BLOCK
            self.put(vm, bytes(other.content[at : at + BLOCK]))
        if self.dice.random() < 0.2:
            self.put(vm, bytes(BLOCK))

    def put(self, vm: Vm, block: bytes) -> None:
        at = self.dice.randrange(BLOCKS) * BLOCK
        vm.content[at : at + BLOCK] = block

    def back_up(self, repository: Repository, vm: Vm, run: str, day: int, *, killed: bool) -> None:
        """A run; if its proxy is killed, another one takes it up, or every third day nobody does."""
        if killed:
            given_up = day % 3 == 1
            try:
                with self.opened(dies_after=self.dice.randrange(5, 20 if given_up else 80)) as doomed:
                    self.attempt(doomed, vm, run, fence=1)
            except StoppedError:
                self.happened["killed backups"] += 1
            if given_up and not repository.abandon(vm_id=vm.identity.vm_id, run=run, reason="its proxy was killed"):
                self.happened["runs given up"] += 1
                return
        self.attempt(repository, vm, run, fence=2)
        self.hold(vm, run, day)

    def attempt(self, repository: Repository, vm: Vm, run: str, *, fence: int) -> None:
        with contextlib.suppress(RunEndedError):  # killed right after its commit
            result = write_disk(repository, bytes(vm.content), run=run, vm=vm.identity, fence=fence, limits=LIMITS)
            commit(repository, result, run=run, vm=vm.identity, fence=fence)

    def hold(self, vm: Vm, run: str, day: int) -> None:
        vm.points[run] = HeldPoint(run, BEGIN_S + day * DAY_S)
        vm.digests[run] = sha256(vm.content).digest()

    def apply_retention(self, repository: Repository, day: int) -> None:
        """End what the policy doesn't keep."""
        for vm in self.vms:
            for verdict in judge(vm.points.values(), RETENTION, now=BEGIN_S + day * DAY_S):
                if not verdict.kept:
                    assert end_point(repository.access, vm_id=vm.identity.vm_id, run=verdict.point.point)
                    del vm.points[verdict.point.point]
                    self.happened["points ended"] += 1

    def collect_and_die(self, day: int) -> None:
        """Every second day the collector is killed."""
        if day % 2:
            try:
                with self.opened(dies_after=self.dice.randrange(20, 400)) as doomed:
                    collect(doomed)
            except StoppedError:
                self.happened["killed collectors"] += 1

    def grow_old(self, day: int) -> None:
        """Give what killed processes have left the age that it would have."""
        for path in (self.folder / "repository" / "tmp").iterdir():
            age_s = DAY_S * (day - self.left_on.setdefault(path, day))
            os.utime(path, times=(time.time() - age_s,) * 2)


def test_a_job_of_20_vms_day_by_day(tmp_path: Path) -> None:
    seed = int(os.environ.get("DAYS_SEED", "5"))
    dice = random.Random(seed)
    make_repository(tmp_path / "repository").close()
    vms = [
        Vm(VmIdentity(vm_id=f"vm-{number}", name=f"vm-{number}"), bytearray(dice.randbytes(BLOCKS * BLOCK)))
        for number in range(VMS)
    ]
    months = Months(tmp_path, dice, vms)

    worst = 0.0
    for day in range(DAYS):
        stored_bytes, least_bytes = months.live_through(day)
        worst = max(worst, stored_bytes / least_bytes)
        print(f"day {day + 1}: {stored_bytes >> 10} KiB stored, {stored_bytes / least_bytes:.3f} of what is needed")
        assert stored_bytes <= WITHIN * least_bytes

    held = {(vm.identity.vm_id, run) for vm in vms for run in vm.points}
    with months.opened() as repository:
        assert check(repository.access).findings == ()
        points = repository.points()
        assert {(point.vm_id, point.run) for point in points} == held
        digests = {vm.identity.vm_id: vm.digests for vm in vms}
        for point in points:
            assert sha256(restore(repository, point, KEY)).digest() == digests[point.vm_id][point.run]
    print(f"DAYS={DAYS} DAYS_SEED={seed}: {len(held)} points kept and restored, at worst {worst:.3f}")
    print(", ".join(f"{count} {what}" for what, count in sorted(months.happened.items())))
    assert months.happened.keys() == {
        "killed backups", "killed collectors", "points ended", "rotations", "runs given up",
    }  # fmt: skip


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def needed_bytes(repository: Repository) -> int:
    """The stored bytes of one copy of every map, segment and block that restore points need."""
    needed: dict[bytes, Location] = {}

    def need(content_id: bytes, kind: ChunkKind) -> bool:
        if content_id == ZERO_ID or content_id in needed:
            return False
        needed[content_id] = min(repository.chunks.locate(content_id, kind), key=lambda copy: copy.stored_length)
        return True

    for point in repository.points():
        for disk in point.disks:
            need(disk.map_id, ChunkKind.MAP)
            for segment_id in load_map(repository.chunks, disk.map_id).segments:
                if need(segment_id, ChunkKind.SEGMENT):
                    ids = repository.chunks.read_metadata(ChunkKind.SEGMENT, segment_id)
                    for at in range(0, len(ids), ID_BYTES):
                        need(ids[at : at + ID_BYTES], ChunkKind.BLOCK)
    return sum(location.stored_length for location in needed.values())
