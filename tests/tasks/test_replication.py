"""Disks replicated by real proxies: received and sent as two tasks, whatever is killed; or by one proxy alone."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey, free_port
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.outcome import DiskReceiveResult, DiskReplicateResult
from proxy_worker.contract.replication import (
    DiskReceive,
    DiskReplicate,
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
    ReplicaSeed,
    ReplicaTarget,
)
from proxy_worker.contract.replication_outcome import ReplicaOpenResult
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, TransportPreference
from proxy_worker.ledger import Flow, TaskState, Traffic
from proxy_worker.transport.inventory import scan_datastore
from tests.gateway.serving import HERE
from tests.gateway.serving import Fleet as Certificates
from tests.tasks.fleet import wait_until
from tests.tasks.test_disks import WEB01, DiskFleet

MIB = 1 << 20
HALF_WRITTEN_BYTES = 8 * (256 << 10)
"""Blocks that were being written when a process was killed."""
VMX = b"""\
.encoding = "UTF-8"
displayName = "web01"
uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.raw"
ethernet0.networkName = "production"
"""


class TwoSites(DiskFleet):
    """A proxy at the source and one at the target, each with its datastore and a certificate."""

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "ds-dr").mkdir()
        self.certificates = Certificates.made(self.folder / "certificates")
        (self.folder / "ds1/web01").mkdir()
        (self.folder / "ds1/web01/web01.vmx").write_bytes(VMX)
        self.source = self.folder / "ds1/web01/web01.raw"
        self.replicas = 0
        for name, datastore in (("proxy-1", "ds1"), ("proxy-dr", "ds-dr")):
            self._add_site(name, datastore)

    def _add_site(self, name: str, datastore: str) -> None:
        identity = self.certificates.identity(name)
        port = free_port()
        lines = [
            f'[link]\ncertificate = "{identity.certificate}"\nkey = "{identity.key}"',
            f'ca_file = "{identity.ca_file}"',
            f'[replication]\nhost = "{HERE}"\nlisten = "{HERE}"\nports = [{port}, {min(port + 50, 65_535)}]',
            "retry_pause_s = 0.2\ngive_up_after_s = 120",
            f'[datastores.{datastore}]\npath = "{self.folder / datastore}"',
        ]
        if name == "proxy-dr":
            lines.append(f'[datastores.ds1]\npath = "{self.folder / "ds1"}"')
        proxy = self.add_proxy(name, tables="\n".join(lines))
        (proxy.folder / "secrets/main.passphrase").write_text("correct horse")

    def begin_anew(self) -> None:
        """Another disk, and another place for its replica."""
        self.replicas += 1
        self.source.write_bytes(random.Random(self.replicas).randbytes(24 * MIB))
        name = f"web01_replica{self.replicas}"
        self.place = ReplicaPlace(datastore="ds-dr", folder=name)
        self.replica = self.folder / "ds-dr" / name
        self.flat = self.replica / f"{name}-flat.vmdk"

    @property
    def target(self) -> ReplicaTarget:
        path = f"{self.place.folder}/{self.place.folder}.vmdk"
        return ReplicaTarget(
            place=self.place,
            disk=DiskIdentity(key="scsi0:0", address=DiskAddress(datastore="ds-dr", path=path)),
        )

    def receive(self, run: str, *, seed: ReplicaSeed | None = None) -> DiskReceive:
        target = self.target.model_copy(update={"seed": seed})
        return DiskReceive(job="to-dr", run=run, session=secrets.token_hex(8), source="proxy-1", target=target)

    def replicate(self, run: str, **where: object) -> DiskReplicate:
        content = {
            "job": "to-dr",
            "run": run,
            "vm": WEB01,
            "session": "here",
            "disk": DiskIdentity(key="scsi0:0", address=DiskAddress(datastore="ds1", path="web01/web01.raw")),
            "transport": TransportPreference(),
            "configuration": (DiskAddress(datastore="ds1", path="web01/web01.vmx"),),
        }
        return DiskReplicate.model_validate(content | where)

    def open(self) -> None:
        """Make the replica's folder."""
        self.done(ReplicaOpen(replica=self.place, vm=WEB01))

    def begin(self, body: DiskReceive) -> tuple[str, DiskReplicate]:
        """Dispatch a receiving and wait until it listens; its task, and what its source is to be told."""
        task_id = self.submit(body)
        assert self.dispatch(task_id, body, proxy="proxy-dr") is not None
        wait_until(lambda: self.ready(task_id) is not None, "the target listens")
        return task_id, self.replicate(body.run, session=body.session, receiver=self.ready(task_id))

    def ready(self, task_id: str) -> object:
        task = self.ledger.view().tasks.get(task_id)
        assert task is not None, self.ledger.finished()
        return task.progress.ready if task.progress else None

    def replicated(self, run: str, **receive: ReplicaSeed) -> tuple[DiskReceiveResult, DiskReplicateResult]:
        """A whole run of one disk."""
        receiving, body = self.begin(self.receive(run, **receive))
        sent = self.run(body, proxy="proxy-1").result
        received = self.outcome(receiving).result
        assert isinstance(sent, DiskReplicateResult)
        assert isinstance(received, DiskReceiveResult)
        assert sent.root == received.root
        assert self.flat.read_bytes() == self.source.read_bytes()
        return received, sent

    def make_point(self, run: str) -> None:
        point = ReplicaPoint(
            replica=self.place,
            vm=WEB01,
            run=run,
            disks=(self.target.disk,),
            name="web01_replica",
            uuid="01234567-89ab-cdef-0123-456789abcdef",
            networks={"production": "dr"},
        )
        self.done(point)

    def done(self, body: ReplicaOpen | ReplicaPoint | ReplicaRevert | ReplicaRemovePoint | ReplicaMark) -> object:
        ended = self.run(body, proxy="proxy-dr")
        assert ended.state is TaskState.DONE, ended.failure
        return ended.result

    @property
    def written_bytes(self) -> int:
        """Of the replica."""
        return self.flat.stat().st_blocks * 512 if self.flat.exists() else 0

    def is_ready_again(self, task_id: str) -> bool:
        self.ledger.reap()
        return self.ledger.view().tasks[task_id].state is TaskState.READY


