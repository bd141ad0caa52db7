"""VMs that a restore makes: marked until they are whole, found again by what vCenter knows them by, or removed.

The mark stands in the VM's extra configuration, with the installation and its restore. Only a VM that carries
exactly this mark is ever adopted or deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pyVmomi import vim

from proxy_worker.contract.errors import ConflictError
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.properties import ObjectProperties, read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

MARK: Final = "proxyfleet.restore"
_PATHS: Final = ("name", "config.extraConfig", "runtime.powerState")


class ForeignVmError(ConflictError):
    """A VM doesn't carry the mark of this restore, and so is neither written nor deleted."""


def find(session: Session, instance_uuid: str) -> str | None:
    """The managed object id of the VM that vCenter knows by this instance uuid."""
    index = session.content.searchIndex
    found = session.call(
        f"looking for VM {instance_uuid} in vCenter {session.endpoint.name}",
        lambda: index.FindByUuid(None, instance_uuid, True, True),
        repeatable=True,
    )
    return None if found is None else str(found._moId)  # pyvmomi offers no other way


def mark_of(session: Session, vm: str) -> str | None:
    """The mark a VM carries, if it does. Raises `VsphereObjectGoneError` where there is no such VM."""
    return _mark(_read(session, vm))


def clear(session: Session, vm: str, mark: str, waiting: Waiting | None = None) -> bool:
    """Take the mark off; False if it was off already. Raises `ForeignVmError` for another's."""
    seen = _read(session, vm)
    carried = _mark(seen)
    if carried is None:
        return False
    _require(seen, mark, "taking the mark off")
    machine = vim.VirtualMachine(vm, session.stub)
    spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key=MARK, value="")])
    finish(session, f"finishing VM {seen['name']}", lambda: machine.ReconfigVM_Task(spec), waiting)
    return True


def destroy(session: Session, instance_uuid: str, mark: str, waiting: Waiting | None = None) -> bool:
    """Delete the VM of this instance uuid, with its disks, if it carries `mark`; False if none does."""
    vm = find(session, instance_uuid)
    if vm is None:
        return False
    try:
        seen = _read(session, vm)
        if _mark(seen) != mark:
            return False
        machine = vim.VirtualMachine(vm, session.stub)
        if seen["runtime.powerState"] == vim.VirtualMachine.PowerState.poweredOn:
            finish(session, f"powering off {seen['name']}", machine.PowerOffVM_Task, waiting)
        finish(session, f"deleting the unfinished VM {seen['name']}", machine.Destroy_Task, waiting)
    except VsphereObjectGoneError:
        return False
    return True


def marked(entries: Sequence[Any]) -> str | None:
    """The mark among a VM's extra configuration; the last word counts, and an empty one takes it off."""
    found = [entry.value for entry in entries if entry.key == MARK]
    return str(found[-1]) if found and found[-1] else None


def _read(session: Session, vm: str) -> ObjectProperties:
    return session.call(
        f"reading VM {vm} of vCenter {session.endpoint.name}",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], _PATHS),
        repeatable=True,
    )[0]


def _mark(seen: ObjectProperties) -> str | None:
    return marked(seen["config.extraConfig"] or ())


def _require(seen: ObjectProperties, mark: str, what: str) -> None:
    if _mark(seen) != mark:
        raise ForeignVmError(
            f"{what} of VM {seen['name']}", why=f"it carries the mark {_mark(seen)}, not {mark} of this restore"
        )
