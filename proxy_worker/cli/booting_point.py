"""The work of `proxy-worker boot-point`: repository, NBD server and QEMU put together."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from proxy_worker.boot.machine import DiskBus, Firmware, Machine, machine_for
from proxy_worker.boot.proof import BootFailedError, BootOutcome, Wait, prove_boot
from proxy_worker.cli.opening import Opening, OptionError, find_point
from proxy_worker.cli.serving_point import exported
from proxy_worker.export.noted import NotedDisk
from proxy_worker.export.overlay import Overlay
from proxy_worker.export.server import Server, listen_on_socket
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.transport.vmx import parse_vmx
from proxy_worker.transport.vmx_hardware import parse_hardware


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask for."""

    prompt: str
    limit_s: float
    memory_mib: int | None
    firmware: Firmware | None
    bus: DiskBus | None
    console: Path | None
    overlay: Path | None
    use_kvm: bool


def boot(opening: Opening, *, vm: str, point: str | None, wishes: Wishes, as_json: bool) -> None:
    """Start a VM, and say how that ended. Raises `BootFailedError`, or why its disks couldn't be read."""
    prompt = _compiled(wishes.prompt)
    with ExitStack() as stack:
        repository = stack.enter_context(opening.repository())
        chosen = find_point(repository, vm, point)
        machine = _machine(repository, chosen, wishes)
        console = wishes.console or Path(f"boot-{chosen.run}.log")
        folder = stack.enter_context(ScratchFolder("boot"))
        read_only = exported(stack, repository, chosen, [disk.key for disk in machine.disks], None)
        disks = {key: NotedDisk(disk) for key, disk in read_only.items()}
        overlay = wishes.overlay or folder
        exports = {key: stack.enter_context(Overlay(disk, overlay)) for key, disk in disks.items()}
        stack.enter_context(Server(exports, listen_on_socket(folder / "nbd.sock")))
        wait = Wait(prompt, wishes.limit_s, console)
        outcome = prove_boot(machine, folder / "nbd.sock", wait, use_kvm=wishes.use_kvm)
    unread = next((disk.error for disk in disks.values() if disk.error is not None), None)
    if as_json:
        told = _as_json(chosen, machine, outcome, console)
        typer.echo(json.dumps({**told, "unread": str(unread) if unread is not None else None}, indent=2))
    if unread is not None:
        raise unread
    if outcome.prompt is None:
        raise _failed(chosen, machine, outcome, console)
    if not as_json:
        _show(chosen, machine, outcome, console)


def _compiled(prompt: str) -> re.Pattern[str]:
    try:
        return re.compile(prompt, re.MULTILINE)
    except re.error as error:
        raise OptionError(
            f"--prompt {prompt}",
            why=f"it is no regular expression: {error}",
            remedy="Escape what is meant as it is.",
        ) from None


def _machine(repository: Repository, point: Point, wishes: Wishes) -> Machine:
    """The VM as its VMX has it, where the point has one."""
    keys = [disk.key for disk in point.disks]
    hardware = None
    vmx = next((file for file in point.configuration if file.name.lower().endswith(".vmx")), None)
    if vmx is not None and repository.can_read:
        with repository.reader(point) as reader:
            content = reader.read_file(vmx)
        where = f"the VMX in restore point {point.run}"
        hardware = parse_hardware(content, where)
        places = [disk.key for disk in parse_vmx(content, where).disks]
        keys.sort(key=lambda key: places.index(key) if key in places else len(places))
    return machine_for(
        hardware,
        keys,
        most_cpus=len(os.sched_getaffinity(0)),
        firmware=wishes.firmware,
        memory_mib=wishes.memory_mib,
        bus=wishes.bus,
    )


def _failed(point: Point, machine: Machine, outcome: BootOutcome, console: Path) -> BootFailedError:
    screen = f", its screen in {outcome.screen}" if outcome.screen is not None else ""
    no_kvm = " If it hung, try --no-kvm." if outcome.kvm else ""
    return BootFailedError(
        f"{point.vm_name}, restore point {point.run}, showed no login prompt ({_described(machine, outcome)})",
        why=outcome.why,
        remedy=f"What it said is in {console}{screen}.{no_kvm}",
    )


def _show(point: Point, machine: Machine, outcome: BootOutcome, console: Path) -> None:
    typer.echo(f"{point.vm_name}, restore point {point.run}: '{outcome.prompt}' after {outcome.seconds:.1f} s")
    typer.echo(f"  {_described(machine, outcome)}, console in {console}")


def _described(machine: Machine, outcome: BootOutcome) -> str:
    processors = "1 CPU" if machine.cpus == 1 else f"{machine.cpus} CPUs"
    disks = ", ".join(f"{disk.key} by {disk.bus}" for disk in machine.disks)
    how = "KVM" if outcome.kvm else "emulated"
    return f"{machine.firmware}, {processors} ({how}), {machine.memory_mib} MiB, {disks}"


def _as_json(point: Point, machine: Machine, outcome: BootOutcome, console: Path) -> dict[str, object]:
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
