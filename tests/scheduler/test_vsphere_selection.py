"""What a job selects in a vCenter is found out anew in each run, down to its disks; one VM's trouble is its own."""

from __future__ import annotations

import itertools

from pyVmomi import vim
from sqlalchemy import select

from proxy_worker.vsphere.tasks import finish
from scheduler.planning.criteria import Criteria, VmSelector
from scheduler.state.models import Datastore, DatastoreKind, DiskTask, Run, VcenterVm, VmRun, VmRunState
from scheduler.state.store import open_state
from tests.scheduler.vcenters import VsphereWorld
from tests.vsphere.machines import MIB, disk, make_vm
from tests.vsphere.test_selection import Tagging

_names = (f"chosen-{number}" for number in itertools.count(1))


def run(one: VsphereWorld) -> dict[str, VmRun]:
    """A run of the job to its end: its VM runs by name."""
    service = one.world.start()
    run_id = one.ask()
    one.world.turn_until(service, lambda: one.settled(run_id))
    with one.read() as database:
        assert database.get_one(Run, run_id).state.final
        return {found.name: found for found in database.scalars(select(VmRun).where(VmRun.run_id == run_id))}


def disks_of(one: VsphereWorld, vm_run: VmRun) -> list[str]:
    with one.read() as database:
        return sorted(database.scalars(select(DiskTask.disk_key).where(DiskTask.vm_run_id == vm_run.id)))


def test_a_tag_is_looked_up_in_each_run_and_disks_are_left_out_as_said(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    independent = disk((1000, 5), MIB, f"[LocalDS_0] {name}-a/i.vmdk", diskMode="independent_persistent")
    first = make_vm(one.session, MIB, MIB, name=f"{name}-a", devices=[independent])
    second = make_vm(one.session, MIB, name=f"{name}-b")
    admin = Tagging(one.simulator)
    admin.tag(f"Backup {name}", "gold", first.ref)
    one.declare(
        criteria=Criteria(
            select=(VmSelector(tag=f"Backup {name}*/*", vcenter="vc1"),),
            exclude_disks=(f"{name}-a/scsi0:1",),
        )
    )

    ended = run(one)
    assert [(found, vm_run.state) for found, vm_run in ended.items()] == [(first.name, VmRunState.SUCCEEDED)]
    assert disks_of(one, ended[first.name]) == ["scsi0:0"]
    assert "scsi0:5 is left out: its mode is independent_persistent" in (ended[first.name].warning or "")

    admin.tag(f"Backup {name} too", "silver", second.ref)
    assert sorted(run(one)) == [first.name, second.name]


def test_a_vm_that_has_no_disk_to_read_fails_alone(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    independent = disk((1000, 0), MIB, f"[LocalDS_0] {name}-a/i.vmdk", diskMode="independent_persistent")
    make_vm(one.session, name=f"{name}-a", devices=[independent])
    make_vm(one.session, MIB, name=f"{name}-b")
    one.declare(f"{name}-*", "gone")

    ended = run(one)
    assert {found: vm_run.state.value for found, vm_run in ended.items()} == {
        f"{name}-a": "failed",
        f"{name}-b": "succeeded",
        "gone": "failed",
    }
    assert "none of its disks can be had: scsi0:0 is left out" in (ended[f"{name}-a"].reason or "")
    assert ended["gone"].reason == "no VM has that name"


def test_a_vm_that_moved_to_another_folder_is_found_there_and_its_datastore_by_its_declared_name(
    vsphere_world: VsphereWorld,
) -> None:
    one, name = vsphere_world, next(_names)
    vm = make_vm(one.session, MIB, name=f"{name}-a", datastore="LocalDS_1")
    folder = one.session.content.rootFolder.childEntity[0].vmFolder.CreateFolder(name)
    one.declare(criteria=Criteria(select=(VmSelector(folder=f"DC0/{name}"),)))
    state = open_state(one.world.url)
    with state.write() as database:
        database.add(
            Datastore(
                name="fast", kind=DatastoreKind.VSPHERE, site="primary", vcenter="vc1", vsphere_name="LocalDS_1"
            )
        )
    state.close()
    (empty,) = run(one).values()
    assert (empty.state, empty.reason) == (VmRunState.FAILED, "no VM matches that selection")

    machine = vim.VirtualMachine(vm.ref, one.session.stub)
    finish(one.session, "moving", lambda: folder.MoveIntoFolder_Task([machine]))
    assert list(run(one)) == [f"{name}-a"]
    with one.read() as database:
        assert database.get_one(VcenterVm, ("vc1", vm.ref)).folder == f"DC0/{name}"
    (backup,) = one.backups()
    assert (backup.disk.address.datastore, backup.disk.address.path) == ("fast", f"{name}-a/d0.vmdk")
    assert backup.disk.address.vsphere is not None
    assert backup.disk.address.vsphere.snapshot is not None


def test_a_vm_made_a_moment_ago_is_in_a_run_that_is_started_by_hand(vsphere_world: VsphereWorld) -> None:
    one, name = vsphere_world, next(_names)
    make_vm(one.session, MIB, name=f"{name}-a")
    one.declare(f"{name}-*")
    service = one.world.start()

    found = []
    for letter in "bc":
        run_id = one.ask()
        one.world.turn_until(service, lambda run_id=run_id: one.settled(run_id))
        with one.read() as database:
            found.append(sorted(database.scalars(select(VmRun.name).where(VmRun.run_id == run_id))))
        make_vm(one.session, MIB, name=f"{name}-{letter}")

    assert found == [[f"{name}-a"], [f"{name}-a", f"{name}-b"]]
