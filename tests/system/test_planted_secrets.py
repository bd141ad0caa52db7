"""No secret leaves its file: a whole run on Redis with TLS and users, with every secret known and looked for.

Looked into is whatever the fleet says, keeps or shows: every command that Redis gets and every value it holds, all
logs, the database and other state, Flower's answers, command lines and environments of every process.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import tomlkit

from ops.demo.fleet import wait_for_flower
from ops.demo.layout import ProxyPlace
from ops.demo.machines import Disk, Machine, make_machines
from ops.demo.processes import MARK
from tests.redis_server import SecureRedis
from tests.system.commands import BIN
from tests.system.live_fleet import LiveFleet, explained, wait_until

WEB01 = Machine("web01", "ds", (Disk("scsi0:0", 8, 4, filesystem=False),))
PROXY = ProxyPlace("proxy-1", "primary", "ds")
JOBS = """
[[job]]
name = "nightly"
vms = ["*"]
repository = "main"
"""
PAGES = (
    *("/", "/workers", "/worker/proxy@proxy-1", "/broker", "/tasks", "/metrics"),
    *("/api/workers?refresh=1", "/api/tasks", "/api/queues/length"),
)
SECRET_FIELDS = {"id_key", "metadata_key", "writer_private_key"}


class SecureFleet(LiveFleet):
    """A fleet on Debian's Redis, each of its parts with the kit of its own user."""

    forks_commands = False
    redis: SecureRedis

    def _write_files(self) -> None:
        super()._write_files()
        layout = self.layout
        self.redis = SecureRedis(layout.state / "tls", state_dir=layout.state / "scheduler")
        for planted in ("vcenter.password", "unused.passphrase", "unused-2.passphrase"):
            for holder in ("server", "proxies"):
                layout.write_secret(layout.secrets(holder) / planted)
        self._secure(layout.scheduler_config, "scheduler", layout.secrets("server"))
        shutil.copytree(self.redis.kit("flower"), layout.secrets("flower"), dirs_exist_ok=True)

    def _start_redis(self) -> None:
        self.redis.start()

    def _configure(self, proxy: ProxyPlace) -> None:
        super()._configure(proxy)
        self._secure(self.layout.proxy_config(proxy.name), "site-primary", self.layout.secrets("proxies"))

    def _secure(self, configuration: Path, user: str, secrets_dir: Path) -> None:
        document = tomlkit.parse(configuration.read_text())
        document["redis"] = tomlkit.parse(self.redis.table(user, secrets_dir))["redis"]
        configuration.write_text(tomlkit.dumps(document))

    def _end(self) -> None:
        super()._end()
        if hasattr(self, "redis"):
            self.redis.stop()

    def start_flower(self) -> None:
        secrets = self.layout.secrets("flower")
        self.supervisor.start(
            "flower",
            [str(BIN / "celery"), "-A", "ops.flower.app", "flower", "--conf=ops/flower/flowerconfig.py"],
            extra={
                "FLEET_REDIS_URL": self.redis.url,
                "FLEET_REDIS_USERNAME": "flower",
                "FLEET_REDIS_CA_FILE": str(secrets / "redis-ca.pem"),
                "FLEET_REDIS_CERTIFICATE": str(secrets / "redis-certificate.pem"),
                "FLEET_REDIS_KEY": str(secrets / "redis-key.pem"),
                "FLEET_SECRETS_DIR": str(secrets),
                "FLOWER_PORT": str(self.layout.flower_port),
            },
        )
        wait_for_flower(self.supervisor, self.layout)


class Overheard:
    """Everything that Redis is told, from now until the end, and what processes show of themselves meanwhile."""

    def __init__(self, fleet: SecureFleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self.commands: list[str] = []
        self.processes: dict[str, bytes] = {}
        self._threads = [threading.Thread(target=target) for target in (self._listen, self._look)]

    def __enter__(self) -> Overheard:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.commands != [], "the first command")
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        with self._fleet.redis.client() as admin:
            admin.echo("the end")
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with self._fleet.redis.client() as admin, admin.monitor() as monitor:
            for command in monitor.listen():
                self.commands.append(json.dumps(command, default=str))
                if self._over.is_set():
                    return

    def _look(self) -> None:
        mark = str(self._fleet.layout.state)
        while not self._over.wait(0.05):
            for process in psutil.process_iter(["pid"]):
                try:
                    place = Path(f"/proc/{process.pid}")
                    environment = (place / "environ").read_bytes()
                    if f"{MARK}={mark}".encode() in environment or process.pid == self._redis_pid:
                        line = (place / "cmdline").read_bytes()
                        self.processes[f"{process.pid} {line!r}"] = line + b"\0" + environment
                except OSError:
                    continue  # it has ended

    @property
    def _redis_pid(self) -> int:
        assert self._fleet.redis.process is not None
        return self._fleet.redis.process.pid


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureFleet]:
    folder = tmp_path_factory.mktemp("planted")
    make_machines([WEB01], folder / "datastores", folder / "scratch")
    with SecureFleet(folder, [PROXY], JOBS) as live, explained(live):
        live.start_flower()
        yield live


