"""Every kind of step that the service journals, and what its outcome means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scheduler.replication.opening import OPENING
from scheduler.restores import outcomes as restores
from scheduler.runs.freezing import FREEZING
from scheduler.runs.removing import REMOVING
from scheduler.runs.scanned import SCANNING
from scheduler.runs.steps import StepHandling
from scheduler.vcenters.describing import DESCRIBE
from scheduler.vcenters.freezing import SNAPSHOT
from scheduler.vcenters.removal import REMOVE
from scheduler.vcenters.scanning import SCAN
from scheduler.vcenters.steps import StepKind

KINDS: Final[tuple[StepKind[Any, Any], ...]] = (SCAN, SNAPSHOT, REMOVE, DESCRIBE, *restores.KINDS)
"""What the executor performs."""
HANDLING: Final[Mapping[str, StepHandling]] = {
    SCAN.name: SCANNING,
    SNAPSHOT.name: FREEZING,
    REMOVE.name: REMOVING,
    DESCRIBE.name: OPENING,
    **restores.HANDLING,
}
"""What the journal makes of it."""
