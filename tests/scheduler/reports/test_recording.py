"""What reports need is recorded while runs go on: who had a disk, when, and how that ended."""

from __future__ import annotations

from sqlalchemy import select

from proxy_worker.contract.outcome import AttemptOutcome, StoreSpace, TaskFailure, TaskResult
from proxy_worker.contract.specification import RepositoryCommit
from scheduler.reports.run_report import RunReport, run_report
from scheduler.service import Service
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Repository, Run
from scheduler.state.store import State, open_state
from tests.scheduler.conftest import World

KILLED = "disk.backup web01 scsi0:1"


def report_of_a_run(world: World, service: Service, state: State, *, killed: str | None = None) -> RunReport:
    """A run to its end; the process that first claims the task titled `killed` dies over it."""
    with state.write() as session:
        run_id = ask_for_run(session, "nightly", now=world.clock()).id
    while killed is not None:
        service.turn()
        found = next((message for message in world.lanes.messages if message.title == killed), None)
        if found is None:
            world.fleet.work(1)
            continue
        world.lanes.messages.remove(found)
        assert world.fleet.claim(found) is not None
        world.fleet.ledger.forfeit(found.task_id, found.number, world.fleet.identities["proxy-1"])
        killed = None

    def ended() -> bool:
        with state.read() as session:
            return session.get_one(Run, run_id).state.final

    world.turn_until(service, ended)
    with state.read() as session:
        return run_report(session, session.get_one(Run, run_id))


def test_attempts_of_lost_and_failed_holders_are_told_beside_the_last(world: World) -> None:
    world.declare()
    world.fleet.join("proxy-1")
    world.fleet.failures["disk.backup app01 scsi0:0"] = 1
    state = open_state(world.url)
    service = world.start()

    report = report_of_a_run(world, service, state, killed=KILLED)

    state.close()
    assert str(report.proof) == "0 of 2 restore points", "nothing has been read yet"
    outcomes = {(one.vm, one.disk): [each.outcome for each in one.attempts] for one in report.disks}
    assert outcomes == {
        ("app01", "scsi0:0"): [AttemptOutcome.FAILED, AttemptOutcome.DONE],
        ("web01", "scsi0:0"): [AttemptOutcome.DONE],
        ("web01", "scsi0:1"): [AttemptOutcome.REQUEUED, AttemptOutcome.DONE],
    }
    for one in report.disks:
        assert one.queued is not None
        assert all(each.started <= each.ended for each in one.attempts)
    assert service.ledger.view().proxies["proxy-1"].lost_leases == 1


def test_a_repositorys_room_is_noted_when_a_proxy_tells_it(world: World) -> None:
    def commit(body: RepositoryCommit) -> TaskResult | TaskFailure:
        answer = world.fleet.repository.commit(body)
        return answer.model_copy(update={"space": StoreSpace(size_bytes=1000, free_bytes=400)})

    world.declare()
    world.fleet.join("proxy-1")
    world.fleet.answers[RepositoryCommit] = commit
    state = open_state(world.url)
    report_of_a_run(world, world.start(), state)
    with state.read() as session:
        row = session.scalars(select(Repository)).one()
    state.close()
    assert (row.size_bytes, row.free_bytes) == (1000, 400)
