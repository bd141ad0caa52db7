"""What commands on repositories have found damaged, in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy_worker.repository.findings import Finding


def damage_json(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Each finding, with the disks of restore points that need it, where that is known."""
    return [
        {
            "object": finding.name,
            "kind": finding.kind,
            "problem": finding.problem,
            "needed_by": [
                {"vm": use.vm, "point": use.run, "disk": use.disk_key} for use in finding.needed_by or ()
            ],
        }
        for finding in findings
    ]
