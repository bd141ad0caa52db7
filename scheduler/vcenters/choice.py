"""Which steps to start now, and why the others wait. Pure: service, commands and tests ask the same function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SNAPSHOTS_PER_DATASTORE: Final = 4
"""Open at once, over all jobs: each grows with what its VM writes."""
FROZEN_PER_SLOT: Final = 2
"""Disks that may be frozen for each slot of the proxies: one is read, the next one is at hand."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A step that could be started, or goes on."""

    step_id: str
    vcenter: str
    priority: int
    created_at: float
    vm: str | None = None
    """The VM it is about, by managed object id."""
    vm_name: str = ""
    snapshot: str | None = None
    """The entry of the journal that it makes or removes."""
    makes_snapshot: bool = False
    datastores: tuple[str, ...] = ()
    """Those a snapshot that it makes will be open on."""
    climbs: bool = False
    """Whether it goes up the clean-up ladder again, which waits for other runs of the VM."""


@dataclass(frozen=True, slots=True)
class OpenSnapshot:
    """A snapshot that a run needs."""

    entry: str
    vcenter: str
    vm: str
    datastores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How far proxies have come with what is frozen."""

    disks: int
    """Frozen, and not read yet."""
    slots: int
    """Of all proxies that run."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to start, in this order, and a reason for everything that waits."""

    start: tuple[str, ...]
    waiting: Mapping[str, str]
    """By step id: one line each that starts with `waiting: `."""
    undeclared: tuple[str, ...] = ()
    """Steps at vCenters that aren't declared any more, and so can't be done."""


def choose(
    pending: Iterable[Pending],
    running: Collection[Pending],
    snapshots: Iterable[OpenSnapshot],
    sessions: Mapping[str, int],
    *,
    restoring: Mapping[tuple[str, str], str],
    reading: Reading | None = None,
    per_datastore: int = SNAPSHOTS_PER_DATASTORE,
) -> Choice:
    """Choose among `pending`; `sessions` are how many steps each declared vCenter bears at once.

    `restoring` are VMs whose disks are written, by vCenter and managed object id, with the restore. Without
    `reading`, VMs are frozen however long they would wait for proxies.
    """
    room = _Room(running, list(snapshots), sessions, restoring, per_datastore=per_datastore, reading=reading)
    start: list[str] = []
    waiting: dict[str, str] = {}
    undeclared: list[str] = []
    for step in sorted(pending, key=lambda one: (one.priority, one.created_at, one.step_id)):
        obstacle = room.obstacle(step)
        if step.vcenter not in sessions:
            undeclared.append(step.step_id)
        elif obstacle is None:
            room.take(step)
            start.append(step.step_id)
        else:
            waiting[step.step_id] = f"waiting: {obstacle}"
    return Choice(tuple(start), waiting, tuple(undeclared))


class _Room:
    """What is still free, as steps are started."""

    def __init__(
        self,
        running: Iterable[Pending],
        snapshots: Sequence[OpenSnapshot],
        sessions: Mapping[str, int],
        restoring: Mapping[tuple[str, str], str],
        *,
        per_datastore: int,
        reading: Reading | None,
    ) -> None:
        self.sessions = sessions
        self.per_datastore = per_datastore
        self.restoring = restoring
        self.reading = reading
        self.disks = reading.disks if reading is not None else 0
        self.busy: Counter[str] = Counter()
        self.vms: set[tuple[str, str]] = set()
        self.open = {one.entry: one for one in snapshots}
        self.load = Counter((one.vcenter, store) for one in snapshots for store in one.datastores)
        for step in running:
            self._occupy(step)

    def obstacle(self, step: Pending) -> str | None:
        """Why `step` can't be started now, if it can't."""
        limit = self.sessions.get(step.vcenter, 0)
        if step.vm is not None and (step.vcenter, step.vm) in self.vms:
            return f"vCenter {step.vcenter} is doing something else with VM {step.vm_name}"
        if (step.makes_snapshot or step.climbs) and (restore := self.restoring.get((step.vcenter, step.vm or ""))):
            return f"VM {step.vm_name} is being restored ({restore})"
        if (step.makes_snapshot or step.climbs) and (other := self._other_snapshot(step)) is not None:
            return f"another run of VM {step.vm_name} still has its snapshot ({other})"
        if step.makes_snapshot and step.snapshot not in self.open and (full := self._full(step)) is not None:
            return full
        if self.busy[step.vcenter] >= limit:
            return f"all {limit} sessions of vCenter {step.vcenter} are in use"
        return None

    def take(self, step: Pending) -> None:
        """Count a step that is started."""
        self._occupy(step)
        if step.makes_snapshot and step.snapshot is not None and step.snapshot not in self.open:
            made = OpenSnapshot(step.snapshot, step.vcenter, step.vm or "", step.datastores)
            self.open[made.entry] = made
            self.load.update((made.vcenter, store) for store in made.datastores)

    def _full(self, step: Pending) -> str | None:
        """Why no VM more can be frozen, as this one is to be."""
        for store in step.datastores:
            if (load := self.load[step.vcenter, store]) >= self.per_datastore:
                most = self.per_datastore
                return f"datastore {store} of vCenter {step.vcenter} has {load} of {most} snapshots open"
        reading = self.reading
        if reading is None or self.disks < FROZEN_PER_SLOT * reading.slots:
            return None
        if not reading.slots:
            return "no proxy is running to read its disks once they are frozen"
        return f"proxies have {self.disks} frozen disks to read with {reading.slots} slots"

    def _occupy(self, step: Pending) -> None:
        self.busy[step.vcenter] += 1
        self.disks += step.makes_snapshot
        if step.vm is not None:
            self.vms.add((step.vcenter, step.vm))

    def _other_snapshot(self, step: Pending) -> str | None:
        return next(
            (
                one.entry
                for one in self.open.values()
                if (one.vcenter, one.vm) == (step.vcenter, step.vm) and one.entry != step.snapshot
            ),
            None,
        )
