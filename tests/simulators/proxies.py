"""Proxies that move no data: they claim what is announced, through the real ledger, and answer as they are told.

One thread drives them, step by step, so that a test decides what happens between two turns of the scheduler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy_worker.contract.disks import DiskBackup, DiskBackupResult, DiskRestore, DiskRestoreResult
from proxy_worker.contract.errors import SourceError
from proxy_worker.contract.figures import DiskProgress, DiskReport, Receiver
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.offers import ProxyRegistration, UseOffer, VsphereOffer
from proxy_worker.contract.outcome import (
    InventoryScanResult,
    KeptPacks,
    PointDeleteResult,
    PointDisk,
    PointSummary,
    ProvenPoint,
    RepositoryAbandonResult,
    RepositoryCheckResult,
    RepositoryCollectResult,
    RepositoryCommitResult,
    RepositoryListResult,
    RepositoryProveResult,
    TaskFailure,
    TaskResult,
)
from proxy_worker.contract.replication import DiskReceive, DiskReplicate, ReplicaTarget
from proxy_worker.contract.replication_outcome import DiskReceiveResult, DiskReplicateResult
from proxy_worker.contract.specification import (
    InventoryScan,
    PointDelete,
    RepositoryAbandon,
    RepositoryCheck,
    RepositoryCollect,
    RepositoryCommit,
    RepositoryList,
    RepositoryProve,
    TaskBody,
    TaskSpecification,
)
from proxy_worker.contract.subjects import InventoryVm
from proxy_worker.contract.versions import CONTRACT_VERSION
from proxy_worker.ledger import Claim, Ledger, ProxyIdentity, RenewAnswer
from tests.simulators.replicas import SimulatedReplicas

DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Message:
    """What was published."""

    kind: TaskKind
    title: str
    lane: str
    task_id: str
    number: int


@dataclass
class Lanes:
    """Where the scheduler publishes to."""

    messages: list[Message] = field(default_factory=list)

    def publish(self, *, kind: TaskKind, title: str, lane: str, task_id: str, number: int) -> None:
        """Take a message."""
        self.messages.append(Message(kind, title, lane, task_id, number))


@dataclass
class SimulatedRepository:
    """What proxies know of a repository: the first to create a point or tombstone of a run wins."""

    points: dict[tuple[str, str], PointSummary] = field(default_factory=dict)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    commits: Counter[tuple[str, str]] = field(default_factory=Counter)
    damage: tuple[str, ...] = ()
    """What a check finds."""

    def commit(self, body: RepositoryCommit) -> TaskResult | TaskFailure:
        """Create the point, unless the run was abandoned."""
        key = (body.vm.vm_id, body.run)
        self.commits[key] += 1
        if key in self.tombstones:
            return TaskFailure(code="run-ended", what=f"point {body.run}", why="a tombstone has its name")
        disks = tuple(PointDisk(key=disk.disk.key, size_bytes=DISK_BYTES, stored_bytes=1) for disk in body.disks)
        summary = PointSummary(vm=body.vm, run=body.run, job=body.job, created_at=body.started_at, disks=disks)
        return RepositoryCommitResult(point=self.points.setdefault(key, summary))

    def abandon(self, body: RepositoryAbandon) -> TaskResult:
        """Create the tombstone, unless the point exists."""
        key = (body.vm.vm_id, body.run)
        if key not in self.points:
            self.tombstones.add(key)
        return RepositoryAbandonResult(committed=key in self.points)

    def delete(self, body: PointDelete) -> TaskResult:
        """Remove a point, if it is there."""
        return PointDeleteResult(found=self.points.pop((body.vm.vm_id, body.run), None) is not None)

    def prove(self, _: RepositoryProve) -> TaskResult:
        """Say that all points have just been read, and that the first of them is damaged."""
        points = [
            ProvenPoint(
                vm_id=vm_id, run=run, proven_at=None if first else 1_800_000_000, sampled_at=None, damaged=first
            )
            for first, (vm_id, run) in zip((True, *[False] * len(self.points)), self.points, strict=False)
        ]
        return RepositoryProveResult(
            packs=3,
            read_bytes=3,
            sampled=0,
            overdue=0,
            damage=("pack packs/00/00: it is not there",),
            mended=("packs/01/01",),
            points=tuple(points),
            duration_seconds=0.1,
        )

    def collect(self, body: RepositoryCollect) -> TaskResult:
        """Say that there is nothing to free."""
        return RepositoryCollectResult(
            dry_run=body.dry_run,
            points=len(self.points),
            packs=1,
            live_bytes=1,
            freed_packs=0,
            freed_bytes=0,
            rewritten_packs=0,
            moved_bytes=0,
            waiting_for=(),
            kept=(KeptPacks(packs=1, size_bytes=1, why="restore points need all of them"),),
            notes=(),
            duration_seconds=0.1,
        )


class SimulatedFleet:
    """Registered proxies that take messages of the lanes they are ordered to."""

    def __init__(self, ledger: Ledger, lanes: Lanes, inventory: dict[str, tuple[InventoryVm, ...]]) -> None:
        self.ledger = ledger
        self.lanes = lanes
        self.inventory = inventory
        self.repository = SimulatedRepository()
        self.replicas = SimulatedReplicas()
        self.receiving: dict[str, tuple[Claim, ReplicaTarget]] = {}
        """What listens, by session."""
        self.failures: dict[str, int] = {}
        """How often a disk's title fails before it succeeds."""
        self.answers: dict[type, Callable[..., TaskResult | TaskFailure]] = {}
        """What tasks are answered with instead, by the type of their body."""
        self.lost_answers: set[str] = set()
        """Titles of tasks that are done, but reported as failed."""
        self.when_handled: dict[str, Callable[[], None]] = {}
        """What happens meanwhile, by title."""
        self.handled: list[tuple[str, str]] = []
        """Proxy and title of everything done, in order."""
        self.specifications: list[TaskSpecification] = []
        self.identities: dict[str, ProxyIdentity] = {}

    def join(
        self,
        name: str,
        *,
        site: str = "primary",
        slots: int = 2,
        datastores: dict[str, tuple[TransportMode, ...]] | None = None,
        credentials: dict[str, str] | None = None,
        vsphere: VsphereOffer | None = None,
        use: UseOffer | None = None,
        receives: bool = False,
        address: str | None = None,
    ) -> None:
        """Register a proxy."""
        identity = ProxyIdentity(name=name, instance_id=f"instance-{name}", life=f"life-{name}", lock=name)
        registration = ProxyRegistration.model_validate(
            {
                "name": name,
                "instance_id": identity.instance_id,
                "site": site,
                "max_concurrent_tasks": slots,
                "datastores": datastores
                if datastores is not None
                else dict.fromkeys(self.inventory, (TransportMode.DIRECT_STORAGE, TransportMode.NETWORK)),
                "modes": (TransportMode.NETWORK,),
                "credentials": credentials if credentials is not None else {"main": "read"},
                "vsphere": vsphere if vsphere is not None else VsphereOffer(),
                "use": use if use is not None else UseOffer(),
                "replication": {"host": "127.0.0.1"} if receives else None,
                "address": address,
                "version": "0",
                "contract_version": CONTRACT_VERSION,
            }
        )
        self.ledger.register(registration, identity)
        self.identities[name] = identity

    def work(self, limit: int | None = None) -> int:
        """Handle announced messages, at most `limit`; returns how many there were."""
        for session, (claim, _) in list(self.receiving.items()):
            if self.ledger.renew(claim.fence, None, None) not in {RenewAnswer.OK, RenewAnswer.PAUSE}:
                del self.receiving[session]
                self.ledger.release(claim.fence, None, "told to stop")
        taken = self.lanes.messages[:limit]
        del self.lanes.messages[: len(taken)]
        for message in taken:
            self._handle(message)
        return len(taken)

    def claim(self, message: Message) -> tuple[str, Claim] | None:
        """Have the first proxy that pulls from the message's lane claim it."""
        for name, identity in self.identities.items():
            orders = self.ledger.heartbeat(identity)
            if orders is not None and message.lane in orders.lanes:
                claim = self.ledger.claim(
                    message.task_id, message.number, kind=message.kind, lane=message.lane, identity=identity
                )
                if isinstance(claim, Claim):
                    return name, claim
        return None

    def _handle(self, message: Message) -> None:
        claimed = self.claim(message)
        if claimed is None:
            return
        proxy, claim = claimed
        specification = TaskSpecification.model_validate_json(claim.signed[64:])
        self.specifications.append(specification)
        self.handled.append((proxy, message.title))
        self.when_handled.get(message.title, lambda: None)()
        body = specification.body
        if isinstance(body, DiskReceive) and not self.failures.get(message.title):
            self.receiving[body.session] = claim, body.target
            self.ledger.renew(claim.fence, None, listening(proxy))
            return
        answer = self._answer(message.title, body)
        if isinstance(body, DiskReplicate) and not isinstance(answer, TaskFailure):
            self._replicate(body)
        if isinstance(answer, TaskFailure):
            self.ledger.fail(claim.fence, answer)
        else:
            self.ledger.complete(claim.fence, answer)

    def _replicate(self, body: DiskReplicate) -> None:
        """Write a replica's disk, and end the task that received it."""
        if body.target is not None:
            self.replicas.write(body.target, body)
            return
        claim, target = self.receiving.pop(body.session)
        self.replicas.write(target, body)
        result = DiskReceiveResult(session=body.session, root="root", written_bytes=1, compared_bytes=0)
        self.ledger.complete(claim.fence, result)

    def _answer(self, title: str, body: TaskBody) -> TaskResult | TaskFailure:
        if self.failures.get(title, 0) > 0:
            self.failures[title] -= 1
            return TaskFailure.of(SourceError(title, why="the datastore did not answer"))
        answers: dict[type, Callable[..., TaskResult | TaskFailure]] = {
            InventoryScan: lambda scan: InventoryScanResult(vms=self.inventory[scan.datastore]),
            DiskBackup: lambda disk: DiskBackupResult(
                report=disk_report(), sealed_result=f"{disk.run}/{disk.disk.key}"
            ),
            DiskRestore: lambda restore: DiskRestoreResult(
                report=disk_report(), target_path=restore.target_path or ""
            ),
            RepositoryCommit: self.repository.commit,
            RepositoryAbandon: self.repository.abandon,
            PointDelete: self.repository.delete,
            RepositoryCollect: self.repository.collect,
            RepositoryProve: self.repository.prove,
            RepositoryCheck: lambda _: RepositoryCheckResult(
                packs=1, read_bytes=1, duration_seconds=0.1, damage=self.repository.damage
            ),
            RepositoryList: lambda _: RepositoryListResult(
                repository_id="simulated", points=tuple(self.repository.points.values())
            ),
            DiskReplicate: lambda _: DiskReplicateResult(report=disk_report(), root="root"),
            **self.replicas.answers(),
            **self.answers,
        }
        answer = answers[type(body)](body)
        if title in self.lost_answers:
            return TaskFailure.of(SourceError(title, why="the connection broke before the answer"))
        return answer


def listening(proxy: str) -> DiskProgress:
    """What a target tells once it listens."""
    receiver = Receiver(proxy=proxy, host="127.0.0.1", port=1)
    return DiskProgress(
        size_bytes=DISK_BYTES, processed_bytes=0, read_bytes=0, stored_bytes=0, rate=0.0, ready=receiver
    )


def disk_report() -> DiskReport:
    """What a simulated disk comes to."""
    return DiskReport(
        size_bytes=DISK_BYTES,
        read_bytes=DISK_BYTES,
        zero_bytes=0,
        unchanged_bytes=0,
        duplicate_bytes=0,
        stored_bytes=1,
        duration_seconds=0.1,
        mode=TransportMode.DIRECT_STORAGE,
        mode_reason="simulated",
    )
