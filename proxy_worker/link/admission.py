"""Who is at the other end of a link, by its certificate, and whether that still counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from proxy_worker.link.identity import Identity


class Role(StrEnum):
    """The roles that links know; certificates of others are refused."""

    PROXY = "proxy"
    GATEWAY = "gateway"


@dataclass(frozen=True)
class Peer:
    """Who a certificate was issued to."""

    name: str
    role: Role


class PeerRefusedError(ValueError):
    """A certificate isn't accepted; the text says why."""


def peer_of(certificate: x509.Certificate) -> Peer:
    """Who a certificate names; raises `PeerRefusedError` when that is nobody who takes part in links."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    role = str(units[0].value) if units else "no role"
    if len(names) != 1 or role not in set(Role):
        raise PeerRefusedError(f"its certificate is of role {role}, and links are for {' and '.join(Role)}")
    return Peer(str(names[0].value), Role(role))


def own_role(identity: Identity) -> Role | None:
    """The role of one's own certificate, None if it takes no part in links; raises `LinkCertificateError`."""
    try:
        return peer_of(x509.load_pem_x509_certificate(identity.read()[1])).role
    except ValueError:
        return None


class Admission:
    """Decides whether a peer's certificate, which TLS has verified, is still good. Thread-safe."""

    def __init__(self, ca_file: Path) -> None:
        self._ca_file = ca_file
        self._read_at: tuple[int, int] | None = None
        self._revoked: frozenset[int] = frozenset()

    def admitted(self, pem: bytes) -> Peer:
        """Who it is; raises `PeerRefusedError`."""
        certificate = x509.load_pem_x509_certificate(pem)
        peer = peer_of(certificate)
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise PeerRefusedError(f"the certificate of {peer.name} has expired")
        if certificate.serial_number in self._revocations():
            raise PeerRefusedError(f"the certificate of {peer.name} was revoked")
        return peer

    def _revocations(self) -> frozenset[int]:
        stat = self._ca_file.stat()
        read_at = (stat.st_mtime_ns, stat.st_ino)
        if read_at != self._read_at:
            self._revoked = revoked_serials(self._ca_file.read_bytes())
            self._read_at = read_at
        return self._revoked


def revoked_serials(trust: bytes) -> frozenset[int]:
    """The serial numbers on the list in a trust file, none if it has no list."""
    begin = trust.find(b"-----BEGIN X509 CRL-----")
    if begin < 0:
        return frozenset()
    return frozenset(one.serial_number for one in x509.load_pem_x509_crl(trust[begin:]))
