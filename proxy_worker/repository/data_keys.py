"""Data keys: one per pack, random, sealed to the repository's public key (HPKE, RFC 9180), never reused.

A chunk's nonce is a counter under its pack's key, so a proxy that is reverted to a snapshot can't repeat one: the
pack it goes on with has a new key. Chunks name their key through the pack's table and so may move between packs.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Final

import blake3
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from proxy_worker.repository.errors import CannotReadError, RepositoryDamageError
from proxy_worker.repository.keyring import KEY_BYTES, Keyring, public_key_id
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError, Store

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"proxyfleet 1 data key\0"
_REMEMBERED: Final = 4096
NONCE_BYTES: Final = 12


class SealedDataKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A data key as tables and fragments carry it. Both fields after the id are empty where nothing is
    encrypted."""

    key_id: bytes
    """16 random bytes."""
    recipient: bytes
    """Id of the public key that it is sealed to."""
    sealed: bytes
    """HPKE's encapsulated key and ciphertext."""


def new_data_key(keyring: Keyring) -> tuple[SealedDataKey, AESGCM]:
    """A fresh key, sealed for those who may read."""
    key_id, key = secrets.token_bytes(16), secrets.token_bytes(KEY_BYTES)
    sealed = _SUITE.encrypt(key, keyring.recipient, _INFO + keyring.repository_id + key_id)
    return SealedDataKey(key_id, public_key_id(keyring.data_public_key), sealed), AESGCM(key)


def seal_anew(repository_id: bytes, key_id: bytes, plain: bytes, public_key: bytes) -> bytes:
    """A data key sealed to another public key."""
    return _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public_key), _INFO + repository_id + key_id)


def seal_name(key_id: bytes, recipient: bytes) -> str:
    """The object that holds a data key sealed anew, after the key pair was rotated."""
    return f"seals/{key_id.hex()}/{recipient.hex()}"


def chunk_binding(ids: bytes, codec: int) -> bytes:
    """A chunk's additional data: the digest of its blocks' ids and its codec."""
    return blake3.blake3(ids + bytes((codec,))).digest()


def nonce_of(counter: int) -> bytes:
    """The nonce of the chunk that was the counter-th under its key."""
    return counter.to_bytes(NONCE_BYTES, "big")


class DataKeyOpener:
    """Opens data keys and remembers the last few thousand. Thread-safe."""

    def __init__(self, store: Store, keyring: Keyring, sealer: MetadataSealer) -> None:
        self._store = store
        self._keyring = keyring
        self._sealer = sealer
        # By the whole of it, not its id alone: who holds a write key can seal another key under a pack's id.
        self._known: OrderedDict[SealedDataKey, AESGCM] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, key: SealedDataKey) -> AESGCM:
        """The cipher of a data key; raises `CannotReadError`, `RepositoryDamageError`."""
        with self._lock:
            if cipher := self._known.get(key):
                self._known.move_to_end(key)
                return cipher
        cipher = AESGCM(self.unseal(key))
        with self._lock:
            self._known[key] = cipher
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return cipher

    def unseal_directly(self, key: SealedDataKey) -> bytes:
        """A data key's bytes by its own seal; raises `CannotReadError`, `RepositoryDamageError`."""
        opener = self._keyring.openers.get(key.recipient)
        if opener is None:
            raise self._out_of_date()
        try:
            return _SUITE.decrypt(key.sealed, opener, _INFO + self._keyring.repository_id + key.key_id)
        except (InvalidTag, ValueError) as error:
            raise RepositoryDamageError(
                f"data key {key.key_id.hex()} in {self._store.location}", why="it was altered"
            ) from error

    def unseal(self, key: SealedDataKey) -> bytes:
        """A data key's bytes, by any seal that opens; raises `CannotReadError`, `RepositoryDamageError`."""
        openers = self._keyring.openers
        if not openers:
            raise CannotReadError(
                f"blocks of {self._store.location}",
                why="a write key may add restore points but not read them",
                remedy="Use a passphrase or a read key.",
            )
        candidates = [(key.recipient, key.sealed)] if key.recipient in openers else self._resealed(key)
        if not candidates:
            raise self._out_of_date()
        for recipient, sealed in candidates:
            try:
                plain = _SUITE.decrypt(sealed, openers[recipient], _INFO + self._keyring.repository_id + key.key_id)
            except (InvalidTag, ValueError):
                continue
            if len(plain) == KEY_BYTES:
                return plain
        raise RepositoryDamageError(
            f"data key {key.key_id.hex()} in {self._store.location}", why="none of the private keys here opens it"
        )

    def _out_of_date(self) -> CannotReadError:
        return CannotReadError(
            f"blocks of {self._store.location}",
            why="they are sealed to a data key pair whose private half this key doesn't hold: it was rotated",
            remedy="Make a new read key with `proxy-worker repository keys export-read`, or use the passphrase.",
        )

    def _resealed(self, key: SealedDataKey) -> list[tuple[bytes, bytes]]:
        found = []
        for recipient in self._keyring.openers:
            name = seal_name(key.key_id, recipient)
            try:
                sealed, _ = self._sealer.open_object(name, self._store.get(name))
            except ObjectNotFoundError:
                continue
            found.append((recipient, sealed))
        return found
