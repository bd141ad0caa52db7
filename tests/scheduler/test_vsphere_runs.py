"""Runs of a vCenter's VMs: frozen, read by what changed, let go; and what goes wrong, named for that VM alone."""

from __future__ import annotations

import itertools

from sqlalchemy import select

from proxy_worker.contract.specification import Extent
from proxy_worker.vsphere.changed_blocks import FullRead
from scheduler.state.models import Run, RunState, SnapshotEntry, SnapshotState
from tests.scheduler.vcenters import VsphereWorld, new_vsphere_world, vsphere_world
from tests.vsphere.conftest import endpoint, session, vsphere, vsphere_program, vsphere_server
from tests.vsphere.machines import MIB, make_vm, write

__all__ = [
    "endpoint",
    "new_vsphere_world",
    "session",
    "vsphere",
    "vsphere_program",
    "vsphere_server",
    "vsphere_world",
]

_names = (f"run-{number}" for number in itertools.count(1))


def _back_up(one: VsphereWorld) -> str:
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    return run_id


def test_a_full_run_and_an_incremental_one_read_what_changed_and_leave_no_snapshot(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vms = [make_vm(one.session, 4 * MIB, 2 * MIB, name=f"{name}-{letter}") for letter in "abc"]
    one.declare(f"{name}-*")
    service = one.world.start()

    first = one.ask()
    one.world.turn_until(service, lambda: one.settled(first))
    backups = one.backups()
    assert sorted((body.vm.name, body.disk.key) for body in backups) == [
        (vm.name, key) for vm in vms for key in ("scsi0:0", "scsi0:1")
    ]
    assert {body.full_read_reason for body in backups} == {FullRead.FIRST}
    assert all(one.again(vm).tracks_changes for vm in vms)

    write(one.simulator, vms[1].disks[0].path or "", MIB + 5, b"changed")
    one.world.fleet.specifications.clear()
    second = one.ask()
    one.world.turn_until(service, lambda: one.settled(second))

    changed = {(body.vm.name, body.disk.key): body.changed_areas for body in one.backups()}
    assert changed.pop((vms[1].name, "scsi0:0")) == (Extent(offset=MIB, length=256 << 10),)
    assert set(changed.values()) == {()}
    with one.read() as database:
        assert {run.state for run in database.scalars(select(Run))} == {RunState.SUCCEEDED}
        assert {entry.state for entry in database.scalars(select(SnapshotEntry))} == {SnapshotState.GONE}
    assert {body.parent for body in one.backups()} == {body.run for body in backups}
    assert [one.snapshots(vm) for vm in vms] == [(), (), ()]
