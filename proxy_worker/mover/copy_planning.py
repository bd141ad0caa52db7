"""Which restore points a copy job has to copy, as the two repositories themselves say. No block is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proxy_worker.contract.copying import CopyOf, CopyState, PlannedCopy, PointToCopy
from proxy_worker.contract.errors import ConfigurationError, DamageError, NotFoundError
from proxy_worker.mover.copying import identity_of
from proxy_worker.repository.copies import place_of_copy
from proxy_worker.repository.registration import forget_writers
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.twins import share_ids


class SameRepositoryError(ConfigurationError):
    """The source of a copy is its target."""


def plan_points(source: Repository, target: Repository, points: Iterable[PointToCopy]) -> list[PlannedCopy]:
    """Say of each point what the target has of it. Raises `SameRepositoryError`, `StoreError`."""
    here, there = source.access.store.location, target.access.store.location
    if _is_same_place(here, there):
        raise SameRepositoryError(
            f"copy of {here}", why="source and target are the same repository", remedy="Copy to another one."
        )
    needs_read_key = not _goes_over_sealed(source, target)
    return [_planned(source, target, wanted, needs_read_key=needs_read_key) for wanted in points]


def _planned(source: Repository, target: Repository, wanted: PointToCopy, *, needs_read_key: bool) -> PlannedCopy:
    try:
        point = source.point(wanted.vm.vm_id, wanted.point)
        place = place_of_copy(target, point)
    except NotFoundError:
        return PlannedCopy(vm=wanted.vm, point=wanted.point, state=CopyState.GONE)
    except DamageError as error:
        return PlannedCopy(vm=wanted.vm, point=wanted.point, state=CopyState.DAMAGED, problem=str(error))
    if place.there:  # whoever made it may have been killed just after
        forget_writers(target.access.store, vm_id=point.vm_id, run=place.run)
    if place.there or place.removed:
        state = CopyState.THERE if place.there else CopyState.REMOVED
        return PlannedCopy(vm=wanted.vm, point=wanted.point, state=state, run=place.run)
    return PlannedCopy(
        vm=wanted.vm,
        point=wanted.point,
        state=CopyState.MISSING,
        run=place.run,
        original=CopyOf(
            point=point.run,
            sequence=point.sequence,
            created_at=point.created_at,
            started_at=point.started_at,
            needs_read_key=needs_read_key,
        ),
        disks=tuple(identity_of(disk) for disk in point.disks),
    )


def _goes_over_sealed(source: Repository, target: Repository) -> bool:
    """Whether a write key is enough: twins whose data keys have never been rotated, or that aren't encrypted."""
    pairs = source.access.config.data_public_keys
    same_pair = pairs == target.access.config.data_public_keys and len(pairs) == 1
    return share_ids(source, target) and (same_pair or not source.access.encrypted)


def _is_same_place(one: str, other: str) -> bool:
    if not (one.startswith("/") and other.startswith("/")):
        return one == other
    return Path(one).resolve() == Path(other).resolve()
