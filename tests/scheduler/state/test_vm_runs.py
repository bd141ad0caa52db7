"""In which order a run's VMs are told."""

from __future__ import annotations

from scheduler.state.access import DatabaseAccess
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Job, Repository, Site, VmRun
from scheduler.state.store import open_state
from scheduler.state.vm_runs import vm_runs_of


def test_copies_of_one_vm_are_told_in_the_order_of_their_numbers(database: DatabaseAccess) -> None:
    state = open_state(database, migrate=True)
    with state.write() as session:
        session.add(Site(name="primary"))
        session.add(Repository(name="main", location="/backup", site="primary"))
        session.add(Job(name="nightly", vms=("*",), repository="main"))
        session.flush()
        run = ask_for_run(session, "nightly", now=1.0)
        session.flush()
        for number, name in ((10, "web01"), (2, "web01"), (1, "web01"), (3, "app01")):
            session.add(VmRun(id=f"{run.id}.{number}", run_id=run.id, name=name, started_at=1.0))
        session.flush()

        told = [vm_run.id.removeprefix(run.id) for vm_run in vm_runs_of(session, run.id)]
    state.close()
    assert told == [".3", ".1", ".2", ".10"]
