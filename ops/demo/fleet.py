"""The demo's fleet: which processes there are, in which order they start, and when each is ready."""

from __future__ import annotations

import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path

from ops.demo.errors import DemoError
from ops.demo.layout import PROXIES, Layout
from ops.demo.processes import Supervisor
from ops.demo.summary import RunFigures, folder_size_bytes
from ops.demo.terminal import BIN, Shell, say
from ops.demo.valkey import EmbeddedValkey


def make_repository(shell: Shell, layout: Layout) -> None:
    """Make the repository, and the key that proxies get."""
    passphrase = ("--passphrase-file", str(layout.passphrase))
    shell.run("proxy-worker", "repository", "init", str(layout.repository), *passphrase)
    shell.run(
        *("proxy-worker", "repository", "keys", "export-write", str(layout.repository)),
        *(*passphrase, "--out", str(layout.write_key)),
    )


def back_up(supervisor: Supervisor, shell: Shell, layout: Layout, job: str, title: str) -> RunFigures:
    """Run a job to its end with its progress on the terminal; returns its figures under `title`."""
    before = folder_size_bytes(layout.repository)
    shell.run("scheduler", "job", "start", job, "--wait")
    supervisor.check()
    (newest,) = shell.read_json("scheduler", "run", "list", "--limit", "1", "--json")
    run = shell.read_json("scheduler", "run", "show", newest["run"], "--json")
    return RunFigures(title, run, folder_size_bytes(layout.repository) - before)


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(what: str, expected: str, found: str) -> None:
    """Show that two digests are equal; raises `DemoError` if they aren't."""
    if found != expected:
        raise DemoError(f"{what} was restored as something else: SHA-256 {found}, its source has {expected}")
    say(f"  [green]equal[/]  {what}  {found[:16]}…")


def start_server(supervisor: Supervisor, layout: Layout, *, extra: Mapping[str, str] | None = None) -> None:
    """Start Valkey and the scheduler, and wait for the key that proxies are deployed with.

    The scheduler, and with it the server's own proxy, has `extra` in its environment.
    """
    server = EmbeddedValkey(
        layout.state / "valkey", layout.redis_password.read_text().strip(), port=layout.redis_port
    )
    supervisor.start(
        "valkey",
        [
            *(sys.executable, "-m", "ops.demo.valkey", "--folder", str(server.folder)),
            *("--port", str(layout.redis_port), "--password-file", str(layout.redis_password)),
        ],
    )
    supervisor.wait_until("Valkey to answer", server.answers)
    say(f"  valkey         127.0.0.1:{layout.redis_port}, password, every write on disk at once")
    _start_scheduler(supervisor, layout, extra or {})
    supervisor.wait_until("the scheduler to make its signing key", layout.public_key.exists)
    say("  scheduler      scheduler serve, with a proxy of its own for restores: server")


def make_certificates(shell: Shell, layout: Layout) -> None:
    """Make the fleet's authority, and a certificate for each proxy."""
    shell.run("scheduler", "pki", "init")
    for proxy in PROXIES:
        folder = str(layout.certificates(proxy.name))
        shell.run(
            *("scheduler", "pki", "issue", proxy.name, "--role", "proxy", "--site", proxy.site),
            *("--address", "127.0.0.1", "--out", folder),
        )


def start_proxies(supervisor: Supervisor, layout: Layout) -> None:
    """Start the three proxies."""
    for proxy in PROXIES:
        start_proxy(supervisor, proxy.name, layout.write_proxy_file(proxy))
        say(f"  {proxy.name:<14} proxy-worker run, site {proxy.site}, 2 slots, reaches {proxy.datastore}")


def start_proxy(supervisor: Supervisor, name: str, config: Path, *, extra: Mapping[str, str] | None = None) -> None:
    """Start one proxy, with `extra` in its environment."""
    supervisor.start(f"proxy-{name}", [str(BIN / "proxy-worker"), "run", "--config", str(config)], extra=extra)


def wait_for_proxies(supervisor: Supervisor, shell: Shell, names: Iterable[str]) -> None:
    """Wait until the scheduler sees all of these, and its own."""
    expected = {"server", *names}

    def registered() -> bool:
        rows = shell.read_json("scheduler", "proxy", "list", "--json")
        return expected <= {row["name"] for row in rows if row["state"] == "up"}

    supervisor.wait_until("the proxies to register", registered)


def start_flower(supervisor: Supervisor, layout: Layout) -> None:
    """Start Flower without waiting for it."""
    supervisor.start(
        "flower",
        [str(BIN / "celery"), "-A", "ops.flower.app", "flower", "--conf=ops/flower/flowerconfig.py"],
        extra={
            "FLEET_REDIS_URL": f"redis://127.0.0.1:{layout.redis_port}/0",
            "FLEET_SECRETS_DIR": str(layout.secrets("flower")),
            "FLOWER_PORT": str(layout.flower_port),
        },
    )
    say(f"  flower         http://127.0.0.1:{layout.flower_port}")


def wait_for_flower(supervisor: Supervisor, layout: Layout) -> None:
    """Wait until Flower answers."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{layout.flower_port}/healthcheck", timeout=2) as reply:
                return bool(reply.status == HTTPStatus.OK)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    supervisor.wait_until("Flower to answer", answers)


def _start_scheduler(supervisor: Supervisor, layout: Layout, extra: Mapping[str, str]) -> None:
    config = {"SCHEDULER_CONFIG": str(layout.scheduler_config)}
    supervisor.start("scheduler", [str(BIN / "scheduler"), "serve"], extra=config | dict(extra))
