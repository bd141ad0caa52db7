"""The tasks that move a disk of a replica: received by the target's proxy, sent by the source's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.errors import CancelledError, CredentialError
from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.replication import DiskReceive, DiskReplicate, ReplicaSeed, ReplicaTarget, VsphereHome
from proxy_worker.contract.replication_outcome import DiskReceiveResult, DiskReplicateResult
from proxy_worker.ledger import Claim, Flow
from proxy_worker.link.identity import Identity
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.mover.effort import Effort
from proxy_worker.mover.pacing import Pacing
from proxy_worker.mover.pipeline import transform_threads
from proxy_worker.mover.restore import restore_disk
from proxy_worker.node.address import address_towards
from proxy_worker.node.bench import Bench
from proxy_worker.node.configuration_files import read_configuration_file
from proxy_worker.node.traffic import kept_to_flow, kept_to_share
from proxy_worker.replication.disk import ReplicaDisk
from proxy_worker.replication.durable import put, remove
from proxy_worker.replication.errors import ReplicaIsSourceError, ReplicaUnwritableError
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.near_end import NearEnd
from proxy_worker.replication.reception import Reception
from proxy_worker.replication.replicating import replicate_disk
from proxy_worker.replication.session_lock import writing
from proxy_worker.replication.table import TableFolder
from proxy_worker.transport.select import open_disk
from proxy_worker.transport.source import DiskSource


class NoLinkError(CredentialError):
    """This proxy has no certificate of the fleet, and can't speak to other proxies."""


@dataclass(frozen=True)
class _Begun:
    """A reception, the key of its digests, and the restore point that the disk was made from just now."""

    reception: Reception
    key: bytes
    seeded_from: str | None


def receive_disk(body: DiskReceive, bench: Bench, claim: Claim, keeper: Control) -> DiskReceiveResult:
    """Write what a source sends, until the disk is whole."""
    # gRPC takes a tenth of a second to load, and few tasks need it.
    from proxy_worker.replication.listening import listening, receive  # noqa: PLC0415
    from proxy_worker.replication.receiving import Desk  # noqa: PLC0415

    identity = _identity(bench)
    settings = bench.configuration.replication
    with _reception(body.target, body.job, bench, claim, keeper) as begun:
        desk = Desk(begun.reception, begun.key, session=body.session, source=body.source)
        ports = range(settings.ports[0], settings.ports[1] + 1)
        with listening(desk, identity, host=settings.listen, ports=ports, streams=body.streams) as port:
            ready = Receiver(proxy=bench.identity.name, host=_host(bench), port=port)
            patience_s = settings.give_up_after_s + settings.retry_pause_s
            receive(begun.reception, desk, ready, keeper, absent_after_s=patience_s)
    done = begun.reception.done
    return DiskReceiveResult(
        session=body.session,
        root=begun.reception.sealed_root or "",
        written_bytes=done.written_bytes,
        compared_bytes=done.compared_bytes,
        seeded_from=begun.seeded_from,
        note=begun.reception.note,
    )


def send_disk(body: DiskReplicate, bench: Bench, claim: Claim, keeper: Control) -> DiskReplicateResult:
    """Send what differs to the target's proxy; or, where this one is both, write it."""
    with _source(body, bench, keeper) as source:
        if body.receiver is not None:
            return _send_to(body.receiver, source, body, bench=bench, claim=claim, keeper=keeper)
        return _write_here(source, body, bench, claim, keeper)


@contextmanager
def _source(body: DiskReplicate, bench: Bench, keeper: Control) -> Iterator[DiskSource]:
    """What is to be sent; of a replica, in a failback, only while that is off."""
    if body.source is not None and body.source.vsphere is not None:
        from proxy_worker.node.vsphere_replicas import replica_in  # noqa: PLC0415 - pyvmomi, slow to load
        from proxy_worker.replication.vsphere_disk import reading  # noqa: PLC0415 - as above

        with reading(replica_in(body.source, body.source.vsphere, bench, keeper), body.disk.key) as source:
            yield source
        return
    replica = ReplicaFolder.around(body.disk.address, bench.configuration.connections)
    if replica is not None:
        replica.require_sendable(body.vm.vm_id)
    with open_disk(
        body.disk.address,
        body.transport,
        bench.configuration.connections,
        bench.vsphere,
        size_bytes=body.disk.size_bytes,
    ) as source:
        yield source


def _send_to(
    receiver: Receiver, source: DiskSource, body: DiskReplicate, *, bench: Bench, claim: Claim, keeper: Control
) -> DiskReplicateResult:
    from proxy_worker.link.client import Patience  # noqa: PLC0415 - gRPC, as above
    from proxy_worker.replication.linked_end import LinkedEnd  # noqa: PLC0415

    settings = bench.configuration.replication
    given_up = threading.Event()
    patience = Patience(
        first_pause_s=min(0.5, settings.retry_pause_s),
        longest_pause_s=settings.retry_pause_s,
        in_all_s=settings.give_up_after_s,
        first_contact_s=settings.give_up_after_s,
    )
    end = LinkedEnd(
        receiver,
        body.session,
        _identity(bench),
        streams=body.streams,
        level=body.level,
        patience=patience,
        given_up=given_up,
        networks=body.preferred_networks,
    )
    files = tuple(read_configuration_file(address, bench) for address in body.configuration)
    flow = Flow(TrafficKind.REPLICATION, receiver.proxy, bench.identity.name)
    with kept_to_flow(bench, claim, flow, body.job) as pacing:
        return replicate_disk(
            source,
            end,
            body,
            keeper,
            pacing=pacing,
            given_up=given_up,
            configuration=files,
            effort=Effort(end.compressor, body.level, transform_threads(), now_s=time.monotonic()),
        )


