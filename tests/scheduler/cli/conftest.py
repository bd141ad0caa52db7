"""The `scheduler` command, as a user runs it: arguments in, exit code and output out."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.ledger import Ledger
from scheduler.cli import main
from scheduler.state.lock import only_scheduler
from scheduler.state.store import open_state
from tests.scheduler.conftest import World
from tests.simulators.proxies import SimulatedFleet

FLEET = """
[[site]]
name = "primary"

[[datastore]]
name = "ds1"
site = "primary"

[[repository]]
name = "main"
location = "/backup/main"
site = "primary"
credential = "main"

[[job]]
name = "nightly"
vms = ["*"]
repository = "main"
schedule = { cron = "0 22 * * *", timezone = "Europe/Berlin" }
retries = { count = 0, wait_minutes = 0 }
"""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


Program = Callable[..., Finished]


@pytest.fixture
def configured(tmp_path: Path, world: World, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scheduler.toml for the test's own database and ledger; the folder it lies in."""
    (tmp_path / "redis").write_text(valkey.password)
    (tmp_path / "scheduler.toml").write_text(
        f'state_dir = "state"\nsecrets_dir = "."\ndatabase_url = "{world.url}"\n'
        f'[redis]\nurl = "{valkey.url}"\ncredential = "redis"\n'
    )
    monkeypatch.setenv("SCHEDULER_CONFIG", str(tmp_path / "scheduler.toml"))
    (tmp_path / "fleet.toml").write_text(FLEET)
    return tmp_path


@pytest.fixture
def scheduler(configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Runs `scheduler` with the given arguments."""

    def run(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["scheduler", *arguments])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return run


@pytest.fixture
def applied(scheduler: Program, configured: Path) -> Program:
    """The same, with a fleet that has been applied."""
    assert scheduler("apply", "-f", str(configured / "fleet.toml")).code == 0
    return scheduler


@contextmanager
def serving(world: World, before_each_turn: Callable[[SimulatedFleet], None] = lambda _: None) -> Iterator[None]:
    """A scheduler that serves, in a thread, with the world's proxies."""
    stop, failures = threading.Event(), []

    def turn() -> None:
        state = open_state(world.url)
        try:
            with only_scheduler(state):
                service = world.start(state)
                started.set()
                while not stop.wait(0.02):
                    before_each_turn(world.fleet)
                    service.turn()
                    world.fleet.work()
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            started.set()
            state.close()

    started = threading.Event()
    thread = threading.Thread(target=turn)
    thread.start()
    assert started.wait(120)
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
    assert not failures


@pytest.fixture
def ledger(world: World) -> Iterator[Ledger]:
    """The world's ledger, as a test looks at it."""
    with Ledger(world.ledger_url, password=world.password) as opened:
        yield opened
