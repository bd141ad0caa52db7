"""Certificates: verified, or pinned; every connection is checked."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere.inventory import read_inventory
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tags import read_tags
from proxy_worker.vsphere.trust import (
    CertificateExpiredError,
    CertificateFileError,
    CertificateUntrustedError,
    ThumbprintChangedError,
    ThumbprintError,
    Trust,
    with_colons,
)
from scheduler.vcenters.account import Account
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator, running
from tests.vsphere.conftest import certificate_of, endpoint_of


def make_certificate(folder: Path, *, days: int) -> Path:
    """A self-signed certificate for 127.0.0.1 that holds for `days` from yesterday, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vcenter")])
    begin = datetime.now(UTC) - timedelta(days=2)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    builder = builder.add_extension(alternative, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    (folder / "certificate.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    return folder / "certificate.pem"


@pytest.mark.parametrize("digest", [hashlib.sha1, hashlib.sha256])
@pytest.mark.parametrize("write", [str.upper, with_colons])
def test_a_pinned_certificate_is_accepted(vsphere: VsphereSimulator, digest: object, write: object) -> None:
    thumbprint = write(digest(certificate_of(vsphere)).hexdigest())
    with Session(endpoint_of(vsphere, trust=Trust(thumbprint)), PASSWORD) as session:
        assert read_inventory(session).vms


def test_another_certificate_than_the_pinned_one_is_refused_before_the_password_is_sent(
    vsphere: VsphereSimulator,
) -> None:
    trust = Trust("ab" * 32)
    for attempt in (Session, read_tags):
        with pytest.raises(ThumbprintChangedError, match="pinned is AB:AB:"):
            attempt(endpoint_of(vsphere, trust=trust), PASSWORD)
    assert vsphere.calls() == {}


def test_every_connection_is_checked_not_only_the_first(
    vsphere: VsphereSimulator, vsphere_program: Path, tmp_path: Path
) -> None:
    pem = make_certificate(tmp_path, days=30)
    options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
    with running(vsphere_program, tmp_path / "root", *options) as impostor:
        session = Session(endpoint_of(vsphere), PASSWORD)
        session.stub.DropConnections()
        session.stub.host, session.stub.port = f"127.0.0.1:{impostor.port}", impostor.port
        with pytest.raises(ThumbprintChangedError):
            read_inventory(session)
        assert impostor.calls() == {}


def test_a_certificate_nobody_signed_is_refused(vsphere: VsphereSimulator) -> None:
    with pytest.raises(CertificateUntrustedError, match="pin its `thumbprint`"):
        Session(endpoint_of(vsphere, trust=Trust()), PASSWORD)


def test_a_certificate_is_verified_with_the_given_authority(vsphere_program: Path, tmp_path: Path) -> None:
    pem = make_certificate(tmp_path, days=30)
    options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
    with running(vsphere_program, tmp_path / "root", *options) as server:
        with Session(endpoint_of(server, trust=Trust(ca_file=pem)), PASSWORD) as session:
            assert read_inventory(session).vms
        with pytest.raises(CertificateUntrustedError, match=r"[Hh]ostname mismatch"):
            Session(endpoint_of(server, host="localhost", trust=Trust(ca_file=pem)), PASSWORD)


def test_an_authority_may_come_as_text(vsphere_program: Path, tmp_path: Path) -> None:
    pem = make_certificate(tmp_path, days=30)
    options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
    account = Account("vc1", "vc1.example", "u", "vc1", ca_file=pem)
    assert account.reference.authorities == pem.read_text()
    with running(vsphere_program, tmp_path / "root", *options) as server:
        carried = VsphereAccess(tmp_path, tmp_path).trust(account.reference)
        with Session(endpoint_of(server, trust=carried), PASSWORD) as session:
            assert read_inventory(session).vms


def test_an_expired_certificate_is_named(vsphere_program: Path, tmp_path: Path) -> None:
    pem = make_certificate(tmp_path, days=1)
    options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
    with (
        running(vsphere_program, tmp_path / "root", *options) as server,
        pytest.raises(CertificateExpiredError, match="Renew it"),
    ):
        Session(endpoint_of(server, trust=Trust(ca_file=pem)), PASSWORD)


@pytest.mark.parametrize("text", ["", "AB", "zz" * 20, "ab" * 31])
def test_a_text_that_is_no_thumbprint_is_named(text: str) -> None:
    with pytest.raises(ThumbprintError, match="SHA-256"):
        Trust(text).context()


def test_a_missing_file_of_authorities_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError, match="absent"):
        Trust(ca_file=tmp_path / "absent").context()
