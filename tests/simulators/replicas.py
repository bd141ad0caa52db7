"""Folders of replicas at a target, without data: what is in them is the name of whatever was written last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy_worker.contract.errors import ConflictError, NotFoundError
from proxy_worker.contract.outcome import TaskFailure, TaskResult
from proxy_worker.contract.replication import (
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    ReplicaTarget,
)
from proxy_worker.contract.replication_outcome import (
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaPointSummary,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.replication.home import Marker


class MisplacedDiskError(ConflictError):
    """A disk was to be written that doesn't lie in its replica's folder."""


class GoneError(NotFoundError):
    """A replica that is expected isn't there."""


class NoPointError(NotFoundError):
    """A replica has no such restore point."""


@dataclass
class Folder:
    """One of them."""

    condition: ReplicaCondition = ReplicaCondition.STANDBY
    content: str = "original"
    points: dict[str, str] = field(default_factory=dict)


@dataclass
class SimulatedReplicas:
    """All folders, and what is done to them."""

    folders: dict[ReplicaPlace, Folder] = field(default_factory=dict)

    def answers(self) -> dict[type, Callable[..., TaskResult | TaskFailure]]:
        """What tasks at replicas are answered with."""
        return {
            ReplicaOpen: self._open,
            ReplicaPoint: self._point,
            ReplicaRemovePoint: self._remove,
            ReplicaRevert: self._revert,
            ReplicaMark: self._mark,
        }

    def write(self, target: ReplicaTarget, body: DiskReplicate) -> None:
        """Have the content of the disk's source. Raises `MisplacedDiskError`, to whoever lets the proxies work."""
        address, place = target.disk.address, target.place
        if address.datastore != place.datastore or not (address.path or "").startswith(f"{place.folder}/"):
            raise MisplacedDiskError(f"{address}", why=f"it doesn't lie in {place}")
        source = next((folder for place, folder in self.folders.items() if _lies_in(body, place)), None)
        content = source.content if source is not None else f"{body.disk.address.path}"
        self.folders[target.place].content = content

    def _open(self, body: ReplicaOpen) -> TaskResult | TaskFailure:
        if body.expected and body.replica not in self.folders:
            return TaskFailure.of(GoneError(f"replica {body.replica.folder}", why="it is not there"))
        folder = self.folders.setdefault(body.replica, Folder())
        if not body.mapped:
            try:
                Marker(folder.condition).require_standby(body.replica.folder, ways_out="", elsewhere="")
            except ConflictError as error:
                return TaskFailure.of(error)
        folder.condition = ReplicaCondition.STANDBY
        points = tuple(_summary(name) for name in folder.points)
        return ReplicaOpenResult(condition=folder.condition, points=points, free_bytes=1 << 40)

    def _point(self, body: ReplicaPoint) -> TaskResult:
        folder = self.folders[body.replica]
        folder.points.setdefault(body.run, folder.content)
        return ReplicaPointResult(point=_summary(body.run))

    def _remove(self, body: ReplicaRemovePoint) -> TaskResult:
        return ReplicaRemovePointResult(found=self.folders[body.replica].points.pop(body.run, None) is not None)

    def _revert(self, body: ReplicaRevert) -> TaskResult | TaskFailure:
        folder = self.folders[body.replica]
        if body.run not in folder.points:
            return TaskFailure.of(NoPointError(f"restore point {body.run}", why="it is not there"))
        folder.content, folder.condition = folder.points[body.run], body.condition
        return ReplicaRevertResult(condition=body.condition)

    def _mark(self, body: ReplicaMark) -> TaskResult:
        folder = self.folders[body.replica]
        before, folder.condition = folder.condition, body.condition
        if body.condition is ReplicaCondition.PERMANENT:
            folder.points.clear()
        return ReplicaMarkResult(before=before)


def _lies_in(body: DiskReplicate, place: ReplicaPlace) -> bool:
    address = body.disk.address
    return address.datastore == place.datastore and (address.path or "").startswith(f"{place.folder}/")


def _summary(name: str) -> ReplicaPointSummary:
    return ReplicaPointSummary(run=name, created_at=_made_at(name), reflinked=True, size_bytes=1)


def _made_at(name: str) -> float:
    """As the scheduler's clock had it, which is part of names."""
    stamp = name.removeprefix("before-")[:16]
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
