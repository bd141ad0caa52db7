"""Which replica a VM of a run gets: its own whatever names change, never another's, and in a few statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event, select

from proxy_worker.contract.outcome import InventoryScanResult
from proxy_worker.contract.replication import ReplicaPlace
from proxy_worker.contract.subjects import InventoryVm, VmIdentity
from scheduler.runs import tasks
from scheduler.runs.beginning import plan_if_scanned
from scheduler.runs.journal import journal
from scheduler.state.asking import ask_for_run, ask_to_retry
from scheduler.state.errors import RunEndedError
from scheduler.state.models import (
    Job,
    Replica,
    ReplicaState,
    Run,
    RunState,
    VmRun,
    VmRunState,
    WorkState,
)
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import REPLICA, Sites, machine, prepare, two_sites

MOST_STATEMENTS = 60
"""Whatever the number of VMs."""


@pytest.fixture
def sites(world: World) -> Iterator[Sites]:
    with two_sites(world) as both:
        yield both


def renamed(vm: InventoryVm, name: str) -> InventoryVm:
    """The same VM under another name; its files stay."""
    return vm.model_copy(update={"identity": VmIdentity(vm_id=vm.identity.vm_id, name=name)})


def change_terms(sites: Sites, **changes: object) -> None:
    """Change what the job says of replicas."""
    with sites.state.write() as session:
        job = session.get_one(Job, "away")
        assert job.replica is not None
        job.replica = job.replica.model_copy(update=changes)


@pytest.mark.parametrize(("name", "suffix"), [("app02", "_replica"), ("app01", "_copy")])
def test_a_replica_stays_with_its_points_when_its_original_or_the_suffix_changes(
    sites: Sites, name: str, suffix: str
) -> None:
    sites.run()
    disks = sites.replica.disks
    change_terms(sites, suffix=suffix)
    sites.world.fleet.inventory["ds1"] = (renamed(machine("app01", "scsi0:0", "scsi0:1"), name),)

    assert sites.run() is RunState.SUCCEEDED

    assert (sites.replica.place, sites.replica.name, sites.replica.disks) == (REPLICA, "app01_replica", disks)
    assert sites.replica.vm_name == name
    assert len(sites.points) == 2
    assert list(sites.folders[REPLICA].points) == sites.points


def test_a_vm_that_takes_the_name_of_another_doesnt_get_its_replica(sites: Sites) -> None:
    sites.run()
    first, second = machine("app01", "scsi0:0", "scsi0:1"), machine("app02", "scsi0:0")
    sites.world.fleet.inventory["ds1"] = (renamed(first, "app03"), renamed(second, "app01"))

    assert sites.run() is RunState.PARTLY_FAILED

    why = "folder app01_replica of datastore ds2 is that of the replica of app01 (id-app01) by job away"
    assert why in sites.reasons()[-1]
    assert (sites.replica.vm_id, sites.replica.vm_name) == ("id-app01", "app03")
    change_terms(sites, suffix="_copy")
    assert sites.run() is RunState.SUCCEEDED
    with sites.state.read() as session:
        places = {replica.vm_id: replica.place.folder for replica in session.scalars(select(Replica))}
    assert places == {"id-app01": "app01_replica", "id-app02": "app01_copy"}


def test_a_known_replica_isnt_moved_onto_anothers_place(sites: Sites) -> None:
    sites.world.fleet.inventory["ds1"] = (machine("app01", "scsi0:0"), machine("app02", "scsi0:0"))
    sites.run()
    change_terms(sites, mapped={"app02": "app01_replica"})
    there = machine("app01_replica", "scsi0:0", datastore="ds2")
    sites.world.fleet.inventory["ds2"] = (there,)

    assert sites.run() is RunState.PARTLY_FAILED

    assert "is that of the replica of app01 (id-app01) by job away" in sites.reasons()[-1]
    with sites.state.read() as session:
        places = {replica.vm_id: replica.place.folder for replica in session.scalars(select(Replica))}
    assert places == {"id-app01": "app01_replica", "id-app02": "app02_replica"}


def test_another_datastore_begins_a_replica_anew(sites: Sites) -> None:
    sites.run()
    change_terms(sites, datastore="ds1")

    assert sites.run() is RunState.SUCCEEDED

    place = ReplicaPlace(datastore="ds1", folder="app01_replica")
    assert (sites.replica.place, sites.replica.state) == (place, ReplicaState.STANDBY)
    assert {disk.address.datastore for disk in sites.replica.disks} == {"ds1"}
    assert list(sites.folders[place].points) == sites.points
    assert len(sites.points) == 1


def test_a_run_that_failed_before_the_job_said_otherwise_isnt_retried(sites: Sites) -> None:
    sites.world.fleet.failures = {"disk.replicate app01 scsi0:0": 99}
    sites.run()
    change_terms(sites, datastore="ds1")

    with (
        pytest.raises(RunEndedError, match="says other things of its replicas by now"),
        sites.state.write() as session,
    ):
        ask_to_retry(session, session.scalars(select(Run.id)).one())


def statements_of(state: State, vms: tuple[InventoryVm, ...], *, now: float) -> int:
    """Plan a run of the job whose scan found these VMs; answers how many SQL statements that took."""
    with state.write() as session:
        run = ask_for_run(session, "away", now=now)
        run.state = RunState.SCANNING
        scan = tasks.scan_task(run, "ds1", now)
        scan.state, scan.result = WorkState.SUCCEEDED, InventoryScanResult(vms=vms)
        session.add(scan)
        run_id = run.id
    seen: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(state.engine, "before_cursor_execute", count)
    with journal(state, lambda: now) as planning:
        plan_if_scanned(planning, planning.session.get_one(Run, run_id))
    event.remove(state.engine, "before_cursor_execute", count)
    with state.write() as session:
        run = session.get_one(Run, run_id)
        assert run.state is RunState.RUNNING
        states = session.scalars(select(VmRun.state).where(VmRun.run_id == run_id)).all()
        assert states == [VmRunState.OPENING] * len(vms)
        run.state = RunState.SUCCEEDED
    return len(seen)


def test_a_thousand_vms_are_planned_in_a_few_statements(world: World) -> None:
    prepare(world)
    state = open_state(world.url)
    vms = tuple(machine(f"app{number:04}", "scsi0:0") for number in range(1_000))

    assert statements_of(state, vms, now=1_000.0) < MOST_STATEMENTS
    change = tuple(renamed(vm, f"{vm.identity.name}b") for vm in vms)
    assert statements_of(state, change, now=2_000.0) < MOST_STATEMENTS

    with state.read() as session:
        folders = {replica.vm_name: replica.place.folder for replica in session.scalars(select(Replica))}
    assert folders == {f"{vm.identity.name}b": f"{vm.identity.name}_replica" for vm in vms}
    state.close()
