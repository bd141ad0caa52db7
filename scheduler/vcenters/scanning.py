"""The step `scan`: read what a vCenter shows, with its tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy_worker.contract.specification import Frozen
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.model import Inventory
from proxy_worker.vsphere.tags import Tag, read_tags
from scheduler.vcenters.steps import Access, StepKind


class ScanRequest(Frozen):
    """All of a vCenter that the account sees."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a vCenter looked like."""

    inventory: Inventory
    tags: Mapping[str, tuple[Tag, ...]]
    """By managed object id."""


def scan(access: Access, request: ScanRequest) -> Scanned:  # noqa: ARG001 - every kind of step has a request
    """Read inventory and tags; raises the named errors of both."""
    return Scanned(read_inventory(access.session), read_tags(access.endpoint, access.password))


SCAN: Final = StepKind("scan", ScanRequest, scan)
