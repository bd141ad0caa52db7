"""The scheduler's signing key: made once, kept in the state folder, its public half beside it."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.signing import encode_public_key
from scheduler.configuration import SchedulerConfiguration


class SigningKeyError(CredentialError):
    """The scheduler's signing key can't be read."""


class StateFolderError(ConfigurationError):
    """The state folder can't be made or written."""


def signing_key(configuration: SchedulerConfiguration) -> Ed25519PrivateKey:
    """The private key, made at first use; its public half is (re)written beside it.

    Raises `SigningKeyError` when it can't be read, `StateFolderError` when it can't be kept.
    """
    path = configuration.signing_key_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        key = _load(path) if path.exists() else _make(path)
        public = encode_public_key(key.public_key()) + "\n"
        if not configuration.public_key_path.exists() or configuration.public_key_path.read_text() != public:
            configuration.public_key_path.write_text(public)
    except OSError as error:
        raise StateFolderError(
            f"signing key {path}",
            why=error.strerror or str(error),
            remedy="Check `state_dir` in scheduler.toml and who owns that folder.",
        ) from error
    return key


def _load(path: Path) -> Ed25519PrivateKey:
    remedy = "Restore it from a backup, or remove it: a new one is made, whose public half every proxy.toml needs."
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"signing key {path}", why=str(error), remedy=remedy) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"signing key {path}", why="it is not an Ed25519 key", remedy=remedy)
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Another process may make one at the same time: whoever links first wins, and the file is never half written.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return _load(path)
    finally:
        draft.unlink(missing_ok=True)
    return key
