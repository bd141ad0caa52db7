"""TLS to Redis: whom programs trust, and what they say when they can't."""

from __future__ import annotations

import dataclasses
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import (
    Ledger,
    LedgerCertificateError,
    LedgerPasswordError,
    LedgerUnavailableError,
    RedisAccess,
)
from proxy_worker.ledger.broker import publish, publisher
from scheduler.pki.certificates import Peer, Role, certify, key_pem, now_utc
from tests.redis_server import SecureRedis


@pytest.fixture(scope="module")
def another_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority of somebody else's fleet."""
    folder = tmp_path_factory.mktemp("another")
    SecureRedis(folder)
    return folder / "state/pki/ca.pem"


def refusal(access: RedisAccess) -> str:
    """What the ledger's client says; Celery's must refuse as well."""
    with Ledger(access) as ledger, pytest.raises(LedgerCertificateError) as caught:
        ledger.view()
    assert caught.value.retryable, "a certificate that is renewed is used without a restart"
    app = publisher(access)
    with pytest.raises(LedgerUnavailableError):
        publish(app, kind=TaskKind.DISK_BACKUP, title="t", lane="disk.primary.network", task_id="t", number=1)
    app.close()
    return str(caught.value)


def test_server_of_another_authority_is_refused(server: SecureRedis, another_ca: Path) -> None:
    access = dataclasses.replace(server.access("scheduler"), ca_file=another_ca)

    assert "CERTIFICATE_VERIFY_FAILED" in refusal(access)


def test_authorities_that_the_system_trusts_cannot_vouch_for_a_server(
    server: SecureRedis, another_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.state_dir / "pki/ca.pem"))
    access = dataclasses.replace(server.access("scheduler"), ca_file=another_ca)

    assert "CERTIFICATE_VERIFY_FAILED" in refusal(access)


def test_server_under_a_name_that_it_has_not_is_refused(server: SecureRedis) -> None:
    with server.client() as admin:
        admin.config_set("bind", "127.0.0.1 127.0.0.2")
    access = dataclasses.replace(server.access("scheduler"), url=f"rediss://127.0.0.2:{server.port}/0")

    assert "127.0.0.2" in refusal(access)


def test_revoked_server_is_refused_where_the_new_trust_file_is(tmp_path: Path) -> None:
    with SecureRedis(tmp_path) as own:
        own.scheduler("pki", "revoke", "localhost")
        with Ledger(own.access("scheduler")) as ledger:
            assert ledger.view().epoch is None, "this kit has the old file"

        access = dataclasses.replace(own.access("scheduler"), ca_file=own.state_dir / "pki/ca.pem")

        assert "revoked" in refusal(access)


def test_new_passwords_shut_a_thief_out(tmp_path: Path) -> None:
    with SecureRedis(tmp_path) as own:
        stolen = own.access("site-primary")
        kept = (own.kit("site-primary") / "redis-key.pem").read_bytes()
        own.configure("--new-passwords")
        with own.client() as admin:
            admin.acl_load()

        with Ledger(stolen) as ledger, pytest.raises(LedgerPasswordError):
            ledger.timings()
        with Ledger(own.access("site-primary")) as ledger:
            assert ledger.timings()
        assert (own.kit("site-primary") / "redis-key.pem").read_bytes() == kept, "certificates go on"


def test_configured_again_it_keeps_passwords_and_certificates_and_adds_sites(tmp_path: Path) -> None:
    own = SecureRedis(tmp_path)
    before = {path: path.read_bytes() for path in own.made.rglob("*") if path.is_file()}

    own.configure("--site", "third")

    for path, content in before.items():
        if path.name not in {"users.acl", "redis.toml"}:
            assert path.read_bytes() == content, path
    users = (own.made / "users.acl").read_text()
    assert "user site-third on #" in users
    assert own.password("scheduler") not in users
    assert "on nopass" not in users.replace("user test-admin on nopass", "")


def test_expired_certificates_are_refused_on_both_sides_and_renewed_ones_used_at_once(tmp_path: Path) -> None:
    with SecureRedis(tmp_path, "--require-certificates") as own:
        kit = own.kit("scheduler")
        expired = _expired(own, tmp_path / "expired", "redis-scheduler", "scheduler")
        access = dataclasses.replace(
            own.access("scheduler"), certificate=expired / "certificate.pem", key=expired / "key.pem"
        )
        assert "TLS finds no agreement" in refusal(access)
        with Ledger(access) as ledger:
            (expired / "certificate.pem").write_bytes((kit / "redis-certificate.pem").read_bytes())
            (expired / "key.pem").write_bytes((kit / "redis-key.pem").read_bytes())
            assert ledger.view().epoch is None

        as_server = _expired(own, tmp_path / "expired-server", "localhost", "redis")
        with own.client() as admin:
            admin.config_set(
                "tls-cert-file", str(as_server / "certificate.pem"), "tls-key-file", str(as_server / "key.pem")
            )
        assert "certificate has expired" in refusal(own.access("scheduler"))


def test_client_without_a_certificate_is_refused_where_one_is_required(tmp_path: Path) -> None:
    with SecureRedis(tmp_path, "--require-certificates") as own:
        access = dataclasses.replace(own.access("scheduler"), certificate=None, key=None)
        assert "TLS finds no agreement" in refusal(access)


def test_client_without_tls_gets_no_answer(server: SecureRedis) -> None:
    access = dataclasses.replace(server.access("scheduler"), url=f"redis://localhost:{server.port}/0")
    with Ledger(access) as ledger, pytest.raises(LedgerUnavailableError):
        ledger.view()


def test_old_protocols_are_refused(server: SecureRedis) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode != 0
    assert "protocol version" in done.stderr + done.stdout


def _expired(own: SecureRedis, folder: Path, name: str, role: str) -> Path:
    """A certificate of the fleet's authority whose time is over."""
    pki = own.state_dir / "pki"
    authority = load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    authority_key = load_pem_private_key((pki / "ca.key").read_bytes(), None)
    assert isinstance(authority_key, EllipticCurvePrivateKey)
    past = now_utc() - timedelta(days=30)
    key, certificate = certify(
        Peer(name, Role(role), addresses=("localhost", "127.0.0.1")),
        authority,
        authority_key,
        past + timedelta(days=1),
        past,
    )
    folder.mkdir()
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key_pem(key))
    return folder
