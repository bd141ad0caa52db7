"""The work of `proxy-worker boot-point`: the repository opened, the outcome told."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from proxy_worker.boot.proof import BootFailedError
from proxy_worker.cli.opening import Opening, find_point
from proxy_worker.node.booting import Booted, Wishes, boot_from
from proxy_worker.repository.points import Point


def boot(
    opening: Opening, *, vm: str, point: str | None, wishes: Wishes, console: Path | None, as_json: bool
) -> None:
    """Start a VM, and say how that ended. Raises `BootFailedError`, or why its disks couldn't be read."""
    with opening.repository() as repository:
        chosen = find_point(repository, vm, point)
        console = console or Path(f"boot-{chosen.run}.log")
        booted = boot_from(repository, chosen, wishes, console)
    unread, outcome = booted.unread, booted.outcome
    if as_json:
        told = _as_json(chosen, booted, console)
        typer.echo(json.dumps({**told, "unread": str(unread) if unread is not None else None}, indent=2))
    if unread is not None:
        raise unread
    if outcome.prompt is None:
        raise _failed(chosen, booted, console)
    if not as_json:
        typer.echo(
            f"{chosen.vm_name}, restore point {chosen.run}: '{outcome.prompt}' after {outcome.seconds:.1f} s"
        )
        typer.echo(f"  {booted.described}, console in {console}")


def _failed(point: Point, booted: Booted, console: Path) -> BootFailedError:
    outcome = booted.outcome
    screen = f", its screen in {outcome.screen}" if outcome.screen is not None else ""
    no_kvm = " If it hung, try --no-kvm." if outcome.kvm else ""
    return BootFailedError(
        f"{point.vm_name}, restore point {point.run}, showed no login prompt ({booted.described})",
        why=outcome.why,
        remedy=f"What it said is in {console}{screen}.{no_kvm}",
    )


def _as_json(point: Point, booted: Booted, console: Path) -> dict[str, object]:
    outcome, machine = booted.outcome, booted.machine
    return {
        "point": point.run,
        "vm": point.vm_name,
        "booted": outcome.prompt is not None,
        "prompt": outcome.prompt,
        "why": outcome.why or None,
        "duration_seconds": round(outcome.seconds, 3),
        "firmware": machine.firmware,
        "kvm": outcome.kvm,
        "cpus": machine.cpus,
        "memory_mib": machine.memory_mib,
        "disks": [{"disk": disk.key, "bus": disk.bus} for disk in machine.disks],
        "console": str(console),
        "screen": str(outcome.screen) if outcome.screen is not None else None,
    }