def _write_here(
    source: DiskSource, body: DiskReplicate, bench: Bench, claim: Claim, keeper: Control
) -> DiskReplicateResult:
    if body.target is None:
        raise ValueError("the contract asks for a receiver or a target")
    if (body.target.disk.address.datastore, body.target.disk.address.path) == (
        body.disk.address.datastore,
        body.disk.address.path,
    ):
        raise ReplicaIsSourceError(
            f"disk {body.disk.key} of {body.vm.name}", why="it is to be replicated onto itself"
        )
    files = tuple(read_configuration_file(address, bench) for address in body.configuration)
    with _reception(body.target, body.job, bench, claim, keeper) as begun:
        return replicate_disk(
            source,
            NearEnd(begun.reception),
            body,
            keeper,
            pacing=Pacing(),
            given_up=threading.Event(),
            configuration=files,
        )


@contextmanager
def _reception(target: ReplicaTarget, job: str, bench: Bench, claim: Claim, keeper: Control) -> Iterator[_Begun]:
    """Hold the disk for this task's fence, once no other session writes it, and begin it from its seed."""
    if target.place.vsphere is not None:
        with _reception_in_vcenter(target, target.place.vsphere, bench, claim, keeper) as begun:
            yield begun
        return
    folder = ReplicaFolder.reached(target.place, bench.configuration.connections)
    folder.prepare()
    disk = ReplicaDisk(folder, target.disk)
    session = folder.session_file(target.disk.key)
    with writing(session, disk.name, claim.fence.number, patience_s=claim.lease_s, go_on=_go_on(claim, keeper)):
        folder.require_original(target.original)
        folder.require_standby()
        seeded = target.seed is not None and _seed(
            target.seed, job, folder, disk, bench=bench, claim=claim, keeper=keeper
        )
        try:
            table = TableFolder(bench.configuration.state_dir).table(target.disk.address)
        except OSError as error:
            raise folder.unwritable(error) from error
        reception = Reception(folder, disk, table, keeper)
        try:
            yield _Begun(reception, table.key, target.seed.run if target.seed and seeded else None)
        finally:
            reception.close()


@contextmanager
def _reception_in_vcenter(
    target: ReplicaTarget, home: VsphereHome, bench: Bench, claim: Claim, keeper: Control
) -> Iterator[_Begun]:
    """The same where a vCenter has it: VDDK's lock keeps other proxies away from its disk."""
    from proxy_worker.node.vsphere_replicas import written_in  # noqa: PLC0415 - pyvmomi, slow to load
    from proxy_worker.replication.vsphere_disk import VsphereReplicaDisk  # noqa: PLC0415 - as above

    replica = written_in(target.place, home, bench, keeper)
    disk = VsphereReplicaDisk(replica, target.disk)
    tables = TableFolder(bench.configuration.state_dir)
    try:
        table = tables.table(target.disk.address)
    except OSError as error:
        raise ReplicaUnwritableError(disk.name, why=str(error)) from error
    session = tables.session_file(target.disk.address)
    with writing(session, disk.name, claim.fence.number, patience_s=claim.lease_s, go_on=_go_on(claim, keeper)):
        replica.require_standby()
        reception = Reception(replica, disk, table, keeper)
        try:
            yield _Begun(reception, table.key, None)
        finally:
            reception.close()


def _seed(
    seed: ReplicaSeed,
    job: str,
    folder: ReplicaFolder,
    disk: ReplicaDisk,
    *,
    bench: Bench,
    claim: Claim,
    keeper: Control,
) -> bool:
    """Restore a new disk from its seed; goes over it again where an earlier try was killed."""
    begun = folder.session_file(disk.identity.key).with_suffix(".seeding")
    if disk.exists and not begun.exists():
        return False
    repository = bench.repository(seed.repository, "read")
    size_bytes = repository.point(seed.vm.vm_id, seed.run).disk(seed.disk_key).size_bytes
    try:
        put(begun, seed.run.encode())
        blank = not disk.exists
        if blank:
            disk.make(size_bytes)
        request = DiskRestore(
            repository=seed.repository,
            vm=seed.vm,
            run=seed.run,
            disk_key=seed.disk_key,
            target=disk.identity.address,
            target_is_blank=blank,
        )
        with (
            kept_to_share(bench, claim, TrafficKind.RESTORE, seed.repository, job) as pacing,
            disk.open() as opened,
        ):
            restore_disk(repository, request, keeper, opened.sink, pacing)
        remove(begun)
    except OSError as error:
        raise folder.unwritable(error) from error
    return True


def _go_on(claim: Claim, keeper: Control) -> Callable[[], None]:
    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop")

    return go_on


def _identity(bench: Bench) -> Identity:
    identity = bench.configuration.link_identity()
    if identity is None:
        raise NoLinkError(
            f"proxy {bench.identity.name}",
            why="it has no certificate of the fleet to show to other proxies",
            remedy="Set `certificate`, `key` and `ca_file` under [link] in its proxy.toml.",
        )
    return identity


def _host(bench: Bench) -> str:
    configuration = bench.configuration
    address = configuration.replication.host or configuration.address or address_towards(configuration.redis.url)
    return str(address)
