"""VMs that run from their restore points: what follows what, and what is left of it in the end, whatever happens.

What serves is the proxy's own server, in this process; what mounts and moves is the simulated vCenter, by libnfs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from proxy_worker.contract.errors import ProxyfleetError, SourceError
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.outcome import CreatedDisk, TaskFailure, TaskResult, VmCreateResult
from proxy_worker.contract.specification import PointRelease, PointServe, VmCreate
from proxy_worker.contract.using import PointReleaseResult, PointServeResult, ServedDisk, UseOffer
from proxy_worker.export.nfs.kept import descriptor_name, lay_out, open_share
from proxy_worker.export.nfs.server import NfsServer, listen
from proxy_worker.export.nfs.share import Share
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make
from proxy_worker.vsphere.nfs_datastore import unmount
from proxy_worker.vsphere.session import Session
from scheduler.planning.retention import HeldPoint, Retention
from scheduler.restores import instant_steps
from scheduler.restores.asking import NotInstantError, WishConflictError, ask_to_move
from scheduler.restores.giving_up import NothingToGiveUpError, ask_to_give_up
from scheduler.restores.instant_steps import UNMOUNT
from scheduler.runs.retention import verdicts
from scheduler.service import Service
from scheduler.state.asking import ask_to_delete, find_point, pin
from scheduler.state.errors import PointInUseError, PointLeavingError, PointPinnedError
from scheduler.state.models import (
    Job,
    LedgerTask,
    Point,
    RestoreWishes,
    StepState,
    VcenterStep,
    VmRestore,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.export.nfs_client import Client
from tests.export.test_nfs import LOCAL, Memory
from tests.scheduler.test_vm_restore_crashes import _die_at
from tests.scheduler.vcenters import OFFER, VsphereWorld, new_vsphere_world, vsphere_world
from tests.scheduler.vm_restoring import HARDWARE, Restoring, _target, mark_is_off, restoring
from tests.vsphere.conftest import IMPATIENT, endpoint, session, vsphere, vsphere_program, vsphere_server
from tests.vsphere.machines import MIB

__all__ = [
    "endpoint",
    "new_vsphere_world",
    "session",
    "vsphere",
    "vsphere_program",
    "vsphere_server",
    "vsphere_world",
]

KEYS = ("scsi0:0", "scsi0:1")
IMAGES = {key: bytes([number + 1]) * (2 * MIB) for number, key in enumerate(KEYS)}
INSTANT = RestoreWishes(datastore="LocalDS_1", instant=True)


@dataclass
class Serving:
    """A proxy that serves, makes VMs, and releases."""

    folder: Path
    fails: dict[type, int] = field(default_factory=dict)
    """By what it is told: how often it fails, and could succeed the next time."""
    shares: dict[bytes, Share] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = NfsServer(self.shares.get, listen("127.0.0.1", 0), LOCAL)
        self.server.start()

    def join(self, asked: Restoring) -> None:
        world = asked.one.world
        world.fleet.join("proxy-1", datastores={}, vsphere=OFFER, use=UseOffer(served_at="127.0.0.1"))
        asked.one.simulator.find_nfs_at(self.server.port)
        for kind, answer in ((PointServe, self.serve), (PointRelease, self.release)):
            world.fleet.answers[kind] = answer
        world.fleet.answers[VmCreate] = lambda body: self.create(asked, body)

    def serve(self, body: PointServe) -> TaskResult | TaskFailure:
        if failure := self._fail(body):
            return failure
        token, folder = bytes.fromhex(body.share), self.folder / body.share
        if token not in self.shares:
            lay_out(folder, {key: len(image) for key, image in IMAGES.items()})
            self.shares[token] = open_share(folder, token, {key: Memory(image) for key, image in IMAGES.items()})
        disks = (ServedDisk(key=key, size_bytes=2 * MIB, path=descriptor_name(key)) for key in KEYS)
        return PointServeResult(host="127.0.0.1", path=f"/{body.share}", disks=tuple(disks))

    def create(self, asked: Restoring, body: VmCreate) -> TaskResult | TaskFailure:
        if failure := self._fail(body):
            return failure
        disks = [NewDisk(key, 2 * MIB, body.place.datastore, body.disk_files.get(key)) for key in KEYS]
        place = body.place
        machine = NewMachine(
            name=body.name, hardware=HARDWARE, disks=disks, instance_uuid=body.instance_uuid, mark=body.mark,
            same_machine=body.same_machine, folder=place.folder, pool=place.pool, host=place.host,
            datastore=place.datastore,
        )  # fmt: skip
        try:
            made = make(asked.one.session, machine, IMPATIENT)
        except ProxyfleetError as error:
            return TaskFailure.of(error)
        found = [
            CreatedDisk(key=disk.place, size_bytes=disk.size_bytes, target=_target(body, made.ref, disk.key))
            for disk in made.disks
        ]
        return VmCreateResult(vm=made.ref, name=made.name, disks=tuple(found))

    def release(self, body: PointRelease) -> TaskResult | TaskFailure:
        if failure := self._fail(body):
            return failure
        share = self.shares.pop(bytes.fromhex(body.share), None)
        if share is not None:
            share.close()
        return PointReleaseResult(written_bytes=0)

    def _fail(self, body: object) -> TaskFailure | None:
        if self.fails.get(type(body), 0) <= 0:
            return None
        self.fails[type(body)] -= 1
        return TaskFailure.of(SourceError("the repository", why="it didn't answer"))


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "served")
    yield serving
    serving.server.close()


@pytest.fixture
def asked(vsphere_world: VsphereWorld, proxy: Serving) -> Restoring:
    """A VM that has a restore point, and a proxy that would serve it."""
    found = restoring(vsphere_world)
    proxy.join(found)
    return found


def disk_files(asked: Restoring) -> list[Path]:
    """Where the bytes of the VM's disks are, by their places."""
    vm = read_vm(asked.one.session, asked.made() or "")
    paths = [(disk.path or "")[1:].partition("] ") for disk in sorted(vm.disks, key=lambda disk: disk.place)]
    folders = asked.one.simulator.datastores
    return [folders[store] / name.replace(".vmdk", "-flat.vmdk") for store, _, name in paths]


