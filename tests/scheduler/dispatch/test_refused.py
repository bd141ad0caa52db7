"""A dispatch that the ledger refuses: what the policy took for begun has not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import Refusal
from scheduler.dispatch.reasons import waiting_reasons
from scheduler.planning.window import Window
from scheduler.state.asking import ask_for_run
from tests.scheduler.conftest import World, vm


def test_a_vm_whose_first_disk_was_refused_begins_no_other_once_its_window_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = datetime.now(UTC).hour
    world.fleet.inventory = {"ds1": (vm("web01", "scsi0:0", "scsi0:1"),)}
    world.declare(window=Window(hours=(f"{hour}:00-{(hour + 2) % 24}:00",)))
    world.fleet.join("proxy-1", slots=1)
    service = world.start()
    with service.state.write() as session:
        ask_for_run(session, "nightly", now=world.clock())
    dispatch, refused = service.ledger.dispatch, list[str]()

    def refuse_disks(task_id: str, **how: Any) -> int | Refusal:
        if service.dispatcher.tasks[task_id].new.kind is not TaskKind.DISK_BACKUP:
            return dispatch(task_id, **how)
        refused.append(task_id)
        return Refusal("proxy-full", "proxy-1")

    with monkeypatch.context() as patched:
        patched.setattr(service.ledger, "dispatch", refuse_disks)
        world.turn_until(service, lambda: bool(refused), wait_out_retries=False)
    world.clock.ahead_s += 3 * 3600
    for _ in range(3):
        service.turn()

    assert world.lanes.messages == []
    with service.state.read() as session:
        reasons = waiting_reasons(session, service.ledger.view(), world.clock()).values()
    assert ["job nightly may run" in reason for reason in reasons] == [True, True]
