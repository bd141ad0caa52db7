"""Passphrases: each wraps the same secrets in an object of its own, so any of them can go or change alone."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.repository import documents
from proxy_worker.repository.errors import (
    KeyInUseError,
    KeyNotFoundError,
    RepositoryDamageError,
    WrongPassphraseError,
)
from proxy_worker.repository.keyring import KEY_BYTES, Secrets
from proxy_worker.repository.store import ObjectNotFoundError, ObjectUnreadableError, Store

_one_at_a_time: Final = threading.Lock()
"""Derivations share OpenSSL's one pool of threads: two at once are refused memory, or wait for each other for ever
(cryptography 50.0.2)."""
MAX_COST_KIB: Final = 16 * 1024 * 1024
"""Memory times iterations: a key object that asks for more is refused rather than obeyed."""

_REMEDY: Final = "Restore this file from a copy of the repository, or use another passphrase if there is one."


class EmptyPassphraseError(ConfigurationError):
    """A passphrase has no characters."""


class KdfCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it costs to try a passphrase (Argon2id, RFC 9106)."""

    iterations: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4


class KeyObject(documents.Checksummed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secrets, wrapped under a passphrase."""

    version: int = 1
    key_id: str
    repository_id: str
    label: str
    kdf: str = "argon2id"
    cost: KdfCost
    salt: bytes
    nonce: bytes
    wrapped: bytes


def wrap(
    unwrapped: Secrets, passphrase: bytes, *, repository_id: str, label: str = "", cost: KdfCost | None = None
) -> KeyObject:
    """Wrap under a passphrase, with a fresh salt."""
    if not passphrase:
        raise EmptyPassphraseError("passphrase", why="it is empty", remedy="Choose one of some length.")
    key = KeyObject(
        key_id=secrets.token_hex(8),
        repository_id=repository_id,
        label=label,
        cost=cost or KdfCost(),
        salt=secrets.token_bytes(16),
        nonce=secrets.token_bytes(12),
        wrapped=b"",
    )
    plain = msgspec.msgpack.encode(unwrapped)
    return msgspec.structs.replace(key, wrapped=_cipher(key, passphrase).encrypt(key.nonce, plain, _header(key)))


def add(store: Store, key: KeyObject) -> None:
    """Store a wrapped key."""
    store.replace(f"keys/{key.key_id}", [documents.seal(key)])


def decode_key(data: bytes, name: str, location: str) -> KeyObject:
    """Decode one key object; raises `RepositoryDamageError`."""
    try:
        key = documents.unseal(data, KeyObject)
    except documents.DocumentError as error:
        raise RepositoryDamageError(f"{name} in {location}", why=str(error)) from error
    if name != f"keys/{key.key_id}":
        raise RepositoryDamageError(f"{name} in {location}", why="it is not the object of that name")
    cost = key.cost
    if (
        min(cost.iterations, cost.lanes) < 1
        or not 8 * cost.lanes <= cost.memory_kib <= MAX_COST_KIB // cost.iterations
    ):
        raise RepositoryDamageError(f"{name} in {location}", why="it asks for more work than a passphrase takes")
    return key


def keys(store: Store) -> Iterator[KeyObject]:
    """Every key object that can be read, in the order of their names."""
    return (key for _, key in _loaded(store) if isinstance(key, KeyObject))


def damaged_keys(store: Store) -> dict[str, RepositoryDamageError]:
    """The other ones, by key id: nobody knows whose they are."""
    return {key_id: error for key_id, error in _loaded(store) if isinstance(error, RepositoryDamageError)}


def _loaded(store: Store) -> Iterator[tuple[str, KeyObject | RepositoryDamageError | None]]:
    """Each key id with its object, what is wrong with that, or None if it went just now."""
    for name in sorted(store.list("keys/")):
        key_id = name.partition("/")[2]
        try:
            yield key_id, decode_key(store.get(name), name, store.location)
        except ObjectNotFoundError:
            yield key_id, None
        except ObjectUnreadableError as error:
            what = f"{name} in {store.location}"
            yield key_id, RepositoryDamageError(what, why=f"it can't be read: {error.why}", remedy=_REMEDY)
        except RepositoryDamageError as error:
            yield key_id, RepositoryDamageError(error.what, why=error.why, remedy=_REMEDY)


def unlock(store: Store, passphrase: bytes, repository_id: str) -> tuple[Secrets, str]:
    """The secrets and the id of the key that opened; raises `WrongPassphraseError` or, where a damaged object could
    have been the right one, `RepositoryDamageError`."""
    damage: RepositoryDamageError | None = None
    tried: set[str] = set()
    while untried := {key_id: key for key_id, key in _loaded(store) if key_id not in tried}:
        for key_id, key in untried.items():
            if isinstance(key, RepositoryDamageError):
                damage = key
            elif key and key.repository_id == repository_id:
                unwrapped = try_open(key, passphrase)
                if unwrapped is not None:
                    return unwrapped, key_id
        tried |= untried.keys()  # a rotation or a change of passphrase may have put others in their place
    if damage:
        raise damage
    raise WrongPassphraseError(
        f"repository {store.location}",
        why="none of its keys opens with this passphrase",
        remedy="Check the passphrase file; a repository that isn't encrypted takes none.",
    )


def try_open(key: KeyObject, passphrase: bytes) -> Secrets | None:
    """What a key object holds; None if it is another passphrase's."""
    try:
        plain = _cipher(key, passphrase).decrypt(key.nonce, key.wrapped, _header(key))
    except InvalidTag:
        return None
    return msgspec.msgpack.decode(plain, type=Secrets)


def require_other(store: Store, key_id: str, repository_id: str) -> None:
    """Raise `KeyNotFoundError` unless there is such a key, and `KeyInUseError` if it is the last one.

    Keys that an interrupted `init` has left are of another repository and unlock nothing: they don't count. Nor do
    damaged ones, which may go.
    """
    present = {key.key_id for key in keys(store) if key.repository_id == repository_id}
    damaged = damaged_keys(store)
    subject, remedy = f"key {key_id} of {store.location}", "See `proxy-worker repository keys list`."
    if key_id not in present and key_id not in damaged:
        raise KeyNotFoundError(subject, why="there is no such key", remedy=remedy)
    if not present - {key_id}:
        raise KeyInUseError(subject, why="it is the last: nobody could read the repository", remedy=remedy)


def _cipher(key: KeyObject, passphrase: bytes) -> AESGCM:
    kdf = Argon2id(
        salt=key.salt,
        length=KEY_BYTES,
        iterations=key.cost.iterations,
        lanes=key.cost.lanes,
        memory_cost=key.cost.memory_kib,
    )
    with _one_at_a_time:
        return AESGCM(kdf.derive(passphrase))


def _header(key: KeyObject) -> bytes:
    return documents.encode(msgspec.structs.replace(key, wrapped=b"", checksum=""))