def mounts(asked: Restoring) -> list[str]:
    stores = read_inventory(asked.one.session).datastores.values()
    return [store.name for store in stores if store.name.startswith("proxyfleet-")]


def stays(asked: Restoring) -> bool:
    """Whether nobody may remove the restore point; without a VM that runs from it, that is up to its pin."""
    with asked.one.read() as database:
        point = find_point(database, asked.vm.instance_uuid or "")
        try:
            ask_to_delete(database, point, now=0)
        except PointInUseError:
            return True
        finally:
            database.rollback()
        return False


def running(asked: Restoring, **how: object) -> Service:
    """Let a VM run that is to stay where it is."""
    asked.ask(wishes=INSTANT.model_copy(update={"stay": True}), **how)
    service = asked.one.world.start()
    asked.one.world.turn_until(service, lambda: asked.row.state is VmRestoreState.RUNNING)
    return service


def write(proxy: Serving, asked: Restoring, offset: int, data: bytes) -> None:
    """As the VM does through its host."""
    with Client(proxy.server.port, asked.row.share) as client:
        client.write(client.look_up("scsi0-0-flat.vmdk"), offset, data)


def move(asked: Restoring) -> None:
    with open_state(asked.one.world.url).write() as database:
        ask_to_move(database.get_one(VmRestore, asked.restore_id))


def give_up(asked: Restoring, refused: str = "") -> None:
    with open_state(asked.one.world.url).write() as database, ExitStack() as stack:
        if refused:
            stack.enter_context(pytest.raises(NothingToGiveUpError, match=refused))
        ask_to_give_up(database, database.get_one(VmRestore, asked.restore_id))


def releasing(asked: Restoring) -> LedgerTask | None:
    with asked.one.read() as database:
        return database.scalars(select(LedgerTask).where(LedgerTask.kind == TaskKind.POINT_RELEASE)).first()


def unmounting_waits(asked: Restoring) -> bool:
    with asked.one.read() as database:
        waits = VcenterStep.state == StepState.WAITING
        return (
            database.scalars(select(VcenterStep).where(VcenterStep.kind == UNMOUNT.name, waits)).first() is not None
        )


def nothing_is_left(proxy: Serving, asked: Restoring) -> bool:
    return (mounts(asked), proxy.shares, stays(asked)) == ([], {}, False)


def test_it_starts_from_the_point_and_its_disks_move_to_production(asked: Restoring, proxy: Serving) -> None:
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.row.failure, asked.row.warnings) == (VmRestoreState.SUCCEEDED, None, ())
    vm = read_vm(asked.one.session, asked.made() or "")
    assert (vm.powered_on, {(disk.path or "").split()[0] for disk in vm.disks}) == (True, {"[LocalDS_1]"})
    assert [file.read_bytes() for file in disk_files(asked)] == list(IMAGES.values())
    assert mark_is_off(asked)
    assert nothing_is_left(proxy, asked)


