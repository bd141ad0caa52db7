"""What a server shows: what its files hold, and new to gRPC, which crashes at too much of that, only if it is."""

from __future__ import annotations

from pathlib import Path

from proxy_worker.link.certificates import ShownCertificates
from scheduler.pki.certificates import Role
from tests.gateway.serving import Fleet


def test_certificates_are_taken_up_once_when_they_have_changed_and_else_not_at_all(tmp_path: Path) -> None:
    fleet = Fleet.made(tmp_path / "fleet")
    shown = ShownCertificates(fleet.identity("vault", Role.GATEWAY))
    assert shown.renewed() is None

    fleet.revoke("vault")

    assert shown.renewed() is not None
    assert shown.renewed() is None


def test_certificates_whose_files_are_gone_stay_as_they_were(tmp_path: Path) -> None:
    fleet = Fleet.made(tmp_path / "fleet")
    identity = fleet.identity("vault", Role.GATEWAY)
    shown = ShownCertificates(identity)
    kept = identity.certificate.read_bytes()

    identity.certificate.unlink()
    assert shown.renewed() is None

    identity.certificate.write_bytes(kept)
    assert shown.renewed() is None
