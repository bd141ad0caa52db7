"""A world in which VMs run from their restore points, and a proxy that serves these.

What serves is the proxy's own server, in this process; what mounts and moves is the simulated vCenter, by libnfs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy_worker.contract.errors import ProxyfleetError, SourceError
from proxy_worker.contract.offers import UseOffer
from proxy_worker.contract.outcome import CreatedDisk, TaskFailure, TaskResult, VmCreateResult
from proxy_worker.contract.specification import VmCreate
from proxy_worker.contract.using import PointRelease, PointReleaseResult, PointServe, PointServeResult, ServedDisk
from proxy_worker.export.nfs.kept import descriptor_name, lay_out, open_share
from proxy_worker.export.nfs.server import NfsServer, listen
from proxy_worker.export.nfs.share import Share
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.new_machine import NewDisk, NewMachine, make
from scheduler.restores.asking import ask_to_move
from scheduler.service import Service
from scheduler.state.asking import ask_to_delete, find_point
from scheduler.state.errors import PointInUseError
from scheduler.state.models import (
    RestoreWishes,
    VmRestore,
    VmRestoreState,
)
from scheduler.state.store import open_state
from tests.export.nfs_client import Client
from tests.export.test_nfs import LOCAL, Memory
from tests.scheduler.vcenters import OFFER, VsphereWorld
from tests.scheduler.vm_restoring import HARDWARE, Restoring, _target, restoring
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB

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


def nothing_is_left(proxy: Serving, asked: Restoring) -> bool:
    return (mounts(asked), proxy.shares, stays(asked)) == ([], {}, False)
