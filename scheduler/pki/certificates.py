"""What the fleet's certificates look like: X.509, ECDSA on P-256, roles and sites as organizational units."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS: Final = 3650
PEER_DAYS: Final = 365
BACKDATED: Final = timedelta(minutes=10)
"""Certificates count from a little before now: clocks in a fleet differ."""


class Role(StrEnum):
    """What a peer is in the fleet."""

    REDIS = "redis"
    SCHEDULER = "scheduler"
    PROXY = "proxy"
    GATEWAY = "gateway"
    FLOWER = "flower"
    MONITOR = "monitor"

    @property
    def serves(self) -> bool:
        """Whether it is connected to, and so must prove an address; all connect to others."""
        return self in {Role.REDIS, Role.PROXY, Role.GATEWAY}


@dataclass(frozen=True)
class Peer:
    """Who a certificate is for."""

    name: str
    role: Role
    site: str | None = None
    addresses: tuple[str, ...] = ()
    """Host names and IP addresses at which it answers."""


def make_authority(name: str, days: int, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key and its self-signed certificate, good for signing peers and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def certify(
    peer: Peer,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    until: datetime,
    now: datetime,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A new key for a peer and the certificate of it, valid until then but no longer than the authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    units = [str(peer.role), *([peer.site] if peer.site else [])]
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, peer.name),
            *(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units),
        ]
    )
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if peer.role.serves else [])]
    builder = (
        _builder(subject, authority.subject, key, now, min(until, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(peer)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )
    return key, builder.sign(authority_key, hashes.SHA256())


def revocations(
    revoked: Iterable[tuple[int, datetime]],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateRevocationList:
    """The signed list of revoked serial numbers, as good as the authority is: an old list must not stop a fleet."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - BACKDATED)
        .next_update(authority.not_valid_after_utc)
    )
    for serial, since in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority_key, hashes.SHA256())


def peer_of(certificate: x509.Certificate) -> Peer:
    """The reverse of `certify`; raises `ValueError` for a certificate that isn't one of the fleet's peers."""
    subject = certificate.subject
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    units = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if len(names) != 1 or not units:
        raise ValueError("it names no peer of a fleet")
    site = units[1] if len(units) > 1 else None
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [
        *alternatives.get_values_for_type(x509.DNSName),
        *map(str, alternatives.get_values_for_type(x509.IPAddress)),
    ]
    return Peer(names[0], Role(units[0]), site, tuple(address for address in addresses if address != names[0]))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM, for a file that one user alone may read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def now_utc() -> datetime:
    """Now, to the second, as certificates count."""
    return datetime.now(UTC).replace(microsecond=0)


def _names(peer: Peer) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(peer.name)]
    for address in peer.addresses:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=since - BACKDATED,
        not_valid_after=until,
    )
