"""The configuration object: what a repository is, signed by its root key."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from proxy_worker.repository import documents
from proxy_worker.repository.errors import (
    RepositoryDamageError,
    RepositoryExistsError,
    RepositoryNotFoundError,
    RepositoryVersionError,
)
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.store import Store, StoreMissingError
from proxy_worker.repository.store.locks import ObjectLock, lock_objects

FORMAT: Final = "proxyfleet repository"
VERSION: Final = 1
EXTENDED_VERSION: Final = 2
"""Of repositories that ask more of those who write to them than version 1 does."""
BLOCKS_PER_SEGMENT: Final = 4096
REPOSITORY_ID_BYTES: Final = 16
_DOMAIN: Final = b"proxyfleet 1 configuration\0"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest generation counts."""

    format: str
    version: int
    generation: int
    repository_id: str
    """32 hex digits."""
    created_at: int
    block_size: int
    """Bytes, a power of two from 64 KiB to 4 MiB."""
    blocks_per_segment: int
    cipher: Literal["aes-256-gcm", "none"]
    root_public_key: bytes
    data_public_keys: tuple[bytes, ...]
    """Newest first: data keys are sealed to the first."""
    revoked_writers: tuple[str, ...] = ()
    """Ids, in hex, of writers whose packs, fragments and points no longer count."""
    open_secrets: Secrets | None = None
    """The keys in clear, when the repository isn't encrypted."""
    object_lock: ObjectLock | msgspec.UnsetType = msgspec.UNSET
    """How its objects are locked; not there when they aren't."""
    parity: Parity | msgspec.UnsetType = msgspec.UNSET
    """How much parity its packs have; not there when they have none."""
    signature: bytes = b""

    @property
    def repository_id_bytes(self) -> bytes:
        """16 bytes."""
        return bytes.fromhex(self.repository_id)

    @property
    def revoked(self) -> frozenset[bytes]:
        """The ids of writers that have been shut out."""
        return frozenset(bytes.fromhex(writer) for writer in self.revoked_writers)


class _Versioned(msgspec.Struct):
    format: str
    version: int


def name_of(generation: int) -> str:
    """The name of a generation's object."""
    return f"config/{generation}"


def version_of(config: Config) -> int:
    """The least version that knows all that a configuration asks for."""
    return EXTENDED_VERSION if config.object_lock or config.parity else VERSION


def encode_config(config: Config, root_key: Ed25519PrivateKey) -> bytes:
    """Sign and encode."""
    return documents.encode(msgspec.structs.replace(config, signature=root_key.sign(_message(config))))


def require_none(store: Store) -> None:
    """Raise `RepositoryExistsError` where there is a repository already, of whatever keys."""
    with suppress(StoreMissingError):  # an empty folder
        if any(True for _ in store.list("config/")):
            raise RepositoryExistsError(f"repository {store.location}", why="there is one here already")


def load_config(store: Store) -> Config:
    """The newest generation, self-consistent; whether its root key is the right one is for the credential to say.

    What is put into the store from now on is locked as it says. Raises `RepositoryNotFoundError`,
    `RepositoryVersionError`, `RepositoryDamageError`.
    """
    names: list[str] = []
    with suppress(StoreMissingError):  # the same to whoever looks for a repository
        names.extend(store.list("config/"))
    generations = [int(part) for name in names if (part := name.partition("/")[2]).isdigit()]
    if not generations:
        raise RepositoryNotFoundError(
            f"repository {store.location}",
            why="there is none here",
            remedy="Check the path; is its file system mounted? `proxy-worker repository init` makes one.",
        )
    name = name_of(max(generations))
    config = decode_config(store.get(name), name, store.location)
    if config.object_lock:
        lock_objects(store, config.object_lock)
    return config


def decode_config(data: bytes, name: str, location: str) -> Config:
    """Decode and verify one generation."""
    what = f"{name} in {location}"
    try:
        versioned = msgspec.json.decode(data, type=_Versioned)
        if versioned.format != FORMAT or versioned.version not in (VERSION, EXTENDED_VERSION):
            raise RepositoryVersionError(
                what,
                why=f"it says {versioned.format[:40]!r} version {versioned.version}, this knows up to version "
                f"{EXTENDED_VERSION}",
                remedy="Use the version of proxy-worker that made the repository, or a later one.",
            )
        config = documents.decode(data, Config)
        Ed25519PublicKey.from_public_bytes(config.root_public_key).verify(config.signature, _message(config))
        if config.version != version_of(config):
            raise RepositoryDamageError(what, why="what it asks for isn't of its version")
        if name != name_of(config.generation) or len(config.repository_id_bytes) != REPOSITORY_ID_BYTES:
            raise RepositoryDamageError(what, why="it is not the object of that name")
    except (msgspec.MsgspecError, ValueError, InvalidSignature) as error:
        why = str(error) or "its signature is wrong"
        raise RepositoryDamageError(
            what, why=why, remedy="Restore this file from a copy of the repository."
        ) from error
    return config


def _message(config: Config) -> bytes:
    return _DOMAIN + documents.encode(msgspec.structs.replace(config, signature=b""))
