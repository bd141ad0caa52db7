"""Sealing of metadata: everything but blocks.

Each object, table and metadata chunk has its own key, HKDF-SHA256(metadata key, a random salt), so that the
nonce can be constant; additional data is the repository's id and the object's name, so that nothing can be
moved or swapped. A sealed object ends in an XXH3-128 of its bytes, which finds damage without a key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

import xxhash
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy_worker.repository.errors import RepositoryDamageError, ShutOutError
from proxy_worker.repository.identity import (
    CertificateBody,
    RevokedSignatureError,
    SignatureError,
    SignatureVerifier,
)
from proxy_worker.repository.keyring import KEY_BYTES, Keyring
from proxy_worker.repository.store import Buffer

OBJECT_MAGIC: Final = b"PFOBJ\x00\x00\x01"
CHECKSUM_BYTES: Final = 16
SALT_BYTES: Final = 32
TAG_BYTES: Final = 16
SEAL_BYTES: Final = SALT_BYTES + TAG_BYTES
"""What sealing adds to a piece of metadata."""
_NONCE: Final = bytes(12)
_INFO: Final = b"proxyfleet 1 metadata"


class MetadataSealer:
    """Seals and opens the metadata of one repository. Thread-safe."""

    def __init__(self, keyring: Keyring, verifier: SignatureVerifier, location: str) -> None:
        self._keyring = keyring
        self._verifier = verifier
        self._location = location

    def seal(self, name: str, plain: Buffer) -> bytes:
        """Seal a piece of metadata that is kept under, or within, `name`."""
        salt = secrets.token_bytes(SALT_BYTES)
        return salt + self._cipher(salt).encrypt(_NONCE, plain, self._bound(name))

    def open(self, name: str, sealed: Buffer) -> bytes:
        """The reverse of `seal`; raises `RepositoryDamageError`."""
        salt, ciphertext = bytes(sealed[:SALT_BYTES]), sealed[SALT_BYTES:]
        try:
            return self._cipher(salt).decrypt(_NONCE, ciphertext, self._bound(name))
        except (InvalidTag, ValueError) as error:
            raise self.damage(name, "it was altered, cut, or sealed as something else") from error

    def seal_signed(self, name: str, payload: bytes) -> bytes:
        """Seal metadata in an envelope that this writer signs."""
        return self.seal(name, self._keyring.identity.sign(self._keyring.repository_id, name, payload))

    def open_signed(self, name: str, sealed: Buffer) -> tuple[bytes, CertificateBody]:
        """The reverse of `seal_signed`, with the signer."""
        return self._enveloped(name, partial(self._verifier.open, name), sealed)

    def open_claimed(self, name: str, sealed: Buffer) -> tuple[bytes, CertificateBody]:
        """The same without verifying the signature: for what something else vouches for."""
        return self._enveloped(name, self._verifier.open_claimed, sealed)

    def _enveloped(
        self, name: str, take_out: Callable[[bytes], tuple[bytes, CertificateBody]], sealed: Buffer
    ) -> tuple[bytes, CertificateBody]:
        try:
            return take_out(self.open(name, sealed))
        except RevokedSignatureError as error:
            raise ShutOutError(f"{name} in {self._location}", why=str(error)) from error
        except SignatureError as error:
            raise self.damage(name, str(error)) from error

    def seal_object(self, name: str, payload: bytes) -> bytes:
        """A whole object: magic, signed and sealed payload, checksum."""
        body = OBJECT_MAGIC + self.seal_signed(name, payload)
        return body + xxhash.xxh3_128_digest(body)

    def open_object(self, name: str, data: bytes) -> tuple[bytes, CertificateBody]:
        """The reverse of `seal_object`; raises `RepositoryDamageError`."""
        if problem := object_problem(data):
            raise self.damage(name, problem)
        return self.open_signed(name, memoryview(data)[len(OBJECT_MAGIC) : -CHECKSUM_BYTES])

    def damage(self, name: str, why: str) -> RepositoryDamageError:
        """The error for an object of this repository that isn't right."""
        return RepositoryDamageError(
            f"{name} in {self._location}", why=why, remedy="`proxy-worker repository check` says what needs it."
        )

    def _cipher(self, salt: bytes) -> AESGCM:
        kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO)
        return AESGCM(kdf.derive(self._keyring.metadata_key))

    def _bound(self, name: str) -> bytes:
        return self._keyring.repository_id + name.encode()


def object_problem(data: bytes) -> str | None:
    """What is wrong with a sealed object, as far as can be told without a key; None if nothing."""
    if not data.startswith(OBJECT_MAGIC):
        return "it does not begin as an object of this format"
    if len(data) < len(OBJECT_MAGIC) + SEAL_BYTES + CHECKSUM_BYTES:
        return "it is cut short"
    if xxhash.xxh3_128_digest(memoryview(data)[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
        return "its checksum is wrong"
    return None
