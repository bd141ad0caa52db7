"""How far proxies have come with the frozen disks of vCenters: what is frozen next depends on it."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.dispatch.candidates import READS_DISKS, candidates
from scheduler.dispatch.fleet import Fleet, Placement
from scheduler.vcenters.choice import Reading


def reading_of(placements: Mapping[Placement, int], fleet: Fleet) -> Reading:
    """The disks among open tasks that a VM's snapshot holds still, and the slots of the proxies that run.

    `placements` says how many open tasks there are of each. Disks that no proxy can read are left out: what is
    wrong with them must not keep other VMs from being frozen.
    """
    disks = sum(
        count
        for placement, count in placements.items()
        if placement.kind in READS_DISKS
        and placement.vsphere is not None
        and not placement.vsphere.kept
        and not isinstance(candidates(placement, fleet), str)
    )
    slots = sum(proxy.slots for proxy in fleet.proxies if proxy.live and proxy.enabled)
    return Reading(disks, slots)
