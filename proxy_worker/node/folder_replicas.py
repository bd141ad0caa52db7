"""The tasks on a replica as a whole, where it lies in a folder of a datastore."""

from __future__ import annotations

import posixpath
import shutil

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


class InFolder:
    """A replica in a folder, as one task gets at it."""

    def __init__(self, place: ReplicaPlace, bench: Bench, claim: Claim, keeper: Control) -> None:
        self._folder = ReplicaFolder.reached(place, bench.configuration.connections)
        self._points = Points(self._folder, self._go_on)
        self._tables = TableFolder(bench.configuration.state_dir)
        self._claim = claim
        self._keeper = keeper

    def open(self, body: ReplicaOpen) -> ReplicaOpenResult:
        """Say what there is, once nothing speaks against writing it."""
        folder = self._folder
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
        return ReplicaOpenResult(
            condition=marker.condition, points=self._points.all(), free_bytes=folder.free_bytes
        )

    def make_point(self, body: ReplicaPoint) -> ReplicaPointResult:
        """Keep it as it is, its VMX written anew from what its source sent."""
        self._folder.prepare()
        self._folder.require_original(body.vm.vm_id)
        self._folder.require_standby()
        warnings: list[str] = []

        def write_configuration() -> None:
            if body.name is not None:
                warnings.extend(self._write_configuration(body, body.name))

        self._points.make(body.run, body.disks, write_configuration)
        made = next(point for point in self._points.all() if point.run == body.run)
        return ReplicaPointResult(point=made, warnings=tuple(warnings))

    def remove_point(self, body: ReplicaRemovePoint) -> ReplicaRemovePointResult:
        """Remove a restore point."""
        return ReplicaRemovePointResult(found=self._points.remove(body.run))

    def revert(self, body: ReplicaRevert) -> ReplicaRevertResult:
        """Go back to a restore point: to run from it, or to be written again."""
        self._points.revert(body.run, body.condition)
        return ReplicaRevertResult(condition=body.condition)

    def mark(self, body: ReplicaMark) -> ReplicaMarkResult:
        """Note what it is; one that is a VM of its own from now on has no restore points any more."""
        folder = self._folder
        folder.prepare()
        before = folder.require_whole()
        folder.note(msgspec.structs.replace(before, condition=body.condition, run=body.run))
        if body.condition is ReplicaCondition.PERMANENT:
            self._points.remove_all()
            shutil.rmtree(folder.incoming, ignore_errors=True)
            self._tables.forget(body.replica.datastore, body.replica.folder)
        return ReplicaMarkResult(before=before.condition)

    def _write_configuration(self, body: ReplicaPoint, name: str) -> tuple[str, ...]:
        """Its VMX and NVRAM from those that its source sent; what they lack. Raises OSError, SourceError."""
        folder = self._folder
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

    def _go_on(self) -> None:
        if self._keeper.verdict() is Verdict.STOP:
            raise CancelledError(self._claim.title, why="it was told to stop; done again, it is finished")
