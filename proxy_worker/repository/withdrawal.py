"""Removing restore points: a mark first, then the one object; no other point can be hurt.

The object of an ended point stays while a list of condemned packs is open or a reader is at the point. A collector
counts what is left of ended points when it settles what goes: a writer may have taken such a point for its parent
before it ended, and so need packs that were condemned before that point was there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_lists import CondemnedLists
from proxy_worker.repository.points import Point, load_outcome, point_name, point_names
from proxy_worker.repository.registration import ReaderMark, age_s
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free


def end_point(access: Access, *, vm_id: str, run: str) -> bool:
    """End a restore point: from now on nobody honours it. Idempotent. False if there was none.

    A damaged one can be ended too. Raises `StoreError`, `ObjectLockedError` where its term isn't over.
    """
    store, mark = access.store, f"ended/{vm_id}/{run}"
    if not store.exists(mark):
        payload = b""
        try:
            outcome = load_outcome(store, access.sealer, vm_id, run)
            if not isinstance(outcome, Point):
                return False
            payload = msgspec.msgpack.encode(outcome.sequence)
        except DamageError:
            pass  # nobody can use it; its name is spent all the same
        store.put_if_absent(mark, [access.sealer.seal_object(mark, payload)])
    _remove_objects(access, [(vm_id, run)], readers_for_s=math.inf)
    return True


def remove_ended_points(access: Access, *, readers_for_s: float) -> int:
    """Remove what earlier removals had to leave; how many points that were.

    Marks of readers that are older than `readers_for_s` don't count any more.
    """
    names = [name.split("/") for name in point_names(access.store)]
    ended = {name.removeprefix("ended/") for name in access.store.list("ended/")}
    found = [(vm_id, run) for _, vm_id, run in names if f"{vm_id}/{run}" in ended]
    return _remove_objects(access, found, readers_for_s=readers_for_s) if found else 0


def honours_end(access: Access, vm_id: str, run: str) -> bool:
    """Whether the mark that ends a run is one that somebody with a key has put."""
    name = f"ended/{vm_id}/{run}"
    try:
        access.sealer.open_object(name, access.store.get(name))
    except (ObjectNotFoundError, DamageError):
        return False
    return True


def _remove_objects(access: Access, runs: list[tuple[str, str]], *, readers_for_s: float) -> int:
    # The marks come first, then this look: a list that is published after it finds nobody who honours the point.
    if CondemnedLists(access).is_open():
        return 0
    read = set(_points_read(access, readers_for_s))
    removed = 0
    for vm_id, run in runs:
        if (vm_id, run) in read or not honours_end(access, vm_id, run):
            continue
        try:
            if not isinstance(load_outcome(access.store, access.sealer, vm_id, run), Point):
                continue
        except DamageError:
            pass
        removed += delete_if_free(access.store, point_name(vm_id, run))
    return removed


def _points_read(access: Access, readers_for_s: float) -> Iterator[tuple[str, str]]:
    """The points that readers are at; marks that are too old are removed on the way."""
    store = access.store
    for name in list(store.list("readers/")):
        try:
            payload, _ = access.sealer.open_object(name, store.get(name))
            mark = msgspec.msgpack.decode(payload, type=ReaderMark)
        except (ObjectNotFoundError, DamageError, msgspec.MsgspecError):
            continue
        if age_s(mark.started_at) > readers_for_s:
            store.delete(name)
        else:
            yield mark.vm_id, mark.run
