"""Powering VMs on and off."""

from __future__ import annotations

from pyVmomi import vim

from proxy_worker.vsphere.properties import read
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish


def is_on(session: Session, vm: str) -> bool:
    """Whether a VM runs, or is suspended: it isn't off."""
    found = session.call(
        f"reading the power state of {vm}",
        lambda: read(session, [vim.VirtualMachine(vm, session.stub)], ["runtime.powerState"]),
        repeatable=True,
    )
    return bool(found[0]["runtime.powerState"] != vim.VirtualMachine.PowerState.poweredOff)


def switch_on(session: Session, vm: str, name: str, waiting: Waiting | None = None) -> bool:
    """Power a VM on; False if it was on already."""
    if is_on(session, vm):
        return False
    machine = vim.VirtualMachine(vm, session.stub)
    finish(session, f"powering on {name}", lambda: machine.PowerOnVM_Task(None), waiting)
    return True


def switch_off(session: Session, vm: str, name: str, waiting: Waiting | None = None) -> bool:
    """Power a VM off at once, as by its switch; False if it was off already."""
    if not is_on(session, vm):
        return False
    machine = vim.VirtualMachine(vm, session.stub)
    finish(session, f"powering off {name}", machine.PowerOffVM_Task, waiting)
    return True
