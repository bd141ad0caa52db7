"""A proxy that is deployed to a fleet whose Redis wants TLS, certificates, and a user for each site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from scheduler.pki.certificates import peer_of
from tests.redis_server import SecureRedis
from tests.scheduler.cli.conftest import Program
from tests.scheduler.deployment.conftest import Releases, add
from tests.scheduler.deployment.test_deploying import belong_to, make_repository, make_vm, serving, wait_until
from tests.simulators.bare_machine import BareMachine


@pytest.fixture
def redis(configured: Path) -> Iterator[SecureRedis]:
    """Debian's Redis, which the scheduler connects to as its own user."""
    made = SecureRedis(configured / "redis-server", "--require-certificates", state_dir=configured / "state")
    table = made.table("scheduler", configured)
    settings = (configured / "scheduler.toml").read_text().partition("[redis]")[0]
    kits = f'[deployment]\nredis_kits_dir = "{made.made / "kits"}"\n'
    (configured / "scheduler.toml").write_text(f"{settings}{table}\n{kits}")
    with made.start() as started:
        yield started


def test_a_deployed_proxy_joins_with_its_sites_user_and_a_certificate_of_its_own(
    redis: SecureRedis,
    applied: Program,
    configured: Path,
    new_machine: Callable[..., BareMachine],
    light_releases: Releases,
) -> None:
    machine = new_machine(toolbox=True)
    (machine.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    make_vm(machine.root / "mnt/ds1")
    make_repository(machine.root / "backup/main", configured)
    with serving(configured):
        done = add(applied, machine, "p1")
        assert done.code == 0, done.err
        belong_to(machine.root / "backup", machine, "proxyfleet")
        wait_until(lambda: applied("proxy", "show", "p1", "--json").json["state"] == "up", "it is up")
        run = applied("job", "start", "nightly", "--wait")
        assert run.code == 0, run.err + (configured / "serve.log").read_text()
        with redis.client() as admin:
            users = {client["user"] for client in admin.client_list()}
        again = applied("proxy", "deploy", "p1", "--json")
        refused = redis.refused()
        secrets = machine.root / "etc/proxyfleet-proxy/secrets"
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in secrets.glob("redis*")}
        shown = x509.load_pem_x509_certificate((secrets / "redis-certificate.pem").read_bytes())
        removed = applied("proxy", "remove", "p1", "--yes")

    assert "site-primary" in users
    assert refused == []
    assert modes == dict.fromkeys(("redis", "redis-ca.pem", "redis-certificate.pem", "redis-key.pem"), "0o600")
    assert peer_of(shown).name == "p1"
    assert (again.code, removed.code) == (0, 0), again.err + removed.err
