"""Who wrote what: every writer signs its tables, fragments and points with a key that the root key has certified.

So one proxy's writes can be told from another's, kept out of deduplication by its trust group, and shut out
later by putting the writer's id on the configuration's list.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_CERTIFICATE_DOMAIN: Final = b"proxyfleet 1 writer certificate\0"
_OBJECT_DOMAIN: Final = b"proxyfleet 1 signed object\0"
_REMEMBERED: Final = 1024
"""Certificates. Each process that opens a repository by passphrase has one of its own."""


class SignatureError(ValueError):
    """A signature or certificate isn't right; the message says what."""


class RevokedSignatureError(SignatureError):
    """The signature is right, and its writer has been shut out."""


class CertificateBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the root key vouches for."""

    writer_id: bytes
    label: str
    group: str
    public_key: bytes
    issued_at: int


class Certificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A body as it was signed."""

    body: bytes
    signature: bytes


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed content."""

    payload: bytes
    certificate: bytes
    signature: bytes


@dataclass(frozen=True)
class Identity:
    """A writer's own key and certificate."""

    private_key: bytes = field(repr=False)
    certificate: bytes

    @property
    def body(self) -> CertificateBody:
        """What the certificate says."""
        certificate = msgspec.msgpack.decode(self.certificate, type=Certificate)
        return msgspec.msgpack.decode(certificate.body, type=CertificateBody)

    def sign(self, repository_id: bytes, name: str, payload: bytes) -> bytes:
        """`payload` in an envelope, bound to the repository and the object's name."""
        key = Ed25519PrivateKey.from_private_bytes(self.private_key)
        signature = key.sign(_object_message(repository_id, name, payload))
        return msgspec.msgpack.encode(Envelope(payload, self.certificate, signature))


def issue_identity(root_key: Ed25519PrivateKey, repository_id: bytes, *, label: str, group: str) -> Identity:
    """A new writer."""
    key = Ed25519PrivateKey.generate()
    body = msgspec.msgpack.encode(
        CertificateBody(
            writer_id=secrets.token_bytes(16),
            label=label,
            group=group,
            public_key=key.public_key().public_bytes_raw(),
            issued_at=int(time.time()),
        )
    )
    signature = root_key.sign(_CERTIFICATE_DOMAIN + repository_id + body)
    certificate = msgspec.msgpack.encode(Certificate(body, signature))
    return Identity(private_key=key.private_bytes_raw(), certificate=certificate)


class SignatureVerifier:
    """Verifies envelopes against the root key. Thread-safe; remembers certificates it has verified."""

    def __init__(self, root_public_key: bytes, repository_id: bytes, revoked_writers: frozenset[bytes]) -> None:
        self._root = Ed25519PublicKey.from_public_bytes(root_public_key)
        self._repository_id = repository_id
        self._revoked = revoked_writers
        self._known: dict[bytes, tuple[CertificateBody, Ed25519PublicKey]] = {}
        self._lock = threading.Lock()

    def open_claimed(self, data: bytes) -> tuple[bytes, CertificateBody]:
        """The payload and who is said to have signed it: for what something else vouches for. Raises as `open`."""
        try:
            envelope = msgspec.msgpack.decode(data, type=Envelope)
            certificate = msgspec.msgpack.decode(envelope.certificate, type=Certificate)
            body = msgspec.msgpack.decode(certificate.body, type=CertificateBody)
        except msgspec.MsgspecError as error:
            raise SignatureError("it is not a signed object") from error
        self._require_not_revoked(body)
        return envelope.payload, body

    def open(self, name: str, data: bytes) -> tuple[bytes, CertificateBody]:
        """The payload and its signer; raises `SignatureError`, also for a writer that has been shut out."""
        try:
            envelope = msgspec.msgpack.decode(data, type=Envelope)
            body, key = self._certified(envelope.certificate)
            key.verify(envelope.signature, _object_message(self._repository_id, name, envelope.payload))
        except msgspec.MsgspecError as error:
            raise SignatureError("it is not a signed object") from error
        except InvalidSignature as error:
            raise SignatureError("its signature is wrong") from error
        self._require_not_revoked(body)
        return envelope.payload, body

    def _require_not_revoked(self, body: CertificateBody) -> None:
        if body.writer_id in self._revoked:
            raise RevokedSignatureError(f"its writer {body.label} ({body.writer_id.hex()}) has been shut out")

    def _certified(self, certificate: bytes) -> tuple[CertificateBody, Ed25519PublicKey]:
        with self._lock:
            if known := self._known.get(certificate):
                return known
        signed = msgspec.msgpack.decode(certificate, type=Certificate)
        self._root.verify(signed.signature, _CERTIFICATE_DOMAIN + self._repository_id + signed.body)
        body = msgspec.msgpack.decode(signed.body, type=CertificateBody)
        known = body, Ed25519PublicKey.from_public_bytes(body.public_key)
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[certificate] = known
        return known


def _object_message(repository_id: bytes, name: str, payload: bytes) -> bytes:
    return b"".join((_OBJECT_DOMAIN, repository_id, name.encode(), b"\0", payload))
