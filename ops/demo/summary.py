"""The demo's last page: what each run moved, which proxy took which disk, and how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ops.demo.layout import Layout
from ops.demo.terminal import console

MIB = 1 << 20


@dataclass(frozen=True)
class RunFigures:
    """A finished run as `scheduler run show --json` tells it, and what it added to the repository's folder."""

    title: str
    run: dict[str, Any]
    stored_bytes: int

    def total(self, figure: str) -> int:
        """The sum of one figure over the run's disks."""
        return sum(disk[figure] or 0 for disk in self.run["disks"])


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
        processed, seconds = figures.total("size_bytes"), _wall_seconds(figures.run)
        table.add_row(
            figures.title,
            _mib(processed),
            _mib(figures.total("read_bytes")),
            _mib(figures.total("stored_bytes")),
            _mib(figures.stored_bytes),
            f"{processed / max(1, figures.stored_bytes):.1f}x",
            f"{seconds:.1f}",
            f"{_mib(processed / seconds)}/s",
            _usual_bottleneck(figures.run["disks"]),
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
            sizes = (_mib(disk[name] or 0) for name in ("size_bytes", "read_bytes", "stored_bytes"))
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
        "scheduler proxy disable primary-1",
        f"scheduler restore disk --vm web01 --disk scsi0:0 --to {layout.restored}/again.img --wait",
    ]
    console.print("\n[bold cyan]== To go on[/]")
    console.print(f'export PATH="$PWD/.venv/bin:$PATH" SCHEDULER_CONFIG={state}/scheduler.toml', soft_wrap=True)
    for command in [*online, *offline] if kept else offline:
        console.print(command, soft_wrap=True)
    if kept:
        user = _relative(layout.flower_user)
        console.print(f"Flower: http://127.0.0.1:{layout.flower_port}  (user and password: {user})", soft_wrap=True)
    else:
        console.print(
            "`make demo KEEP=1` leaves the fleet running, for `scheduler status` and Flower.", soft_wrap=True
        )


def _wall_seconds(run: dict[str, Any]) -> float:
    return max(0.1, float(run["ended_at"] - run["started_at"]))


def _usual_bottleneck(disks: Sequence[dict[str, Any]]) -> str:
    found = [disk["bottleneck"] for disk in disks if disk["bottleneck"]]
    return max(set(found), key=found.count) if found else "-"


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:,.1f} MiB"


def _relative(path: Path) -> str:
    return str(path).removeprefix(f"{Path.cwd()}/")
