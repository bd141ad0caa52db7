"""The keys of a repository, and what each allows.

| key | allows |
|---|---|
| id key | computing block ids: finding duplicates, guarding against altered content |
| metadata key | reading and writing tables, fragments, segments, maps and points |
| data key pair | public: sealing a pack's data key; private: opening it, and so reading blocks |
| root key pair | signing the configuration and writers' certificates |

A write key is the first two with the public halves; a read key adds the data key pair's private half; a passphrase
unlocks them all.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property

import blake3
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from proxy_worker.repository.identity import Identity, issue_identity
from proxy_worker.repository.store import Buffer

KEY_BYTES = 32
ID_BYTES = 32
ZERO_ID = bytes(ID_BYTES)
"""The id that stands for a block, or a segment, of zeros."""
OWNER_GROUP = "owner"
"""The trust group of whoever holds the passphrase; every writer deduplicates against its packs."""


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a passphrase unlocks."""

    id_key: bytes
    metadata_key: bytes
    root_private_key: bytes
    data_private_keys: tuple[bytes, ...]
    """Newest first; older ones stay to read what was sealed to them."""

    def __repr__(self) -> str:
        return "Secrets(…)"

    @classmethod
    def generate(cls) -> Secrets:
        """Fresh random keys."""
        return cls(
            id_key=secrets.token_bytes(KEY_BYTES),
            metadata_key=secrets.token_bytes(KEY_BYTES),
            root_private_key=Ed25519PrivateKey.generate().private_bytes_raw(),
            data_private_keys=(X25519PrivateKey.generate().private_bytes_raw(),),
        )

    @property
    def root_key(self) -> Ed25519PrivateKey:
        """Signs the configuration and certificates."""
        return Ed25519PrivateKey.from_private_bytes(self.root_private_key)

    @property
    def root_public_key(self) -> bytes:
        """The half that credentials pin."""
        return self.root_key.public_key().public_bytes_raw()

    @property
    def data_public_keys(self) -> tuple[bytes, ...]:
        """The halves that the configuration names, newest first."""
        return tuple(
            X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
            for key in self.data_private_keys
        )

    def keyring(self, repository_id: bytes) -> Keyring:
        """What the owner works with: everything, under an identity made for this process."""
        return Keyring(
            repository_id=repository_id,
            id_key=self.id_key,
            metadata_key=self.metadata_key,
            root_public_key=self.root_public_key,
            data_public_key=self.data_public_keys[0],
            identity=issue_identity(self.root_key, repository_id, label="owner", group=OWNER_GROUP),
            data_private_keys=self.data_private_keys,
        )


@dataclass(frozen=True)
class Keyring:
    """The keys that an open repository works with."""

    repository_id: bytes
    id_key: bytes = field(repr=False)
    metadata_key: bytes = field(repr=False)
    root_public_key: bytes
    data_public_key: bytes
    identity: Identity = field(repr=False)
    data_private_keys: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def can_read(self) -> bool:
        """Whether blocks can be read, not only added."""
        return bool(self.data_private_keys)

    def block_id(self, block: Buffer) -> bytes:
        """The keyed BLAKE3 of a plain block."""
        return blake3.blake3(block, key=self.id_key).digest()

    def segment_id(self, ids: Buffer) -> bytes:
        """The name of a segment's content."""
        return blake3.blake3(ids, key=self._segment_key).digest()

    def map_id(self, encoded: Buffer) -> bytes:
        """The name of an encoded disk map."""
        return blake3.blake3(encoded, key=self._map_key).digest()

    @cached_property
    def recipient(self) -> X25519PublicKey:
        """Whom data keys are sealed to."""
        return X25519PublicKey.from_public_bytes(self.data_public_key)

    @cached_property
    def openers(self) -> dict[bytes, X25519PrivateKey]:
        """The private keys by the id of their public half."""
        keys = [X25519PrivateKey.from_private_bytes(key) for key in self.data_private_keys]
        return {public_key_id(key.public_key().public_bytes_raw()): key for key in keys}

    @cached_property
    def _segment_key(self) -> bytes:
        return blake3.blake3(self.id_key, derive_key_context="proxyfleet 1 segment id").digest()

    @cached_property
    def _map_key(self) -> bytes:
        return blake3.blake3(self.id_key, derive_key_context="proxyfleet 1 disk map id").digest()


def public_key_id(public_key: bytes) -> bytes:
    """16 bytes that name a public key."""
    return blake3.blake3(public_key).digest(16)
