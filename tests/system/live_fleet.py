"""A real fleet for tests: Valkey, `scheduler serve`, `proxy-worker run`, each a process that can be killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ops.demo.layout import Layout, ProxyPlace
from ops.demo.processes import Service, Supervisor
from ops.demo.valkey import EmbeddedValkey, free_port
from tests.system.commands import BIN, Done, run_forked, run_installed

SCHEDULER = "scheduler"
PLACE = """
[[site]]
name = "primary"
[[repository]]
name = "main"
location = "${state}/repository"
site = "primary"
credential = "main"
"""
"""What every fleet here has; jobs come on top."""
FOLDER = """
[[datastore]]
name = "ds"
site = "primary"
"""
"""Where VMs are found, for fleets without a vCenter."""


class LiveFleet:
    """Processes in a folder of their own; leaving the `with` block ends all of them, whatever has happened."""

    datastores = FOLDER
    extra: Mapping[str, str] = {}
    """What the environment of its scheduler and proxies has besides."""
    forks_commands = True
    """False where their own command lines matter, or the network that they are in."""

    def __init__(
        self, state: Path, proxies: Sequence[ProxyPlace], jobs: str, *, nbd_mib_s: float | None = None
    ) -> None:
        """`jobs`, in the words of fleet.toml, are applied with `PLACE` once the proxies are there.

        With `nbd_mib_s` the proxies can also read each disk over NBD, no faster than so many MiB a second.
        """
        self.layout = Layout(state, redis_port=free_port(), flower_port=free_port())
        self.proxies = tuple(proxies)
        self._fleet_toml = PLACE + self.datastores + jobs
        self._nbd_mib_s = nbd_mib_s
        self.supervisor = Supervisor(state, term_timeout_s=15)
        self._services: dict[str, Service] = {}
        self.valkey: EmbeddedValkey

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self) -> None:
        layout = self.layout
        self._write_files()
        self._start_redis()
        passphrase = ("--passphrase-file", str(layout.passphrase))
        self.command("proxy-worker", "repository", "init", str(layout.repository), *passphrase)
        self.command(
            *("proxy-worker", "repository", "keys", "export-write", str(layout.repository)),
            *(*passphrase, "--out", str(layout.write_key)),
        )
        self.start(SCHEDULER)
        wait_until(layout.public_key.exists, "the scheduler's signing key")
        for proxy in self.proxies:
            self._configure(proxy)
            self.start(proxy.name)
        self.command("scheduler", "apply", "-f", str(layout.fleet_file))
        wait_until(self.all_up, "all proxies to be up")

    def _end(self) -> None:
        self.supervisor.stop()
        if hasattr(self, "valkey"):
            self.valkey.kill()

    def _start_redis(self) -> None:
        layout = self.layout
        self.valkey = EmbeddedValkey(
            layout.state / "valkey", layout.redis_password.read_text().strip(), port=layout.redis_port
        ).start()

    def _write_files(self) -> None:
        """Write what has to be there before the scheduler starts."""
        self.layout.write_secrets()
        self.layout.write_server_files()
        self.layout.fleet_file.write_text(self._fleet_toml.replace("${state}", str(self.layout.state)))

    def _configure(self, proxy: ProxyPlace) -> None:
        """Write a proxy's configuration."""
        config = self.layout.write_proxy_file(proxy)
        if self._nbd_mib_s is not None:
            config.write_text(config.read_text() + self._nbd_command(proxy))

    def _nbd_command(self, proxy: ProxyPlace) -> str:
        disk = f"{self.layout.datastores / proxy.datastore}/{{path}}"
        rate = f"rate={int((self._nbd_mib_s or 0) * 8 * 1024)}k"
        words = [
            "nbdkit",
            "--foreground",
            "--unix",
            "{socket}",
            "--readonly",
            "--filter=rate",
            "file",
            disk,
            rate,
            "burstiness=0.1",
            f"rate-file={self._nbd_rate_file}",
        ]
        return f"network_command = {json.dumps(words)}\n"

    @property
    def _nbd_rate_file(self) -> Path:
        return self.layout.state / "nbd-rate"

    def hurry_nbd(self) -> None:
        """Let disks be read over NBD as fast as they can be, from now on."""
        fresh = self._nbd_rate_file.with_suffix(".new")
        fresh.write_text("8G\n")
        fresh.replace(self._nbd_rate_file)

    def all_up(self) -> bool:
        """Whether every proxy, the server's own included, is registered and heard of."""
        up = {row["name"] for row in self.read_json("scheduler", "proxy", "list", "--json") if row["state"] == "up"}
        return up >= {"server", *(proxy.name for proxy in self.proxies)}

    def start(self, name: str) -> None:
        """Start the scheduler or a proxy, again after it was killed."""
        self._services[name] = self.supervisor.start(name, self._program(name), extra=self._surroundings(name))

    def _program(self, name: str) -> list[str]:
        """The command line of the scheduler or a proxy."""
        if name == SCHEDULER:
            return [str(BIN / "scheduler"), "serve", "--config", str(self.layout.scheduler_config)]
        return [str(BIN / "proxy-worker"), "run", "--config", str(self.layout.proxy_config(name))]

    def _surroundings(self, _name: str) -> Mapping[str, str]:
        """What the environment of the scheduler or a proxy has besides."""
        return self.extra

    def kill(self, name: str, *, whole_group: bool) -> None:
        """Kill -9 the main process of the scheduler or a proxy, or all of its processes."""
        service = self._services[name]
        if whole_group:
            os.killpg(service.process.pid, signal.SIGKILL)
        else:
            service.process.kill()
        service.process.wait()
        self.supervisor.forget(service)

    def revive(self) -> None:
        """Start again what has ended by itself, as systemd does: e.g. for want of Redis when it started."""
        for name, service in list(self._services.items()):
            if service.process.poll() is not None:
                self.supervisor.forget(service)
                self.start(name)

    def main_process(self, name: str) -> int:
        """The process id of the scheduler's or a proxy's main process."""
        return self._services[name].process.pid

    def environment(self) -> dict[str, str]:
        """Of commands for this fleet."""
        return self.supervisor.environment({"SCHEDULER_CONFIG": str(self.layout.scheduler_config)})

    def command(self, *words: str, timeout_s: float = 120) -> str:
        """Run a command to its end, and return what it printed; fails the test with its words when it fails."""
        done = self.attempt(*words, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(words)}: code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *words: str, timeout_s: float = 120) -> Done:
        """Run a command to its end, whatever that is."""
        run = run_forked if self.forks_commands else run_installed
        return run(words, self.environment(), timeout_s=timeout_s)

    def read_json(self, *words: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.command(*words))

    def newest_run(self) -> dict[str, Any]:
        """The newest run, as `scheduler run show` tells it."""
        (newest,) = self.read_json("scheduler", "run", "list", "--limit", "1", "--json")
        shown: dict[str, Any] = self.read_json("scheduler", "run", "show", newest["run"], "--json")
        return shown

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        logs = sorted((self.layout.state / "logs").glob("*.log"))
        ends = {log.name: log.read_text(errors="replace").splitlines()[-30:] for log in logs}
        return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in ends.items())


@contextmanager
def explained(fleet: LiveFleet) -> Iterator[None]:
    """Add the ends of the fleet's logs to whatever fails inside."""
    try:
        yield
    except BaseException as error:
        error.add_note(fleet.logs())
        raise


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = 120, every_s: float = 0.1) -> None:
    """Wait for `condition`, looking every `every_s` seconds; fails after `timeout_s`.

    What takes long to look at is looked at less often, so that waiting doesn't keep the machine busy.
    """
    deadline = time.monotonic() + timeout_s
    looked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < deadline, f"waited {timeout_s:.0f} s for {what} in vain"
        time.sleep(max(every_s, now - looked))
        looked = time.monotonic()
