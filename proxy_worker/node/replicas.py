"""The tasks on a replica as a whole: may it be written, its restore points, and what it is at the moment."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Callable

import msgspec

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.replication import (
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaPoint,
    ReplicaRemovePoint,
    ReplicaRevert,
)
from proxy_worker.contract.replication_outcome import (
    ReplicaMarkResult,
    ReplicaOpenResult,
    ReplicaPointResult,
    ReplicaRemovePointResult,
    ReplicaRevertResult,
)
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Control, Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.replication.durable import put
from proxy_worker.replication.folder import ReplicaFolder
from proxy_worker.replication.home import Marker
from proxy_worker.replication.original import require_disks
from proxy_worker.replication.points import Points
from proxy_worker.replication.table import TableFolder
from proxy_worker.replication.vmx_rewriting import Changes, rewritten


def open_replica(body: ReplicaOpen, bench: Bench, claim: Claim, keeper: Control) -> ReplicaOpenResult:
    """Say what there is, once nothing speaks against writing it."""
    if body.replica.vsphere is not None:
        from proxy_worker.node import vsphere_replicas  # noqa: PLC0415 - pyvmomi, slow to load

        return vsphere_replicas.open_replica(body, body.replica.vsphere, bench, keeper)
    folder = _folder(body.replica, bench)
    folder.require_free_for(body.vm.vm_id, mapped=body.mapped, expected=body.expected)
    require_disks(folder, body.disks)
    folder.prepare(new=True)
    if body.mapped and folder.marker().condition is ReplicaCondition.PERMANENT:
        folder.note(Marker())  # a VM of its own is what a replica may be mapped to
    marker = folder.require_standby()
    folder.require_room(folder.name, body.needed_bytes)
    if marker.original != body.vm.vm_id:
        folder.note(msgspec.structs.replace(marker, original=body.vm.vm_id))
    shutil.rmtree(folder.incoming, ignore_errors=True)  # its run sends what there is now
    points = Points(folder, _go_on(claim, keeper)).all()
    return ReplicaOpenResult(condition=marker.condition, points=points, free_bytes=folder.free_bytes)


def make_replica_point(body: ReplicaPoint, bench: Bench, claim: Claim, keeper: Control) -> ReplicaPointResult:
    """Keep the replica as it is, its VMX written anew from what its source sent."""
    if body.replica.vsphere is not None:
        from proxy_worker.node import vsphere_replicas  # noqa: PLC0415 - pyvmomi, slow to load

        return vsphere_replicas.make_replica_point(body, body.replica.vsphere, bench, keeper)
    folder = _folder(body.replica, bench)
    folder.prepare()
    folder.require_original(body.vm.vm_id)
    folder.require_standby()
    points = Points(folder, _go_on(claim, keeper))
    warnings: list[str] = []

    def write_configuration() -> None:
        if body.name is not None:
            warnings.extend(_write_configuration(folder, body, body.name))

    points.make(body.run, body.disks, write_configuration)
    made = next(point for point in points.all() if point.run == body.run)
    return ReplicaPointResult(point=made, warnings=tuple(warnings))


def remove_replica_point(
    body: ReplicaRemovePoint, bench: Bench, claim: Claim, keeper: Control
) -> ReplicaRemovePointResult:
    """Remove one."""
    if body.replica.vsphere is not None:
        from proxy_worker.node import vsphere_replicas  # noqa: PLC0415 - pyvmomi, slow to load

        return vsphere_replicas.remove_replica_point(body, body.replica.vsphere, bench, keeper)
    points = Points(_folder(body.replica, bench), _go_on(claim, keeper))
    return ReplicaRemovePointResult(found=points.remove(body.run))


def revert_replica(body: ReplicaRevert, bench: Bench, claim: Claim, keeper: Control) -> ReplicaRevertResult:
    """Go back to a restore point: to run from it, or to be written again."""
    if body.replica.vsphere is not None:
        from proxy_worker.node import vsphere_replicas  # noqa: PLC0415 - pyvmomi, slow to load

        return vsphere_replicas.revert_replica(body, body.replica.vsphere, bench, keeper)
    points = Points(_folder(body.replica, bench), _go_on(claim, keeper))
    points.revert(body.run, body.condition)
    return ReplicaRevertResult(condition=body.condition)


def mark_replica(body: ReplicaMark, bench: Bench, claim: Claim, keeper: Control) -> ReplicaMarkResult:
    """Note what it is; one that is a VM of its own from now on has no restore points any more."""
    if body.replica.vsphere is not None:
        from proxy_worker.node import vsphere_replicas  # noqa: PLC0415 - pyvmomi, slow to load

        return vsphere_replicas.mark_replica(body, body.replica.vsphere, bench, keeper)
    folder = _folder(body.replica, bench)
    folder.prepare()
    before = folder.require_whole()
    folder.note(msgspec.structs.replace(before, condition=body.condition, run=body.run))
    if body.condition is ReplicaCondition.PERMANENT:
        Points(folder, _go_on(claim, keeper)).remove_all()
        shutil.rmtree(folder.incoming, ignore_errors=True)
        TableFolder(bench.configuration.state_dir).forget(body.replica.datastore, body.replica.folder)
    return ReplicaMarkResult(before=before.condition)


def _write_configuration(folder: ReplicaFolder, body: ReplicaPoint, name: str) -> tuple[str, ...]:
    """The replica's VMX and NVRAM from those that its source sent; what they lack. Raises OSError, SourceError."""
    sent = {path.suffix.lower(): path for path in sorted(folder.incoming.glob("*"))}
    vmx, nvram = sent.get(".vmx"), sent.get(".nvram")
    stem = folder.path.name
    if vmx is None:
        return ("its source sent no VMX, so that the replica has disks only",)
    changes = Changes(
        name=name,
        uuid=body.uuid,
        networks=body.networks,
        disks={disk.key: posixpath.relpath(disk.address.path or "", stem) for disk in body.disks},
        nvram=f"{stem}.nvram" if nvram is not None else None,
    )
    content, warnings = rewritten(vmx.read_bytes(), vmx.name, changes)
    if nvram is not None:
        put(folder.path / f"{stem}.nvram", nvram.read_bytes())
    put(folder.path / f"{stem}.vmx", content)
    return warnings


def _folder(place: ReplicaPlace, bench: Bench) -> ReplicaFolder:
    return ReplicaFolder.reached(place, bench.configuration.connections)


def _go_on(claim: Claim, keeper: Control) -> Callable[[], None]:
    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop; done again, it is finished")

    return go_on
