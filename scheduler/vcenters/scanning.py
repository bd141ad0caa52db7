"""The step `scan`: read what a vCenter shows, with its tags and what is left there of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.subjects import Frozen
from proxy_worker.vsphere.identity import vm_identity
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.model import Inventory
from proxy_worker.vsphere.snapshots import Mark, left_behind
from proxy_worker.vsphere.tags import read_tags
from scheduler.planning.inventory import ScannedVm
from scheduler.vcenters.reading import scanned_vms
from scheduler.vcenters.steps import Access, StepKind


class ScanRequest(Frozen):
    """All of a vCenter that the account sees."""


@dataclass(frozen=True, slots=True)
class OurSnapshot:
    """A snapshot with this installation's mark."""

    journal: str
    """The entry of the journal that it is marked with."""
    vm_ref: str
    vm_id: str
    vm_name: str
    datastores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a vCenter looked like."""

    vms: tuple[ScannedVm, ...]
    ours: tuple[OurSnapshot, ...]
    """Every snapshot of this installation, needed or not."""


def scan(access: Access, request: ScanRequest) -> Scanned:  # noqa: ARG001 - every kind of step has a request
    """Read inventory and tags; raises the named errors of both."""
    inventory = read_inventory(access.session)
    tags = read_tags(access.endpoint, access.password)
    return Scanned(scanned_vms(inventory, tags), _ours(inventory, access.installation))


def _ours(inventory: Inventory, installation: str) -> tuple[OurSnapshot, ...]:
    found = []
    for vm, node in left_behind(inventory, installation):
        mark = Mark.of(node)
        names = tuple(inventory.datastores[ref].name for ref in vm.datastores if ref in inventory.datastores)
        if mark is not None:
            found.append(OurSnapshot(mark.journal, vm.ref, vm_identity(vm).vm_id, vm.name, names))
    return tuple(found)


SCAN: Final = StepKind("scan", ScanRequest, scan)
