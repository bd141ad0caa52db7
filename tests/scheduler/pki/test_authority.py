"""The fleet's authority: certificates as peers see them, what is remembered, and every refusal in one sentence."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from scheduler.cli import app
from scheduler.cli.expiry import expiry_warnings
from scheduler.pki import authority as authority_module
from scheduler.pki.authority import (
    Authority,
    AuthorityDamagedError,
    AuthorityExistsError,
    CertificateExistsError,
    NoAuthorityError,
    NoCertificateError,
)
from scheduler.pki.certificates import Peer, Role, now_utc, peer_of

PROXY = Peer("proxy-1", Role.PROXY, "primary", ("proxy-1.example.org", "192.0.2.7"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "pki", name="a fleet")


def verified(authority: Authority, certificate: bytes, folder: Path) -> str:
    """What OpenSSL says of a certificate, revocations included."""
    (folder / "peer.pem").write_bytes(certificate)
    done = subprocess.run(
        ["openssl", "verify", "-crl_check", "-CAfile", authority.folder / "ca.pem", folder / "peer.pem"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_keys_are_for_the_scheduler_alone_and_peers_keys_are_not_kept(authority: Authority) -> None:
    bundle = authority.issue(PROXY)

    assert (authority.folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert authority.folder.stat().st_mode & 0o777 == 0o700
    kept = b"".join(path.read_bytes() for path in authority.folder.rglob("*") if path.is_file())
    assert bundle.key not in kept
    assert kept.count(b"PRIVATE KEY-----") == 2, "its own"


def test_name_role_site_and_addresses_are_in_the_certificate(authority: Authority, tmp_path: Path) -> None:
    bundle = authority.issue(PROXY)
    certificate = x509.load_pem_x509_certificate(bundle.certificate)

    assert peer_of(certificate) == PROXY
    assert verified(authority, bundle.certificate, tmp_path).endswith(": OK\n")
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_who_only_connects_cannot_pass_for_a_server(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(Peer("flower", Role.FLOWER)).certificate)

    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_second_certificate_of_a_name_is_a_renewal(authority: Authority) -> None:
    first = authority.issue(PROXY)
    with pytest.raises(CertificateExistsError, match="pki renew proxy-1"):
        authority.issue(PROXY)

    second = authority.renew("proxy-1", addresses=("192.0.2.8",))

    assert second.key != first.key
    assert second.issued.peer == Peer("proxy-1", Role.PROXY, "primary", ("192.0.2.8",))
    states = {one.serial: one.state(now_utc()) for one in authority.issued()}
    assert states == {first.issued.serial: "replaced", second.issued.serial: "valid"}
    with pytest.raises(NoCertificateError, match="none was ever issued"):
        authority.renew("proxy-2")


def test_revoked_certificates_are_in_the_trust_file_and_the_name_is_free(
    authority: Authority, tmp_path: Path
) -> None:
    first = authority.issue(PROXY)
    authority.renew("proxy-1")

    assert len(authority.revoke("proxy-1")) == 2

    assert "certificate revoked" in verified(authority, first.certificate, tmp_path)
    assert ssl.create_default_context(cadata=authority.trust.decode().split("-----BEGIN X509")[0])
    with pytest.raises(NoCertificateError, match="none is valid"):
        authority.revoke("proxy-1")
    assert verified(authority, authority.issue(PROXY).certificate, tmp_path).endswith(": OK\n")


def test_expiry_is_foreseen(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.issue(PROXY, days=40)
    [issued] = authority.issued()

    assert issued.state(now_utc()) == "valid"
    assert issued.state(now_utc() + timedelta(days=11)) == "expires soon"
    assert issued.state(now_utc() + timedelta(days=41)) == "expired"
    monkeypatch.setattr(authority_module, "now_utc", lambda: now_utc() + timedelta(days=41))
    assert authority.issue(PROXY), "an expired one is not in the way"


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
    short = Authority.make(tmp_path / "pki", name="short", days=10)

    assert short.issue(PROXY, days=365).issued.until <= short.certificate.not_valid_after_utc


def test_authority_is_made_once_and_its_loss_is_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(AuthorityExistsError):
        Authority.make(authority.folder, name="again")
    with pytest.raises(NoAuthorityError, match="scheduler pki init"):
        Authority(tmp_path / "elsewhere")
    (authority.folder / "ca.key").write_text("no key")
    with pytest.raises(AuthorityDamagedError, match="Restore that folder"):
        Authority(authority.folder)


def test_commands(tmp_path: Path) -> None:
    environment = {"SCHEDULER_STATE_DIR": str(tmp_path / "state"), "SCHEDULER_CONFIG": os.devnull}
    runner = CliRunner()

    def run(*words: str) -> str:
        done = runner.invoke(app, ["pki", *words], env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    with pytest.raises(NoAuthorityError):
        run("list")
    run("init", "--name", "example")
    issued = json.loads(
        run("issue", "proxy-1", "--role", "proxy", "--site", "primary", "--out", str(tmp_path / "out"), "--json")
    )
    assert (issued["state"], issued["site"]) == ("valid", "primary")
    assert (tmp_path / "out/proxy-1-key.pem").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ca.pem", "proxy-1.pem", "proxy-1-key.pem"}
    run("renew", "proxy-1", "--days", "7", "--out", str(tmp_path / "out"))
    assert "expires soon" in run("list")
    run("revoke", "proxy-1")
    assert json.loads(run("list", "--json")) == []
    assert {one["state"] for one in json.loads(run("list", "--all", "--json"))} == {"revoked"}


def test_whoever_looks_is_warned_of_what_expires_soon(authority: Authority) -> None:
    authority.issue(PROXY, days=20)
    authority.issue(Peer("redis", Role.REDIS))

    [warning] = expiry_warnings(authority.folder)

    assert warning.startswith("certificate of proxy proxy-1 expires ")
    assert expiry_warnings(authority.folder / "none") == ()
    (authority.folder / "ca.key").write_text("no key")
    assert "Restore that folder" in expiry_warnings(authority.folder)[0]
