"""The line of figures that each finished task ends in."""

from __future__ import annotations

import pytest

from proxy_worker.contract.outcome import PointDeleteResult, RepositoryCollectResult, TaskResult
from proxy_worker.node.events import figures

COLLECTED = RepositoryCollectResult(
    dry_run=False, points=3, packs=9, live_bytes=5 << 20, freed_packs=2, freed_bytes=3 << 19, rewritten_packs=0,
    moved_bytes=0, waiting_for=(), kept=(), notes=(), duration_seconds=0.2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (COLLECTED, "1.5 MiB in 2 packs freed"),
        (COLLECTED.model_copy(update={"dry_run": True}), "1.5 MiB in 2 packs to free"),
        (PointDeleteResult(found=True), "restore point removed"),
        (PointDeleteResult(found=False), "there was no such restore point"),
    ],
)
def test_what_was_removed_and_freed_is_told(result: TaskResult, line: str) -> None:
    assert figures(result) == line
