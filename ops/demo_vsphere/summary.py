"""The last page of the demo with a vCenter: what changed blocks saved, and how to go on."""

from __future__ import annotations

from pathlib import Path

from ops.demo.layout import Layout
from ops.demo.summary import MIB, RunFigures
from ops.demo.terminal import heading, say


def show_reading(full: RunFigures, incremental: RunFigures) -> None:
    """How much of the disks each run had to read."""
    for figures in (full, incremental):
        run = figures.run
        share = 100 * run["read_bytes"] / max(1, run["processed_bytes"])
        say(f"{figures.title}: {run['read_bytes'] / MIB:.0f} MiB read, {share:.1f}% of the disks")
    say("What the incremental read is what changed block tracking named, and a sample of what it calls unchanged.")


def show_next_steps(layout: Layout, *, kept: bool) -> None:
    """The commands to go on with."""
    state = str(layout.state).removeprefix(f"{Path.cwd()}/")
    heading("To go on")
    say(f'export PATH="$PWD/.venv/bin:$PATH" SCHEDULER_CONFIG={state}/scheduler.toml')
    say("While the fleet runs:" if kept else "With `make demo-vsphere KEEP=1`, which leaves the fleet running:")
    for command in (
        "scheduler vm list",
        "scheduler job start nightly --wait",
        "scheduler proxy explain --vm db01",
        "scheduler restore vm --vm db01 --name db01-again --power-on --wait",
        f"Flower: http://127.0.0.1:{layout.flower_port}, user and password in {state}/secrets/flower/flower",
    ):
        say(f"  {command}")
    say("\nWith a vCenter of your own: README.md, From the demo to your vCenter. All but the vCenter and VDDK was")
    say("the product itself here; docs/vsphere.md lists what only a real vCenter can show.")
