"""A VM started from a restore point: repository, NBD server and QEMU put together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy_worker.boot.console import DEFAULT_PROMPT, last_lines
from proxy_worker.boot.machine import DiskBus, Firmware, Machine, machine_for
from proxy_worker.boot.proof import BootOutcome, Wait, prove_boot
from proxy_worker.contract.errors import CancelledError, ConfigurationError, ProxyfleetError
from proxy_worker.contract.using import PointBoot, PointBootResult
from proxy_worker.export.noted import NotedDisk
from proxy_worker.export.opening import exported
from proxy_worker.export.overlay import Overlay
from proxy_worker.export.server import Server, listen_on_socket
from proxy_worker.ledger import Claim
from proxy_worker.mover.control import Verdict
from proxy_worker.node.bench import Bench
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from proxy_worker.transport.vmx import parse_vmx
from proxy_worker.transport.vmx_hardware import parse_hardware

_LINES: Final = 12
"""Of a console that are told."""


class PromptError(ConfigurationError):
    """What is to be waited for can't be looked for."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a VM is to be started, beyond what its point says."""

    prompt: str = DEFAULT_PROMPT
    limit_s: float = 300.0
    memory_mib: int | None = None
    firmware: Firmware | None = None
    bus: DiskBus | None = None
    overlay: Path | None = None
    use_kvm: bool = True


@dataclass(frozen=True, slots=True)
class Booted:
    """What was started, and what came of it."""

    machine: Machine
    outcome: BootOutcome
    unread: ProxyfleetError | None
    """Why something that it asked for couldn't be read."""

    @property
    def described(self) -> str:
        """What was started, in a line."""
        machine = self.machine
        processors = "1 CPU" if machine.cpus == 1 else f"{machine.cpus} CPUs"
        disks = ", ".join(f"{disk.key} by {disk.bus}" for disk in machine.disks)
        how = "KVM" if self.outcome.kvm else "emulated"
        return f"{machine.firmware}, {processors} ({how}), {machine.memory_mib} MiB, {disks}"


def boot_from(
    repository: Repository,
    point: Point,
    wishes: Wishes,
    console: Path,
    *,
    go_on: Callable[[], None] = lambda: None,
) -> Booted:
    """Start it, wait, and end it; `go_on` is called about once a second, and ends it by raising.

    Raises `PromptError`, and as `prove_boot` and opening the disks do.
    """
    prompt = _compiled(wishes.prompt)
    with ExitStack() as stack:
        machine = _machine(repository, point, wishes)
        folder = stack.enter_context(ScratchFolder("boot"))
        read_only = exported(stack, repository, point, [disk.key for disk in machine.disks], None)
        disks = {key: NotedDisk(disk) for key, disk in read_only.items()}
        overlay = wishes.overlay or folder
        exports = {key: stack.enter_context(Overlay(disk, overlay)) for key, disk in disks.items()}
        stack.enter_context(Server(exports, listen_on_socket(folder / "nbd.sock")))
        wait = Wait(prompt, wishes.limit_s, console, go_on)
        outcome = prove_boot(machine, folder / "nbd.sock", wait, use_kvm=wishes.use_kvm)
    return Booted(machine, outcome, next((disk.error for disk in disks.values() if disk.error is not None), None))


def boot_point(body: PointBoot, bench: Bench, claim: Claim, keeper: LeaseKeeper) -> PointBootResult:
    """The task `point.boot`; raises what kept its disks from being read."""

    def go_on() -> None:
        if keeper.verdict() is Verdict.STOP:
            raise CancelledError(claim.title, why="it was told to stop")

    repository = bench.repository(body.repository, "read")
    point = repository.point(body.vm.vm_id, body.run)
    wishes = Wishes(prompt=body.wishes.prompt or DEFAULT_PROMPT, limit_s=body.wishes.limit_s)
    with ScratchFolder("console") as folder:
        console = folder / "console"
        booted = boot_from(repository, point, wishes, console, go_on=go_on)
        said = last_lines(console.read_bytes(), _LINES)
    if booted.unread is not None:
        raise booted.unread
    return PointBootResult(
        prompt=booted.outcome.prompt,
        why=booted.outcome.why,
        machine=booted.described,
        last_lines=said,
        duration_seconds=booted.outcome.seconds,
    )


def _compiled(prompt: str) -> re.Pattern[str]:
    try:
        return re.compile(prompt, re.MULTILINE)
    except re.error as error:
        raise PromptError(
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
