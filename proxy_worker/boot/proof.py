"""The proof itself: QEMU started, its console watched and kept, everything ended."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Self

from proxy_worker.boot.console import ConsoleWatch, Said
from proxy_worker.boot.firmware import find_uefi
from proxy_worker.boot.machine import Firmware, Machine, Uefi, arguments
from proxy_worker.boot.monitor import take_picture
from proxy_worker.contract.errors import ConfigurationError, ProxyfleetError, TargetError
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.transport.command import require_tool

QEMU: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"
_KVM: Final = Path("/dev/kvm")
_MOST_KEPT_BYTES: Final = 16 << 20
"""Of a console: enough for any start, and not for a guest that never stops talking."""
_LOOK_UP_S: Final = 1.0
"""How often it is asked whether to go on."""
_LAST_WORDS_S: Final = 1.0
"""How long a guest that won't start may say why."""


class MachineRefusedError(ConfigurationError):
    """QEMU doesn't start a VM as it was asked to."""


class ConsoleFileError(TargetError):
    """What a guest says can't be kept."""


class BootFailedError(ProxyfleetError):
    """A VM of a restore point was started and showed no login prompt."""


@dataclass(frozen=True, slots=True)
class BootOutcome:
    """How a VM's start ended."""

    prompt: str | None
    """What it asked a person to log in with; None when it didn't."""
    why: str
    """Why there was no prompt; empty when there was."""
    seconds: float
    kvm: bool
    screen: Path | None
    """A picture of its screen, of one that didn't start."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for, how long, and where all that is said meanwhile is kept."""

    prompt: re.Pattern[str]
    limit_s: float
    console: Path
    go_on: Callable[[], None] = lambda: None
    """Called about once a second; ends it by raising."""


def prove_boot(machine: Machine, nbd: Path, wait: Wait, *, use_kvm: bool) -> BootOutcome:
    """Start a VM whose disks are served at the socket `nbd`, wait for its prompt, and end it.

    KVM is used where it works. Raises `FirmwareMissingError`, `ToolMissingError`, `MachineRefusedError`,
    `ConsoleFileError`.
    """
    qemu = require_tool(QEMU, PACKAGE, why="starting a VM needs it")
    setpriv = require_tool("setpriv", "util-linux", why="starting a VM needs it")
    with ScratchFolder("boot") as folder, _ConsoleLog(wait.console) as log:
        uefi = _uefi(folder) if machine.firmware is Firmware.UEFI else None
        monitor = folder / "monitor.sock"

        def boot(*, kvm: bool) -> BootOutcome:
            words = arguments(machine, nbd=nbd, monitor=monitor, kvm=kvm, uefi=uefi)
            with _Running([setpriv, "--pdeathsig", "KILL", "--", qemu, *words], folder / "errors") as running:
                return _outcome(running, log, wait, monitor, kvm=kvm)

        if use_kvm and _opens(_KVM):
            with contextlib.suppress(MachineRefusedError):
                return boot(kvm=True)
            # /dev/kvm opens, but doesn't do, as on some machines that are VMs themselves.
        return boot(kvm=False)


def _outcome(running: _Running, log: _ConsoleLog, wait: Wait, monitor: Path, *, kvm: bool) -> BootOutcome:
    begun = time.monotonic()
    watch = ConsoleWatch(wait.prompt)
    said = _watched(running, watch, log, wait)
    seconds = time.monotonic() - begun
    if said is not None and said.is_prompt:
        return BootOutcome(said.text, "", seconds, kvm, None)
    if running.ended_by_itself and not log.written_bytes:
        raise MachineRefusedError("QEMU doesn't start the VM", why=running.last_words())
    screen = wait.console.with_name(f"{wait.console.name}.png")
    has_screen = not running.ended_by_itself and take_picture(monitor, screen.absolute())
    why = _why(said, running, watch, wait.limit_s)
    return BootOutcome(None, why, seconds, kvm, screen if has_screen else None)


def _uefi(folder: Path) -> Uefi:
    code, variables = find_uefi()
    start = folder / "start"
    start.mkdir()
    script = files(__package__).joinpath("startup.nsh").read_text()
    (start / "startup.nsh").write_text(script, newline="\r\n")
    return Uefi(code, Path(shutil.copyfile(variables, folder / "variables.fd")), start)


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class _ConsoleLog:
    """What a guest says, in a file that grows while it speaks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.written_bytes = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, data: bytes) -> None:
        try:
            self.written_bytes += self._file.write(data[: max(0, _MOST_KEPT_BYTES - self.written_bytes)])
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _failed(self, error: OSError) -> ConsoleFileError:
        why = error.strerror or str(error)
        return ConsoleFileError(f"console log {self._path}", why=why, remedy="Choose another --console.")


class _Running:
    """QEMU, until the block ends."""

    def __init__(self, command: list[str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us: the end comes from here
            )
        self.ended_by_itself = False

    def read(self, within_s: float) -> bytes | None:
        """What was said next; None when nothing was, empty when QEMU has ended."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(max(0.0, within_s) * 1000):
            return None
        data = os.read(self._process.stdout.fileno(), 65536)
        self.ended_by_itself = self.ended_by_itself or not data
        return data

    def last_words(self) -> str:
        """What QEMU itself said, once it has ended."""
        status = self._process.wait()
        lines = self._errors.read_text("utf-8", "replace").splitlines()
        return "; ".join(line.removeprefix(f"{QEMU}: ") for line in lines) or f"it ended with exit status {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _watched(running: _Running, watch: ConsoleWatch, log: _ConsoleLog, wait: Wait) -> Said | None:
    """Read until something ends it: a prompt, what comes instead, QEMU's end, the limit, or `go_on`."""
    said: Said | None = None
    deadline = time.monotonic() + wait.limit_s
    while (left := deadline - time.monotonic()) > 0:
        data = running.read(min(left, _LOOK_UP_S))
        wait.go_on()
        if data is None:
            continue
        if not data:
            break
        log.write(data)
        found = watch.feed(data)
        if found is not None and found.is_prompt:
            return found
        if found is not None and said is None:
            deadline = min(deadline, time.monotonic() + _LAST_WORDS_S)
        said = found or said  # what is found again may have become longer
    return said


def _why(said: Said | None, running: _Running, watch: ConsoleWatch, limit_s: float) -> str:
    if said is not None:
        return f"it said '{said.text}'"
    last = watch.last_line()
    after = f"; the last it said was '{last}'" if last else "; it said nothing"
    if running.ended_by_itself:
        return f"it switched itself off{after}"
    return f"no prompt within {limit_s:.0f} s{after}"
