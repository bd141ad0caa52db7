"""The demo's last page: what each run moved, which proxy took which disk, and how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ops.demo.layout import Layout
from ops.demo.terminal import console, heading, say

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class RunFigures:
    """A finished run as `scheduler run show --json` tells it, and what it added to the repository's folder."""

    title: str
    run: dict[str, Any]
    stored_bytes: int


def folder_size_bytes(folder: Path) -> int:
    """Space that the files of a folder take on disk."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def show_runs(runs: Sequence[RunFigures]) -> None:
    """Each run in one row: from what was protected to what had to be stored."""
    table = Table(title="Runs", title_justify="left", box=None, pad_edge=False)
    table.add_column("run")
    for name in ("processed", "read", "transferred", "stored", "reduction", "seconds", "rate"):
        table.add_column(name, justify="right")
    table.add_column("bottleneck")
    for figures in runs:
        run = figures.run
        sizes = (run["processed_bytes"], run["read_bytes"], run["transferred_bytes"], figures.stored_bytes)
        table.add_row(
            figures.title,
            *(_size(size) for size in sizes),
            f"{run['processed_bytes'] / max(1, figures.stored_bytes):.1f}x",
            f"{run['duration_seconds']:.1f}",
            f"{_size(run['rate'] or 0)}/s",
            run["bottleneck"] or "-",
        )
    console.print(table)


def show_disks(runs: Sequence[RunFigures]) -> None:
    """Which proxy took which disk."""
    table = Table(title="Disks", title_justify="left", box=None, pad_edge=False)
    for name in ("run", "VM", "disk", "proxy", "mode"):
        table.add_column(name)
    for name in ("size", "read", "stored"):
        table.add_column(name, justify="right")
    for figures in runs:
        for disk in figures.run["disks"]:
            sizes = (_size(disk[name] or 0) for name in ("size_bytes", "read_bytes", "stored_bytes"))
            table.add_row(figures.title, disk["vm"], disk["disk"], disk["proxy"], disk["mode"], *sizes)
    console.print(table)


def show_next_steps(layout: Layout, *, kept: bool) -> None:
    """The commands to go on with."""
    state = _relative(layout.state)
    offline = [
        f"proxy-worker repository list {state}/repository --passphrase-file {_relative(layout.passphrase)}",
        f"proxy-worker repository check {state}/repository --passphrase-file {_relative(layout.passphrase)}",
        f"proxy-worker restore --repository {state}/repository --passphrase-file {_relative(layout.passphrase)}"
        " --vm web01 --disk scsi0:0 --to /tmp/web01.img",
    ]
    online = [
        "scheduler status",
        "scheduler job start nightly --wait",
        "scheduler run list",
        "scheduler point list",
        "scheduler proxy drain primary-1",
        "scheduler replica failover db01 --wait",
        f"scheduler restore disk --vm web01 --disk scsi0:0 --to {layout.restored}/again.img --wait",
    ]
    flower = f"Flower: http://127.0.0.1:{layout.flower_port}, user and password in {_relative(layout.flower_user)}"
    heading("To go on")
    say(f'export PATH="$PWD/.venv/bin:$PATH" SCHEDULER_CONFIG={state}/scheduler.toml')
    for command in offline:
        say(command)
    say("\nWhile the fleet runs:" if kept else "\nAnd with `make demo KEEP=1`, which leaves the fleet running:")
    for line in (*online, flower):
        say(line)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.1f} MiB"


def _relative(path: Path) -> str:
    return str(path).removeprefix(f"{Path.cwd()}/")
