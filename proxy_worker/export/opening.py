"""The disks of a restore point, opened to be exported."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from proxy_worker.export.disk import Disk, ExportedDisk
from proxy_worker.export.overlay import Overlay
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository


def exported(
    stack: ExitStack, repository: Repository, point: Point, keys: Sequence[str], overlay: Path | None
) -> dict[str, Disk]:
    """Disks of a point by key, open until `stack` closes; with a folder for an `overlay`, they can be written.

    Raises as `Repository.reader` does.
    """
    reader = stack.enter_context(repository.reader(point))
    exports: dict[str, Disk] = {}
    for key in keys:
        point.disk(key)
        disk = ExportedDisk(reader, key)
        exports[key] = stack.enter_context(Overlay(disk, overlay)) if overlay is not None else disk
    return exports
