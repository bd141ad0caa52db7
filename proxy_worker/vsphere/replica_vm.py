"""A replica as a VM of a vCenter: its mark, what is noted in it, and its snapshots, which are its restore points.

The mark is there from the VM's making on, in its extra configuration. A VM without just that mark is another's.
"""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError
from proxy_worker.vsphere.inventory import read_vm, unescaped
from proxy_worker.vsphere.lookup import datastore_types
from proxy_worker.vsphere.model import SnapshotNode, Vm
from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.restored import find, mark_of
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

NAME: Final = "proxyfleet replica"
_NOTE: Final = "proxyfleet.replica"


class ForeignReplicaError(ConflictError):
    """The VM that would be a replica is another's."""


def find_replica(session: Session, uuid: str, mark: str) -> Vm | None:
    """The VM of this instance uuid, None where there is none; raises `ForeignReplicaError` unless it has `mark`."""
    ref = find(session, uuid)
    if ref is None:
        return None
    vm = read_vm(session, ref)
    carried = mark_of(session, ref)
    if carried != mark:
        raise ForeignReplicaError(
            f"VM {vm.name} of vCenter {session.endpoint.name}",
            why=f"it has a replica's instance uuid and carries the mark {carried}, not {mark}",
            remedy="Another installation replicates to it, or it was forgotten here: choose another suffix.",
        )
    return vm


def note_of(session: Session, vm: str, about: str | None = None) -> str | None:
    """What is noted in a VM: of itself, or about one of its disks."""
    found = session.call(
        f"reading what is noted in {vm}",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], ["config.extraConfig"]),
        repeatable=True,
    )
    key = _note_key(about)
    noted = [entry.value for entry in found[0]["config.extraConfig"] or () if entry.key == key]
    return str(noted[-1]) if noted and noted[-1] else None


def note(session: Session, vm: str, text: str, waiting: Waiting | None = None, *, about: str | None = None) -> None:
    """Note something else in a VM. A snapshot keeps what is noted, and whoever reverts to it gets that back."""
    spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key=_note_key(about), value=text)])
    machine = vim.VirtualMachine(vm, session.stub)
    finish(session, f"noting what {vm} is", lambda: machine.ReconfigVM_Task(spec), waiting)


def points_of(vm: Vm, mark: str) -> dict[str, SnapshotNode]:
    """Its restore points by the runs that made them, oldest first."""
    ours = [node for node in vm.snapshots if _is_ours(node, mark)]
    return {node.name[len(NAME) + 1 :]: node for node in sorted(ours, key=lambda node: node.created_at)}


def foreign_snapshot(vm: Vm, mark: str) -> SnapshotNode | None:
    """One that isn't a restore point of the replica."""
    return next((node for node in vm.snapshots if not _is_ours(node, mark)), None)


def keep(session: Session, vm: Vm, run: str, mark: str, waiting: Waiting | None = None) -> None:
    """Make a restore point of a VM that is off."""
    machine = vim.VirtualMachine(vm.ref, session.stub)
    text = f"[{mark}] A restore point of this VM; replication removes it."
    what = f"making restore point {run} of {vm.name}"
    finish(session, what, lambda: machine.CreateSnapshot_Task(f"{NAME} {run}", text, False, False), waiting)


def go_back(session: Session, vm: Vm, point: SnapshotNode, waiting: Waiting | None = None) -> None:
    """Make a VM what it was at a restore point, and off."""
    snapshot = vim.vm.Snapshot(point.ref, session.stub)
    what = f"reverting {vm.name} to {point.name}"
    finish(session, what, lambda: snapshot.RevertToSnapshot_Task(None, True), waiting)


def drop(session: Session, vm: Vm, point: SnapshotNode, waiting: Waiting | None = None) -> None:
    """Remove a restore point, and none that follow it."""
    snapshot = vim.vm.Snapshot(point.ref, session.stub)
    what = f"removing {point.name} of {vm.name}"
    finish(session, what, lambda: snapshot.RemoveSnapshot_Task(False, True), waiting)


def free_bytes(session: Session, vm: Vm, datastore: str) -> int:
    """What a VM's datastore has left."""
    targets: list[Any] = [vim.Datastore(ref, session.stub) for ref in vm.datastores]
    found = session.call(
        f"reading datastore {datastore} of vCenter {session.endpoint.name}",
        lambda: read(session, targets, ("name", "summary.freeSpace")),
        repeatable=True,
    )
    return next((int(one["summary.freeSpace"] or 0) for one in found if one["name"] == datastore), 0)


def datacenter_path(session: Session, vm: str) -> str:
    """The path of a VM's datacentre, e.g. `Europe/DC0`."""

    def ask() -> str:
        names: list[str] = []
        place = vim.VirtualMachine(vm, session.stub)
        while place is not None:
            seen = read(session, [place], ["name", "parent"])[0]
            if names or isinstance(place, vim.Datacenter):
                names.append(unescaped(seen["name"]))
            place = seen["parent"]
        return "/".join(reversed(names[:-1]))  # without the root folder

    return session.call(f"looking for the datacentre of {vm}", ask, repeatable=True)


def datastore_type(session: Session, vm: Vm, datastore: str) -> str:
    """E.g. `VMFS`."""
    return datastore_types(session, vm.datastores).get(datastore, "unknown")


def _is_ours(node: SnapshotNode, mark: str) -> bool:
    return node.name.startswith(f"{NAME} ") and node.description.startswith(f"[{mark}] ")


def _note_key(about: str | None) -> str:
    return _NOTE if about is None else f"{_NOTE}.{about}"
