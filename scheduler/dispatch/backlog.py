"""What waits, in the order in which it goes: kept between decisions, so that one costs no look at everything.

A queue holds the tasks of one job and urgency; in it, a group holds those that are interchangeable but for their
size and age. Memory is linear in tasks; adding and removing one costs a search in its group.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from scheduler.dispatch.fleet import PendingTask, Placement

Rank = tuple[bool, int, float, str]
"""VMs that have begun first, then what takes longest, then the oldest, then by id."""


@dataclass(eq=False, slots=True)
class Group:
    """Tasks of one queue that could go to the same proxies, of VMs that have begun or of such that haven't."""

    job: str
    placement: Placement
    vm_started: bool
    ranked: list[Rank] = field(default_factory=list)
    """Which goes first."""
    aged: list[tuple[float, str]] = field(default_factory=list)
    """Which has waited longest."""

    @property
    def first(self) -> str:
        """The id of the task that goes first."""
        return self.ranked[0][-1]

    @property
    def oldest(self) -> tuple[float, str]:
        """Since when the task that has waited longest does so, and its id."""
        return self.aged[0]


@dataclass(eq=False, slots=True)
class Queue:
    """The tasks of one job and urgency."""

    urgency: int
    job: str
    groups: dict[tuple[Placement, bool], Group] = field(default_factory=dict)
    _since: float | None = None
    _longest: int | None = None

    @property
    def longest(self) -> int:
        """Bytes of its task that takes longest."""
        if self._longest is None:
            self._longest = max(-group.ranked[0][1] for group in self.groups.values())
        return self._longest

    @property
    def since(self) -> float:
        """Since when its oldest task waits."""
        if self._since is None:
            self._since = min(group.oldest[0] for group in self.groups.values())
        return self._since

    def best(self, without: Collection[Group]) -> Group | None:
        """The group whose first task goes first, of those that aren't among `without`."""
        groups = (group for group in self.groups.values() if group not in without)
        return min(groups, key=lambda group: group.ranked[0], default=None)

    def add(self, task: PendingTask) -> None:
        """Put a task into its place."""
        key = task.placement, task.vm_started
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(self.job, *key)
        insort(group.ranked, _rank(task))
        insort(group.aged, (task.since, task.task_id))
        if self._since is not None:
            self._since = min(self._since, task.since)
        if self._longest is not None:
            self._longest = max(self._longest, task.work_bytes)

    def remove(self, task: PendingTask) -> None:
        """Take a task out."""
        key = task.placement, task.vm_started
        group = self.groups[key]
        del group.ranked[bisect_left(group.ranked, _rank(task))]
        del group.aged[bisect_left(group.aged, (task.since, task.task_id))]
        if not group.ranked:
            del self.groups[key]
        if task.since == self._since:
            self._since = None
        if task.work_bytes == self._longest:
            self._longest = None


class Backlog:
    """All tasks that wait."""

    def __init__(self, tasks: Iterable[PendingTask] = ()) -> None:
        self._tasks: dict[str, PendingTask] = {}
        self._queues: dict[tuple[int, str], Queue] = {}
        self._of_vm: defaultdict[str, set[str]] = defaultdict(set)
        self.by_placement: Counter[Placement] = Counter()
        """How many tasks of each placement there are."""
        self.without_slot = 0
        """How many of them take no slot."""
        for task in tasks:
            self.add(task)

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._tasks)

    def __iter__(self) -> Iterator[str]:
        """The ids of all tasks."""
        return iter(self._tasks)

    def __getitem__(self, task_id: str) -> PendingTask:
        """The task of an id."""
        return self._tasks[task_id]

    @property
    def queues(self) -> Collection[Queue]:
        """All queues; none of them is empty."""
        return self._queues.values()

    def queue(self, urgency: int, job: str) -> Queue | None:
        """The tasks of a job and urgency; None when there are none."""
        return self._queues.get((urgency, job))

    def of_vm(self, vm: str | None) -> Collection[str]:
        """The ids of a VM's tasks."""
        return self._of_vm.get(vm, ()) if vm is not None else ()

    def add(self, task: PendingTask) -> None:
        """Take a task; one of the same id is replaced."""
        self.discard(task.task_id)
        self._tasks[task.task_id] = task
        key = task.urgency, task.job
        if key not in self._queues:
            self._queues[key] = Queue(*key)
        self._queues[key].add(task)
        self.by_placement[task.placement] += 1
        self.without_slot += not task.placement.kind.takes_slot
        if task.vm is not None:
            self._of_vm[task.vm].add(task.task_id)

    def discard(self, task_id: str) -> None:
        """Forget a task, if it is here."""
        task = self._tasks.pop(task_id, None)
        if task is None:
            return
        key = task.urgency, task.job
        self._queues[key].remove(task)
        if not self._queues[key].groups:
            del self._queues[key]
        self.by_placement[task.placement] -= 1
        if not self.by_placement[task.placement]:
            del self.by_placement[task.placement]
        self.without_slot -= not task.placement.kind.takes_slot
        if task.vm is not None:
            self._of_vm[task.vm].discard(task_id)
            if not self._of_vm[task.vm]:
                del self._of_vm[task.vm]

    def begin(self, vm: str) -> None:
        """Let a VM's tasks go before those of VMs that haven't begun."""
        for task_id in sorted(self.of_vm(vm)):
            if not self._tasks[task_id].vm_started:
                self.add(replace(self._tasks[task_id], vm_started=True))


def _rank(task: PendingTask) -> Rank:
    return not task.vm_started, -task.work_bytes, task.since, task.task_id