@pytest.fixture(scope="module")
def both_sites(tmp_path_factory: pytest.TempPathFactory, valkey_server: EmbeddedValkey) -> Iterator[TwoSites]:
    """One pair of proxies for all tests, since they take long to start."""
    with redis.Redis(port=valkey_server.port, password=valkey_server.password) as client:
        client.flushall()
    made = TwoSites(tmp_path_factory.mktemp("sites"), valkey_server)
    made.prepare()
    made.start()
    yield made
    made.end()


@pytest.fixture
def sites(both_sites: TwoSites) -> TwoSites:
    """With a new disk at the source, and no replica of it yet."""
    both_sites.begin_anew()
    return both_sites


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_replica_is_made_brought_up_to_date_failed_over_and_back(sites: TwoSites) -> None:
    view = sites.view("proxy-dr")
    assert view is not None
    assert view.registration.replication is not None

    sites.open()
    _, first = sites.replicated("run-1")
    sites.make_point("run-1")
    assert first.report.stored_bytes == 24 * MIB
    change(sites.source, 5 * MIB, b"changed")
    received, second = sites.replicated("run-2")
    sites.make_point("run-2")
    assert (second.report.stored_bytes, received.compared_bytes) == (256 << 10, 0)

    (replica,) = scan_datastore("ds-dr", sites.folder / "ds-dr")
    assert (replica.identity.name, replica.problem) == ("web01_replica", None)
    assert replica.identity.vm_id == "01234567-89ab-cdef-0123-456789abcdef"
    assert [disk.size_bytes for disk in replica.disks] == [24 * MIB]
    assert 'networkname = "dr"' in (sites.replica / f"{sites.place.folder}.vmx").read_text()

    sites.done(ReplicaRevert(replica=sites.place, run="run-1", condition=ReplicaCondition.FAILED_OVER))
    assert sites.flat.read_bytes() != sites.source.read_bytes()
    refused = sites.run(ReplicaOpen(replica=sites.place, vm=WEB01), proxy="proxy-dr")
    assert refused.failure is not None
    assert refused.failure.code == "replica-failed-over"
    sites.done(ReplicaRevert(replica=sites.place, run="run-2", condition=ReplicaCondition.STANDBY))
    sites.done(ReplicaRemovePoint(replica=sites.place, run="run-1"))
    opened = sites.done(ReplicaOpen(replica=sites.place, vm=WEB01))
    assert isinstance(opened, ReplicaOpenResult)
    assert [point.run for point in opened.points] == ["run-2"]

    received, third = sites.replicated("run-3")
    assert received.written_bytes == 0
    assert third.report.stored_bytes == 0
    sites.done(ReplicaMark(replica=sites.place, condition=ReplicaCondition.PERMANENT))
    assert not any((sites.replica / ".points").iterdir())


def test_a_target_and_a_source_that_are_killed_cost_a_session_and_nothing_is_sent_twice(sites: TwoSites) -> None:
    sites.open()
    flow = Flow(TrafficKind.REPLICATION, "proxy-dr", "proxy-1")
    sites.ledger.set_traffic(Traffic({"slow": MIB}, {flow: ["slow"]}))
    receiving, body = sites.begin(sites.receive("run-1"))
    sending = sites.submit(body)
    assert sites.dispatch(sending, body, proxy="proxy-1") is not None
    wait_until(lambda: sites.written_bytes > 2 * MIB, "some of the disk is written")

    for name, task_id in (("proxy-1", sending), ("proxy-dr", receiving)):
        for process in sites.proxies[name].children():
            process.kill()
        wait_until(lambda task_id=task_id: sites.is_ready_again(task_id), f"{name} gives its task up")
        sites.ledger.cancel(task_id)
        sites.outcome(task_id)
    written = sites.written_bytes
    assert written < 24 * MIB
    sites.ledger.set_traffic(Traffic({}, {}))

    received, sent = sites.replicated("run-2")

    assert received.compared_bytes >= written
    assert sent.report.stored_bytes <= 24 * MIB - written + HALF_WRITTEN_BYTES


def test_one_proxy_that_is_both_needs_no_network_and_a_seed_spares_the_rest(sites: TwoSites) -> None:
    sites.open()
    backup = sites.backup(
        DiskIdentity(key="scsi0:0", address=DiskAddress(datastore="ds1", path="web01/web01.raw")), WEB01
    )
    sites.commit(backup, sites.run(backup, proxy="proxy-dr"), proxy="proxy-dr")
    change(sites.source, 5 * MIB, b"changed since")
    seed = ReplicaSeed(repository=sites.repository, vm=WEB01, run=backup.run, disk_key="scsi0:0")

    ended = sites.run(
        sites.replicate("run-1", target=sites.target.model_copy(update={"seed": seed})), proxy="proxy-dr"
    )

    assert isinstance(ended.result, DiskReplicateResult), ended.failure
    assert sites.flat.read_bytes() == sites.source.read_bytes()
    assert ended.result.report.stored_bytes == 256 << 10

    itself = sites.target.model_copy(update={"disk": sites.replicate("run-2", target=sites.target).disk})
    refused = sites.run(sites.replicate("run-2", target=itself), proxy="proxy-dr")
    assert refused.failure is not None
    assert refused.failure.code == "replica-is-source"