def test_one_that_is_to_stay_moves_when_told_with_what_it_has_written(asked: Restoring, proxy: Serving) -> None:
    service = running(asked)
    vm = read_vm(asked.one.session, asked.made() or "")
    assert (vm.powered_on, {(disk.path or "").split()[0] for disk in vm.disks}) == (True, {f"[{mounts(asked)[0]}]"})
    write(proxy, asked, 70_000, b"written while it ran from the repository")
    move(asked)
    asked.one.world.turn_until(service, asked.settled)

    assert asked.row.state is VmRestoreState.SUCCEEDED
    expected = bytearray(IMAGES[KEYS[0]])
    expected[70_000:70_040] = b"written while it ran from the repository"
    assert disk_files(asked)[0].read_bytes() == expected
    assert nothing_is_left(proxy, asked)


def test_its_point_stays_while_it_runs_whoever_unpins_it(asked: Restoring) -> None:
    service = running(asked)
    with open_state(asked.one.world.url).write() as database:
        point = find_point(database, asked.vm.instance_uuid or "")
        pin(database, point, pinned=False)
        job = Job(name=point.job, repository=point.repository, timezone="UTC", retention=Retention(points=0))
        older = HeldPoint(point.point, point.created_at, used=True)
        with pytest.raises(PointInUseError, match=f"by restore {asked.restore_id}"):
            ask_to_delete(database, point, now=0)
        newer = Point(
            repository=point.repository,
            vm_id=point.vm_id,
            vm_name="web",
            point="newer",
            job=job.name,
            created_at=point.created_at + 1,
            disks=(),
        )
        database.add(newer)
        found = verdicts(database, job, point.vm_id, now=point.created_at + 2)
        assert [(verdict.point, verdict.why) for verdict in found if verdict.point == older] == [
            (older, "a VM runs from it")
        ]
        database.delete(newer)

    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)
    assert not stays(asked)


def test_a_pin_that_somebody_has_made_meanwhile_outlives_it(asked: Restoring) -> None:
    service = running(asked)
    with open_state(asked.one.world.url).write() as database:
        pin(database, find_point(database, asked.vm.instance_uuid or ""), pinned=True)
    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)

    with asked.one.read() as database, pytest.raises(PointPinnedError):
        ask_to_delete(database, find_point(database, asked.vm.instance_uuid or ""), now=0)


def test_no_vm_starts_from_a_point_that_is_being_removed(asked: Restoring) -> None:
    with open_state(asked.one.world.url).write() as database:
        ask_to_delete(database, find_point(database, asked.vm.instance_uuid or ""), now=0)
    with pytest.raises(PointLeavingError):
        asked.ask(wishes=INSTANT)


def test_cancelled_while_it_runs_nothing_of_it_is_left(asked: Restoring, proxy: Serving) -> None:
    service = running(asked)
    asked.cancel()
    asked.one.world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.failure, asked.made()) == (VmRestoreState.CANCELLED, None, None)
    assert nothing_is_left(proxy, asked)


@pytest.mark.parametrize(
    ("goes_wrong", "why"),
    [
        ("CreateNasDatastore", "PlatformConfigFault"),
        ("CreateVM_Task", "GenericVmConfigFault"),
        ("PowerOnVM_Task", ""),
    ],
)
def test_what_goes_wrong_before_it_runs_is_undone(
    asked: Restoring, proxy: Serving, goes_wrong: str, why: str
) -> None:
    mode = "refuse" if goes_wrong == "CreateNasDatastore" else "fail"
    asked.one.simulator.go_wrong(goes_wrong, mode, why or "GenericVmConfigFault", times=0)
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.made()) == (VmRestoreState.FAILED, None)
    assert why in str(asked.row.failure)
    assert nothing_is_left(proxy, asked)


def test_a_move_that_fails_leaves_it_running_and_can_be_asked_for_again(asked: Restoring, proxy: Serving) -> None:
    asked.one.simulator.go_wrong("RelocateVM_Task", "fail", "NoDiskSpace")
    asked.ask(wishes=INSTANT)
    service = asked.one.world.start()
    asked.one.world.turn_until(service, lambda: asked.row.failure is not None)
    assert (asked.row.state, "NoDiskSpace" in str(asked.row.failure)) == (VmRestoreState.RUNNING, True)
    assert read_vm(asked.one.session, asked.made() or "").powered_on

    with open_state(asked.one.world.url).write() as database:
        ask_to_move(database.get_one(VmRestore, asked.restore_id))
    asked.one.world.turn_until(service, asked.settled)
    assert (asked.row.state, asked.row.failure) == (VmRestoreState.SUCCEEDED, None)
    assert nothing_is_left(proxy, asked)


