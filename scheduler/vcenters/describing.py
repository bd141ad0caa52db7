"""The step `describe`: what a VM is made of, for a replica of it that is to be made."""

from __future__ import annotations

from typing import Final

import msgspec

from proxy_worker.contract.subjects import Frozen
from proxy_worker.vsphere.hardware_reading import read_hardware
from proxy_worker.vsphere.lookup import find_vm
from scheduler.vcenters.steps import Access, StepKind


class DescribeRequest(Frozen):
    """Which VM."""

    vm_ref: str
    vm_id: str
    vm_name: str


class Described(Frozen):
    """What it is made of."""

    machine: str
    """As `InventoryVm.machine` has it."""


def describe(access: Access, request: DescribeRequest) -> Described:
    """Read it; raises the named errors of vCenters, and of VMs that are gone."""
    vm = find_vm(access.session, request.vm_ref, request.vm_id, request.vm_name)
    return Described(machine=msgspec.json.encode(read_hardware(access.session, vm.ref)).decode())


DESCRIBE: Final = StepKind("describe", DescribeRequest, describe)
