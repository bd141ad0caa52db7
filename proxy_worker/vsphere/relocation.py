"""Moving a VM's disks from one datastore to others while it runs, as Storage vMotion does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pyVmomi import vim

from proxy_worker.contract.names import DiskFormat
from proxy_worker.vsphere.faults import VsphereError
from proxy_worker.vsphere.identity import split_path
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.placing import NoSuchPlaceError
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import Waiting, finish

_LONGEST_S: Final = 24 * 3600.0
"""A move of terabytes takes its time."""


def move_disks(
    session: Session,
    vm: Vm,
    *,
    away_from: str,
    to: Mapping[str, str],
    how: DiskFormat,
    waiting: Waiting | None = None,
) -> None:
    """Have all disks on the datastore `away_from` moved to those that `to` names by place.

    Raises `NoSuchPlaceError`, `VmBusyError` while another move goes on, and what `faults` names.
    """
    moving = [disk for disk in vm.disks if split_path(disk.path or "")[0] == away_from]
    if not moving:
        return
    stores = {store.name: store.ref for store in read_inventory(session).datastores.values()}
    locators = []
    for disk in moving:
        name = to.get(disk.place, "")
        if name not in stores:
            raise NoSuchPlaceError(f"datastore {name!r}", why="vCenter has no datastore of that name any more")
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName="",
            diskMode="persistent",
            thinProvisioned=how is DiskFormat.THIN,
            eagerlyScrub=how is DiskFormat.EAGER,
        )
        locators.append(
            vim.vm.RelocateSpec.DiskLocator(
                diskId=disk.key,
                datastore=vim.Datastore(stores[name], session.stub),
                diskBackingInfo=backing,
            )
        )
    machine = vim.VirtualMachine(vm.ref, session.stub)
    what = f"moving the disks of {vm.name} to production"
    waiting = replace(waiting or Waiting(), timeout_s=_LONGEST_S)
    finish(session, what, lambda: machine.RelocateVM_Task(vim.vm.RelocateSpec(disk=locators)), waiting)
    left = [disk.place for disk in read_vm(session, vm.ref).disks if split_path(disk.path or "")[0] == away_from]
    if left:
        raise VsphereError(what, why=f"vCenter says it is done, but {', '.join(left)} is still on {away_from}")