def test_what_passes_is_waited_out(asked: Restoring, proxy: Serving) -> None:
    """A move that waits for another task, a datastore in use, a proxy that can't let go yet."""
    asked.one.simulator.go_wrong("RelocateVM_Task", "fail", "TaskInProgress", times=2)
    asked.one.simulator.go_wrong("RemoveDatastore", "refuse", "ResourceInUse", times=2)
    proxy.fails = {PointRelease: 2}
    asked.ask(wishes=INSTANT)
    asked.one.world.turn_until(asked.one.world.start(), asked.settled)

    assert (asked.row.state, asked.row.warnings) == (VmRestoreState.SUCCEEDED, ())
    assert nothing_is_left(proxy, asked)


def test_a_proxy_that_is_gone_for_good_is_given_up_by_a_scheduler_that_was_started_anew(asked: Restoring) -> None:
    world, service = asked.one.world, running(asked)
    give_up(asked, "it is running, and isn't waiting")
    world.fleet.identities.clear()
    asked.cancel()
    world.turn_until(service, lambda: releasing(asked) is not None)
    assert stays(asked)

    give_up(asked)
    world.turn_until(world.start(), asked.settled)

    assert (asked.row.state, mounts(asked), stays(asked)) == (VmRestoreState.CANCELLED, [], False)
    assert "wrote is left on proxy proxy-1, in its served folder" in asked.row.warnings[-1]


def test_a_host_and_a_proxy_that_fail_again_and_again_are_given_up_one_by_one(
    asked: Restoring, proxy: Serving
) -> None:
    asked.one.simulator.go_wrong("RemoveDatastore", "refuse", "ResourceInUse")
    proxy.fails = {PointRelease: 1000}
    world, service = asked.one.world, running(asked)
    move(asked)
    world.turn_until(service, lambda: unmounting_waits(asked), wait_out_retries=False)

    give_up(asked)
    world.turn_until(service, lambda: proxy.fails[PointRelease] < 1000, wait_out_retries=False)
    assert (asked.row.state, len(mounts(asked))) == (VmRestoreState.RELEASING, 1)
    give_up(asked)
    world.turn_until(service, asked.settled, wait_out_retries=False)

    assert asked.row.state is VmRestoreState.SUCCEEDED
    host, kept = asked.row.warnings
    assert f"may keep datastore {mounts(asked)[0]} mounted" in host
    assert "on proxy proxy-1" in kept
    place = asked.row.place
    assert place is not None
    unmount(asked.one.session, place.host or "", mounts(asked)[0])


def test_a_host_that_unmounts_just_as_it_is_given_up_leaves_the_rest_to_the_proxy(
    asked: Restoring, proxy: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up_meanwhile(session: Session, host: str, datastore: str) -> None:
        give_up(asked)
        unmount(session, host, datastore)

    world, service = asked.one.world, running(asked)
    monkeypatch.setattr(instant_steps, "unmount", given_up_meanwhile)
    move(asked)
    world.turn_until(service, asked.settled)

    assert (asked.row.state, asked.row.warnings) == (VmRestoreState.SUCCEEDED, ())
    assert nothing_is_left(proxy, asked)


def test_what_can_not_be_is_refused_at_once(asked: Restoring) -> None:
    with pytest.raises(WishConflictError, match="--instant with --overwrite"):
        asked.ask(wishes=INSTANT, overwrite=True)
    asked.ask()
    with pytest.raises(NotInstantError), open_state(asked.one.world.url).write() as database:
        ask_to_move(database.get_one(VmRestore, asked.restore_id))
    asked.one.world.fleet.join("proxy-1", datastores={}, vsphere=OFFER)
    asked.ask(wishes=INSTANT, name="another")
    asked.one.world.turn_until(asked.one.world.start(), lambda: asked.row.state.final)
    assert "has [instant_restore] in its proxy.toml" in str(asked.row.failure)
    assert not stays(asked)


@pytest.mark.parametrize("ends", ["in production", "cancelled"])
def test_a_scheduler_that_dies_at_each_of_its_steps_comes_to_the_same(
    asked: Restoring, proxy: Serving, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """It dies before and after its transactions, an early one, then a later one; each time another life goes on."""
    if ends == "cancelled":
        running(asked)
        asked.cancel()
    else:
        asked.ask(wishes=INSTANT)
    deaths = 0
    for number in itertools.islice(itertools.cycle(range(2, 6)), 60):
        if not _die_at(asked.one, asked.one.world.start(), asked, number, monkeypatch):
            break
        deaths += 1

    assert 2 < deaths < 60
    assert nothing_is_left(proxy, asked)
    if ends == "in production":
        assert asked.row.state is VmRestoreState.SUCCEEDED
        assert [file.read_bytes() for file in disk_files(asked)] == list(IMAGES.values())
        assert mark_is_off(asked)
    else:
        assert (asked.row.state, asked.made()) == (VmRestoreState.CANCELLED, None)
