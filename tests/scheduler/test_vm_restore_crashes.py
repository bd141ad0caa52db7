"""Restores to a vCenter, killed at every journalled step: they finish or undo."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from proxy_worker.contract.errors import TargetError
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.session import Session
from scheduler.restores.asking import ask_for_disks_to_vm
from scheduler.state.models import (
    RestoreWishes,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.scheduler.mortality import EVERY_DEATH
from tests.scheduler.vcenters import VsphereWorld
from tests.scheduler.vm_restoring import Restoring, died_at, is_catalogued, mark_is_off, restoring


def _kinds() -> dict[str, Callable[[Restoring], None]]:
    def new(asked: Restoring) -> None:
        asked.ask()

    def failing(asked: Restoring) -> None:
        asked.proxy.fails, asked.proxy.error = {"scsi0:1": 99}, TargetError  # not tried again
        asked.ask()

    def disk(asked: Restoring) -> None:
        state = open_state(asked.one.world.url)
        with state.write() as database:
            asked.restore_id = ask_for_disks_to_vm(
                database,
                vm=asked.vm.name,
                disks=("scsi0:0",),
                to_vm=asked.vm.name,
                wishes=RestoreWishes(),
                now=time.time(),
            ).id
        state.close()

    def overwrite(asked: Restoring) -> None:
        asked.ask(name=None, overwrite=True, wishes=RestoreWishes(power_on=True))

    return {"new": new, "failing": failing, "disk": disk, "overwrite": overwrite}


@pytest.mark.parametrize("kind", list(_kinds()))
def test_killed_at_every_journalled_step_it_comes_to_the_same(
    new_vsphere_world: Callable[[], VsphereWorld], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The scheduler dies before and after each of its transactions; the next life goes on.

    Of two kinds only before: what was done and not recorded is done again. Of the two others the suite has one
    before, and one after; `make fuzz` has both of both.
    """
    number, stride = 0, 2
    if kind in {"new", "overwrite"} and EVERY_DEATH:
        stride = 1
    elif kind == "overwrite":
        number = 1
    while True:
        one = new_vsphere_world()
        asked = restoring(one)
        service = one.world.start()
        if kind in {"disk", "overwrite"}:
            one.world.turn_until(service, lambda asked=asked: is_catalogued(asked))
        _kinds()[kind](asked)
        died = died_at(asked, service, number, monkeypatch)
        if died:
            one.world.turn_until(one.world.start(), asked.settled)
        expected = VmRestoreState.FAILED if kind == "failing" else VmRestoreState.SUCCEEDED
        assert asked.row.state is expected, f"killed at {number}: {asked.row.failure}"
        if kind == "new":
            assert mark_is_off(asked)
            assert _named(one.session, f"{asked.vm.name}-copy") == 1
        elif kind == "failing":
            assert asked.made() is None
            assert _named(one.session, f"{asked.vm.name}-copy") == 0
        elif kind == "disk":
            assert len(read_vm(one.session, asked.vm.ref).disks) == 3
        else:
            after = read_vm(one.session, asked.vm.ref)
            assert (after.snapshots, after.tracks_changes, after.powered_on) == ((), True, True)
        if not died:
            break
        number += stride
    assert number > 5


def _named(session: Session, name: str) -> int:
    return sum(vm.name == name for vm in read_inventory(session).vms.values())
