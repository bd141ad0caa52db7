"""A small fleet of real processes: a Valkey, `proxy-worker run` processes, and a stand-in for the scheduler."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import proxy_lane
from proxy_worker.contract.signing import encode_public_key, sign
from proxy_worker.contract.specification import TaskBody, TaskSpecification
from proxy_worker.ledger import FinishedTask, Ledger, NewTask, ProxyView, RedisAccess, Timings
from proxy_worker.ledger.broker import publish, publisher

QUICK = Timings(
    lease_s=3, dispatch_deadline_s=4, heartbeat_s=0.3, proxy_timeout_s=2, reap_grace_s=2, tick_s=0.5, progress_s=0.2
)
DEADLINE_S = 120.0


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return once `condition` holds; fail with `what` when it doesn't in time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {deadline_s:.0f} s"
        time.sleep(0.02)


@dataclasses.dataclass
class Proxy:
    """A `proxy-worker run` process and its configuration."""

    name: str
    folder: Path
    configuration: Path
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0

    @property
    def log(self) -> str:
        """What it has written so far, over all its lives."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self, **environment: str) -> None:
        """Start a life."""
        self.lives += 1
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from proxy_worker.cli import main; main()",
                    "run",
                    "--config",
                    self.configuration,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | environment,
            )

    def children(self) -> list[psutil.Process]:
        """Its pool processes."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end and return the exit code."""
        assert self.process is not None
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        """Kill the main process, as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """Leave nothing behind, whatever the test has done."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Fleet:
    """The scheduler's part, reduced to what a test asks for."""

    def __init__(self, folder: Path, server: EmbeddedValkey, timings: Timings = QUICK) -> None:
        self.folder = folder
        self.server = server
        self.key = Ed25519PrivateKey.generate()
        self.epoch = 1
        self.ledger = Ledger(self.access())
        self.ledger.open_epoch(self.epoch, timings)
        self.celery = publisher(self.access())
        self.proxies: dict[str, Proxy] = {}

    def access(self) -> RedisAccess:
        """How the scheduler's part reaches Redis."""
        return RedisAccess(self.server.url, password=self.server.password)

    def redis_table(self, secrets_dir: Path) -> str:
        """The [redis] table of a proxy, whose secrets are put where it finds them."""
        (secrets_dir / "redis").write_text(self.server.password)
        return f'[redis]\nurl = "{self.server.url}"\ncredential = "redis"'

    def add_proxy(self, name: str, *, slots: int = 2, settings: Sequence[str] = (), tables: str = "") -> Proxy:
        """Configure a proxy; not yet started."""
        folder = self.folder / name
        (folder / "secrets").mkdir(parents=True)
        configuration = folder / "proxy.toml"
        configuration.write_text(
            "\n".join(
                [
                    f'name = "{name}"',
                    f"max_concurrent_tasks = {slots}",
                    'state_dir = "state"',
                    'secrets_dir = "secrets"',
                    f'scheduler_public_keys = ["{encode_public_key(self.key.public_key())}"]',
                    *settings,
                    self.redis_table(folder / "secrets"),
                    tables,
                ]
            )
        )
        proxy = self.proxies[name] = Proxy(name, folder, configuration)
        return proxy

    def start(self, *names: str, **environment: str) -> None:
        """Start proxies, all by default, and wait until the ledger knows them and they consume."""
        for name in names or tuple(self.proxies):
            self.proxies[name].start(**environment)
        for name in names or tuple(self.proxies):
            self.await_ready(name)

    def await_ready(self, name: str) -> None:
        """Wait until a started proxy is registered and consumes."""
        proxy = self.proxies[name]

        def ready() -> bool:
            assert proxy.process is not None
            assert proxy.process.poll() is None, proxy.log
            return proxy.log.count(f"proxy@{name} ready.") == proxy.lives

        wait_until(ready, f"{name} registers")

    def view(self, name: str) -> ProxyView | None:
        """A proxy as the ledger sees it."""
        return self.ledger.view().proxies.get(name)

    def submit(
        self, body: TaskBody, *, title: str = "", caps: tuple[str, ...] = (), task_id: str | None = None
    ) -> str:
        """Make a task ready."""
        task_id = task_id or secrets.token_hex(6)
        self.ledger.submit(NewTask(task_id, body.kind, title or f"{body.kind} {task_id}", caps))
        return task_id

    def specification(self, task_id: str, body: TaskBody, lane: str, number: int) -> TaskSpecification:
        """What the scheduler signs."""
        return TaskSpecification(
            epoch=self.epoch,
            task_id=task_id,
            dispatch_number=number,
            audience=lane,
            expires_at=time.time() + 60,
            body=body,
        )

    def dispatch(
        self,
        task_id: str,
        body: TaskBody,
        *,
        proxy: str | None = None,
        lane: str | None = None,
        caps: Mapping[str, int] = MappingProxyType({}),
    ) -> int | None:
        """Dispatch and publish, to a proxy's lane or a shared one; None when the ledger refuses."""
        lane = lane or proxy_lane("primary", proxy or "")
        number = self.ledger.dispatch(
            task_id,
            lane=lane,
            proxy=proxy,
            caps=caps,
            sign=lambda number: sign(self.specification(task_id, body, lane, number), self.key),
        )
        if not isinstance(number, int):
            return None
        title = self.ledger.view().tasks[task_id].title
        publish(self.celery, kind=body.kind, title=title, lane=lane, task_id=task_id, number=number)
        return number

    def run(self, body: TaskBody, *, proxy: str, deadline_s: float = DEADLINE_S) -> FinishedTask:
        """Submit, dispatch to a proxy, wait for the end, acknowledge."""
        task_id = self.submit(body)
        assert self.dispatch(task_id, body, proxy=proxy) is not None
        return self.outcome(task_id, deadline_s)

    def outcome(self, task_id: str, deadline_s: float = DEADLINE_S) -> FinishedTask:
        """Wait for the end of a task and acknowledge it."""
        found: list[FinishedTask] = []

        def ended() -> bool:
            self.ledger.reap()
            found.extend(task for task in self.ledger.finished() if task.task_id == task_id)
            return bool(found)

        wait_until(ended, f"the end of {task_id}", deadline_s)
        self.ledger.acknowledge([task_id])
        return found[0]

    def end(self) -> None:
        """Stop everything but the server."""
        for proxy in self.proxies.values():
            proxy.end()
        self.ledger.close()
        self.celery.close()
