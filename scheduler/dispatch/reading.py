"""How far proxies have come with the frozen disks of vCenters: what is frozen next depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from proxy_worker.contract.names import TaskKind
from scheduler.dispatch.candidates import candidates
from scheduler.dispatch.fleet import Fleet, Placement
from scheduler.dispatch.pending import OpenTask
from scheduler.vcenters.choice import Reading


def reading_of(tasks: Iterable[OpenTask], fleet: Fleet) -> Reading:
    """The disks among open tasks that a VM's snapshot holds still, and the slots of the proxies that run.

    Disks that no proxy can read are left out: what is wrong with them must not keep other VMs from being frozen.
    """
    readable: dict[Placement, bool] = {}
    disks = 0
    for task in tasks:
        placement = task.placement
        if task.new.kind is TaskKind.DISK_BACKUP and placement.vsphere is not None and not placement.vsphere.kept:
            if placement not in readable:
                readable[placement] = not isinstance(candidates(placement, fleet), str)
            disks += readable[placement]
    slots = sum(proxy.slots for proxy in fleet.proxies if proxy.live and proxy.enabled)
    return Reading(disks, slots)
