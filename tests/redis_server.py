"""Debian's Redis, as `scheduler redis configure` configures it: TLS by the fleet's authority, users, rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis
import tomlkit

from ops.demo.valkey import free_port
from proxy_worker.ledger import RedisAccess
from proxy_worker.ledger.access import FleetConnection
from tests.system.commands import run_forked

SITES: Final = ("primary", "remote")
ADMIN: Final = "test-admin"
"""A user of the tests alone, who looks at everything."""


class SecureRedis:
    """One server on 127.0.0.1 in a folder of its own, beside the scheduler's state folder that certified it."""

    def __init__(self, folder: Path, *options: str, state_dir: Path | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.made = folder / "redis"
        self.state_dir = state_dir or folder / "state"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        self.configure(*options)

    def configure(self, *options: str) -> None:
        """Run `scheduler redis configure`, at first or again."""
        sites = [word for site in SITES for word in ("--site", site)]
        self.scheduler(
            *("redis", "configure", *sites, "--host", "localhost", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--out", str(self.made), "--data-dir", str(self.folder / "data"), *options),
        )
        with (self.made / "users.acl").open("a") as users:
            users.write(f"user {ADMIN} on nopass ~* &* +@all\n")

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}/0"

    def scheduler(self, *words: str, fails_with: int = 0) -> str:
        """What a `scheduler` command prints; its errors where it is to fail."""
        environment = os.environ | {"SCHEDULER_STATE_DIR": str(self.state_dir), "SCHEDULER_CONFIG": os.devnull}
        done = run_forked(["scheduler", *words], environment)
        assert done.returncode == fails_with, done.stdout + done.stderr
        return done.stderr if fails_with else done.stdout

    def kit(self, user: str) -> Path:
        return self.made / "kits" / user

    def password(self, user: str) -> str:
        return (self.kit(user) / "redis").read_text().strip()

    def access(self, user: str) -> RedisAccess:
        """What the machines of a user have in their configuration."""
        kit = self.kit(user)
        return RedisAccess(
            self.url,
            user,
            self.password(user),
            kit / "redis-ca.pem",
            kit / "redis-certificate.pem",
            kit / "redis-key.pem",
        )

    def table(self, user: str, secrets_dir: Path) -> str:
        """Put a user's kit into a secrets folder; the [redis] table that finds it there."""
        shutil.copytree(self.kit(user), secrets_dir, dirs_exist_ok=True)
        document = tomlkit.parse((secrets_dir / "redis.toml").read_text())
        table: Any = document["redis"]
        for key in ("ca_file", "certificate", "key"):
            table[key] = str(secrets_dir / Path(table[key]).name)
        return tomlkit.dumps(document)

    def client(self, user: str = ADMIN) -> redis.Redis:
        """A plain client of a user."""
        access = self.access("scheduler" if user == ADMIN else user)
        client: redis.Redis = redis.Redis.from_url(
            self.url,
            username=user,
            password="" if user == ADMIN else access.password,
            connection_class=FleetConnection,
            decode_responses=True,
            **access.certificates,
        )
        return client

    def refused(self) -> list[tuple[str, str, str]]:
        """User, reason and object of everything that was refused since the last `forget_refusals`."""
        with self.client() as admin:
            return [(one["username"], one["reason"], one["object"]) for one in admin.acl_log()]

    def forget_refusals(self) -> None:
        with self.client() as admin:
            admin.acl_log_reset()

    def start(self) -> Self:
        log = (self.folder / "redis.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                ["redis-server", self.made / "redis.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with self.client() as admin:
                return bool(admin.ping())
        except redis.exceptions.ConnectionError as error:
            if "refused" not in str(error):
                raise
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(120)
            self.process = None

    def __enter__(self) -> Self:
        return self if self.process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
