"""A folder on a file system that has the flags, a warden of it whose clock a test turns, and the real program."""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy_worker.warden.client import WardenClient
from proxy_worker.warden.messages import Answer
from proxy_worker.warden.register import Boottime, Register
from proxy_worker.warden.serving import answer_to
from proxy_worker.warden.terms import Terms
from proxy_worker.warden.warden import Warden
from tests.simulators.loop_devices import mounted, run
from tests.system.live_fleet import wait_until

OWNER = 61_234
"""Whom the repository's folder belongs to: the user that gateways run as."""
DAY_S = 24 * 3600.0
PERIOD_S = 8 * DAY_S
SETTINGS = """
certificate = "vault.pem"
key = "vault-key.pem"
ca_file = "ca.pem"
port = 0
host = "127.0.0.1"

[repositories.{name}]
path = "{root}"

[repositories.{name}.hardened]
days = {days}
run_dir = "run"
state_dir = "state"
"""


@contextmanager
def disk() -> Iterator[Path]:
    """A new ext4, where users other than root get to as well."""
    with tempfile.TemporaryDirectory(prefix="vault-") as folder:
        Path(folder).chmod(0o711)
        with mounted("ext4", Path(folder)) as point:
            yield point


@contextmanager
def folder_on(disk: Path) -> Iterator[Path]:
    """A folder that belongs to `OWNER`, until the end, whatever is immutable in it."""
    disk.chmod(0o755)
    root = disk / secrets.token_hex(4)
    root.mkdir()
    give_away(root)
    try:
        yield root
    finally:
        run("find", root, "-type", "f,d", "-exec", "chattr", "-i", "-a", "{}", "+")
        run("rm", "-r", root)


def give_away(root: Path) -> None:
    """Let everything in a folder belong to `OWNER`."""
    run("chown", "-R", f"{OWNER}:{OWNER}", root)


class Clock:
    """What CLOCK_BOOTTIME shows."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class CrashingRegister(Register):
    """One that can end without having saved anything."""

    is_open = True

    def close(self) -> None:
        self.is_open = False
        super().close()

    def drop(self) -> None:
        """Crash."""
        self.is_open = False
        self._database.close()


class NearWarden(WardenClient):
    """A warden in this process, asked as one over there is."""

    def __init__(self, root: Path, state: Path, clock: Boottime) -> None:
        super().__init__(Path("nowhere"), root)
        self.register = CrashingRegister(state / "register.db", clock)
        self.warden = Warden(root, self.register, Terms(PERIOD_S))

    def close(self) -> None:
        if self.register.is_open:
            self.warden.close()
            self.register.close()

    def crash(self) -> None:
        """Go without saving anything."""
        self.warden.close()
        self.register.drop()

    def _exchanged(self, question: bytes) -> Answer:
        return answer_to(question, self.warden)


def write(root: Path, name: str, content: bytes = b"content") -> Path:
    """Put a file there as a gateway does, not locked yet."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def as_owner(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command says that runs as `OWNER`, as a gateway does, with no rights beyond that."""
    become = ("setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", "--no-new-privs")
    return subprocess.run([*become, *command], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Program:
    """`proxy-worker warden` as a process."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def client(self) -> WardenClient:
        return WardenClient(self.folder / "run/main.socket", Path(self.settings["path"]))

    @property
    def settings(self) -> dict[str, str]:
        return dict(re.findall(r'^(\w+) = "(.*)"$', (self.folder / "gateway.toml").read_text(), re.MULTILINE))

    def status(self) -> dict[str, str]:
        """What the kernel says of it."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def settings_in(folder: Path, root: Path, *, days: float = 8, name: str = "main") -> Path:
    """A gateway.toml that hardens `root`, with folders for sockets and state beside it."""
    folder.chmod(0o711)
    (folder / "run").mkdir(exist_ok=True)
    file = folder / "gateway.toml"
    file.write_text(SETTINGS.format(root=root, days=days, name=name))
    return file


def command(folder: Path) -> list[str]:
    """What starts a warden."""
    return [sys.executable, "-m", "proxy_worker", "warden", "main", "--config", str(folder / "gateway.toml")]


@contextmanager
def program(folder: Path) -> Iterator[Program]:
    """A warden as its settings in `folder` say, that answers."""
    log = folder / "warden.log"
    with log.open("w") as out:
        process = subprocess.Popen(command(folder), stdout=out, stderr=out, text=True)
    try:
        wait_until(lambda: process.poll() is not None or "immutable" in log.read_text(), "the warden")
        assert process.poll() is None, log.read_text()
        yield Program(process, folder)
    finally:
        process.terminate()
        assert process.wait(120) in {0, -signal.SIGKILL}, log.read_text()


AS_GATEWAY = (
    "setpriv",
    f"--reuid={OWNER}",
    f"--regid={OWNER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
    "--no-new-privs",
)
"""As `OWNER`; it may read all the same, since the interpreter may lie where others can't."""


@contextmanager
def serving_process(*arguments: str) -> Iterator[int]:
    """A gateway as a process; the port that it says."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.terminate()


def refusal_of(*arguments: str) -> str:
    """Why a program doesn't start."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in {3, 4}, done.stderr
    return done.stderr
