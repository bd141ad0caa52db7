"""A memory limit that the kernel enforces by killing: a cgroup of version 2, or else of version 1. Needs root."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.simulators.loop_devices import run

UNIFIED = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(folder: Path, limit_bytes: int) -> Iterator[Path]:
    """A group whose processes may together take so much more than they had; the file that takes their ids."""
    controllers = UNIFIED / "cgroup.controllers"
    if controllers.exists() and "memory" in controllers.read_text().split():
        (UNIFIED / "cgroup.subtree_control").write_text("+memory")
        with _group(UNIFIED, folder.name, "memory.max", limit_bytes) as members:
            yield members
        return
    hierarchy = folder / "memory"
    hierarchy.mkdir()
    run("mount", "-t", "cgroup", "-o", "memory", "none", hierarchy)
    try:
        with _group(hierarchy, folder.name, "memory.limit_in_bytes", limit_bytes) as members:
            yield members
    finally:
        run("umount", "--lazy", hierarchy)
        hierarchy.rmdir()


@contextlib.contextmanager
def _group(hierarchy: Path, name: str, limit: str, limit_bytes: int) -> Iterator[Path]:
    group = hierarchy / name
    group.mkdir()
    members = group / "cgroup.procs"
    try:
        (group / limit).write_text(str(limit_bytes))
        yield members
    finally:
        for process in members.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (hierarchy / "cgroup.procs").write_text(process)
        group.rmdir()
