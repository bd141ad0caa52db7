"""What a proxy remembers of what it has obeyed, across processes and restarts."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.contract.specification import InventoryScan, TaskSpecification
from proxy_worker.node.obeyed import CLOCK_TOLERANCE_S, MemoryLostError, Obeyed, ReplayedSpecificationError


def specification(**changes: Any) -> TaskSpecification:
    fields: dict[str, Any] = {
        "epoch": 3,
        "task_id": "t1",
        "dispatch_number": 1,
        "audience": "proxy.primary.proxy-1",
        "expires_at": time.time() + 60,
        "body": InventoryScan(datastore="ds1"),
    }
    return TaskSpecification(**(fields | changes))


def test_each_is_obeyed_once_and_by_any_of_the_processes(tmp_path: Path) -> None:
    made = specification()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        admitted = pool.starmap(is_admitted, [(tmp_path, made)] * 40)

    assert sum(admitted) == 1
    assert is_admitted(tmp_path, specification(dispatch_number=2))
    assert is_admitted(tmp_path, specification(task_id="t2"))


def test_epochs_only_rise_and_are_remembered_by_the_next_life(tmp_path: Path) -> None:
    assert Obeyed(tmp_path).epoch == 0
    Obeyed(tmp_path).admit(specification(epoch=5))

    with pytest.raises(ReplayedSpecificationError, match="it is of epoch 4, and this proxy has obeyed epoch 5"):
        Obeyed(tmp_path).admit(specification(epoch=4))
    Obeyed(tmp_path).admit(specification(epoch=6))

    assert Obeyed(tmp_path).epoch == 6


def test_one_that_expired_long_ago_by_the_proxys_own_clock_is_refused(tmp_path: Path) -> None:
    assert is_admitted(tmp_path, specification(expires_at=time.time() - CLOCK_TOLERANCE_S + 60))
    with pytest.raises(ReplayedSpecificationError, match="whatever Redis says"):
        Obeyed(tmp_path).admit(specification(task_id="t2", expires_at=time.time() - CLOCK_TOLERANCE_S - 60))


def test_memory_does_not_grow_for_ever(tmp_path: Path) -> None:
    past = tmp_path / "obeyed" / str(int(time.time() - 4 * 3600) // 3600)
    past.mkdir(parents=True)
    Obeyed(tmp_path).admit(specification())

    assert not past.exists()
    assert not is_admitted(tmp_path, specification()), "what is in force stays remembered"


def test_memory_that_cannot_be_kept_is_an_error_and_not_obedience(tmp_path: Path) -> None:
    (tmp_path / "obeyed").write_text("in the way")

    with pytest.raises(MemoryLostError, match="what this proxy has obeyed"):
        Obeyed(tmp_path).admit(specification())


def is_admitted(state_dir: Path, made: TaskSpecification) -> bool:
    try:
        Obeyed(state_dir).admit(made)
    except ReplayedSpecificationError:
        return False
    return True