def test_a_whole_run_shows_no_secret_anywhere(fleet: SecureFleet) -> None:
    secrets = _needles(fleet)
    assert len(secrets) > 20

    with Overheard(fleet) as overheard:
        fleet.command("scheduler", "job", "start", "nightly", "--wait")
        restored = ("--to", str(fleet.layout.state / "restored.raw"), "--wait")
        fleet.command("scheduler", "restore", "disk", "--vm", "web01", "--disk", "scsi0:0", *restored)
        answers = {path: _flower(fleet, path) for path in PAGES}
        held = _everything_in(fleet.redis.client())

    looked_into: dict[str, Mapping[str, bytes]] = {
        "Redis' commands": {"all": "\n".join(overheard.commands).encode()},
        "Redis": held,
        "processes": overheard.processes,
        "Flower": answers,
        "files": _files(fleet),
    }
    assert any("disk.backup web01" in line for line in overheard.commands), "it is listened to"
    assert len(overheard.processes) > 8, "they are looked at"
    assert b"disk.backup web01 scsi0:0" in answers["/tasks"] + answers["/api/tasks"]
    assert any(name.endswith("scheduler.db") for name in looked_into["files"])
    found = [
        f"{secret} in {kind}: {name}"
        for kind, places in looked_into.items()
        for name, content in places.items()
        for secret, forms in secrets.items()
        if any(form in content for form in forms)
    ]
    assert found == []
    assert fleet.redis.refused() == [], "nobody lacked a right"


def test_what_is_looked_for_would_be_found(fleet: SecureFleet) -> None:
    kept = b"".join(path.read_bytes() for path in _secret_files(fleet))

    for secret, forms in _needles(fleet).items():
        assert forms[0] in kept, secret


def test_secret_files_are_for_their_owner_alone(fleet: SecureFleet) -> None:
    for path in _secret_files(fleet):
        assert path.stat().st_mode & 0o077 == 0, path


def _secret_files(fleet: SecureFleet) -> list[Path]:
    layout, made = fleet.layout, fleet.redis.made
    public = re.compile(r"(-ca|-certificate|\bca)\.pem$|\.toml$|scheduler\.pub$")
    folders = (layout.state / "secrets", made / "kits")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    more = [
        made / "tls/redis-key.pem",
        layout.state / "scheduler/pki/ca.key",
        layout.state / "scheduler/signing.key",
    ]
    return [path for path in files if not public.search(path.name)] + more


def _needles(fleet: SecureFleet) -> dict[str, tuple[bytes, ...]]:
    """Every secret in the forms in which it could turn up, by the name of its file."""
    found: dict[str, tuple[bytes, ...]] = {}
    for path in _secret_files(fleet):
        for number, text in enumerate(_secrets_in(path.read_text())):
            raw = text.encode()
            quoted = urllib.parse.quote(text, safe="").encode()
            found[f"{path.parent.name}/{path.name} {number}"] = (raw, quoted, base64.b64encode(raw).rstrip(b"="))
    return found


def _secrets_in(text: str) -> list[str]:
    if "PRIVATE KEY" in text:
        return [line for line in text.splitlines() if not line.startswith("-----")][:-1]
    if text.startswith("{"):
        return _values(json.loads(text))
    return [text.strip().rpartition(":")[2]]


def _values(document: dict[str, Any]) -> list[str]:
    return [value for name, value in document.items() if name in SECRET_FIELDS and isinstance(value, str)]


def _everything_in(client: redis.Redis) -> dict[str, bytes]:
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
    }
    with client:
        return {key: repr(read[client.type(key)](key)).encode() for key in client.scan_iter()}


def _files(fleet: SecureFleet) -> dict[str, bytes]:
    """All that the fleet has written outside its secrets: logs, database, configuration, state."""
    state, hidden = fleet.layout.state, {path.resolve() for path in _secret_files(fleet)}
    elsewhere = {state / "datastores", state / "scratch", fleet.layout.repository}
    return {
        str(path.relative_to(state)): path.read_bytes()
        for path in state.rglob("*")
        if path.is_file() and path.resolve() not in hidden and not elsewhere.intersection(path.parents)
    }


def _flower(fleet: SecureFleet, path: str) -> bytes:
    user = base64.b64encode(fleet.layout.flower_user.read_bytes().strip()).decode()
    url = f"http://127.0.0.1:{fleet.layout.flower_port}{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {user}"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        content: bytes = reply.read()
    return content
