"""Processes that don't outlive the demo.

Every process that the demo starts, and whatever those start, carries the demo's mark in its environment. So
all of them are found again: by the demo when it ends or is interrupted, by the guard when the demo itself is
killed, by `--stop` when a kept fleet is to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops.demo.errors import DemoError

MARK = "PROXYFLEET_DEMO"
"""Environment variable that holds the state folder of the demo a process belongs to."""

KEEP = b"keep\n"
"""What the guard is told when the fleet shall outlive the demo."""

_KILL_ROUNDS = 10
"""A process may start another between our look and its end; nothing does so ten times."""


@dataclass(frozen=True)
class Service:
    """A running process of the fleet."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Supervisor:
    """Starts the fleet's processes, watches them, and ends them: all at once but the first, which others need."""

    def __init__(self, state: Path, *, term_timeout_s: float = 20.0) -> None:
        self._state = state
        self._term_timeout_s = term_timeout_s
        self._services: list[Service] = []
        self._logs = state / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "ops.demo.guard", str(state)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of everything that belongs to this demo."""
        return os.environ | {MARK: str(self._state), "PYTHONUNBUFFERED": "1"} | dict(extra or {})

    def start(self, name: str, command: Sequence[str], *, extra: Mapping[str, str] | None = None) -> Service:
        """Start a service in a session of its own, so that the terminal's Ctrl-C reaches the demo alone."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(extra),
                start_new_session=True,
            )
        service = Service(name, process, log)
        self._services.append(service)
        return service

    def forget(self, service: Service) -> None:
        """Watch a service no longer that was ended on purpose."""
        self._services.remove(service)

    def check(self) -> None:
        """Raise `DemoError` with the end of its log if a service has ended by itself."""
        for service in self._services:
            code = service.process.poll()
            if code is not None:
                tail = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
                raise DemoError(f"{service.name} ended with code {code}; the end of {service.log}:\n{tail}")

    def wait_until(self, what: str, condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        """Wait for `condition`; raises `DemoError` when time is up or a service has ended meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {timeout_s:.0f} s for {what} in vain; the logs are in {self._logs}")
            time.sleep(0.1)

    def keep(self) -> None:
        """Let the fleet outlive this process."""
        self._dismiss_guard()
        self._services.clear()

    def stop(self) -> None:
        """End every service, then whatever else carries the mark. Safe to call twice."""
        first, others = self._services[:1], self._services[1:]
        for together in (others, first):
            _terminate([service.process for service in together], self._term_timeout_s)
        self._services.clear()
        end_marked(self._state)
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        if self._guard.stdin is None or self._guard.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(KEEP)
            self._guard.stdin.close()
        self._guard.wait()


def _terminate(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.send_signal(signal.SIGTERM)  # nothing to one that has ended
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def marked(state: Path) -> list[psutil.Process]:
    """Every process of this user that belongs to the demo in `state`, except this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(state):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def end_marked(state: Path, *, term_timeout_s: float = 0.0) -> int:
    """End every process that belongs to the demo in `state`, and return how many there were.

    They get `term_timeout_s` seconds to end by themselves; then they are killed, again until no new one appears.
    """
    first = marked(state)
    if term_timeout_s:
        for process in first:
            _signal(process, signal.SIGTERM)
        psutil.wait_procs(first, timeout=term_timeout_s)
    for _ in range(_KILL_ROUNDS):
        remaining = marked(state)
        if not remaining:
            break
        for process in remaining:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(remaining, timeout=5)
    return len(first)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
