"""What comes before a repository is open: its store, its configuration, and the keys that a credential gives.

Trying a passphrase takes a sixth of a second on purpose, without the interpreter's lock. So this imports little of
the package: a command unlocks in a thread while it loads the rest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from proxy_worker.contract.gateway_address import SCHEME
from proxy_worker.link.errors import LinkCertificateError
from proxy_worker.link.identity import CERTIFICATE_VARIABLE, Identity
from proxy_worker.repository import passphrases
from proxy_worker.repository.config import Config, load_config
from proxy_worker.repository.credentials import Credential, KeyFile, load_access_key
from proxy_worker.repository.errors import (
    RepositoryNotFoundError,
    RevokedKeyError,
    WrongKeyError,
    WrongPassphraseError,
)
from proxy_worker.repository.keyring import Keyring, Secrets
from proxy_worker.repository.rotation import unlocked_whole
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.local import LocalStore

OBJECT_STORE: Final = "s3://"
"""What the locations of repositories in object storage begin with."""
_ELSEWHERE: Final = (OBJECT_STORE, SCHEME)


@dataclass(frozen=True)
class Unlocked:
    """What a repository says of itself, and the keys to it."""

    config: Config
    keyring: Keyring
    secrets: Secrets | None
    """Everything, when a passphrase (or no encryption) opened it; None with a key file."""


def open_store(
    location: str,
    *,
    access_key_file: Path | None = None,
    identity: Identity | None = None,
    networks: Sequence[str] = (),
) -> Store:
    """The store at a location: a folder, an `s3://` URL, with an access key where a file holds one, or what a
    gateway offers, with a certificate, by default the one that the environment names, over one of the `networks`
    that it has an address in.

    Raises `RepositoryNotFoundError` when a folder isn't there, `StoreUrlError`, `KeyFileError`,
    `GatewayAddressError`, `LinkCertificateError`.
    """
    if not location.startswith(_ELSEWHERE) and not Path(location).is_dir():
        raise RepositoryNotFoundError(
            f"repository {location}",
            why="there is no such folder",
            remedy="Check the path; is its file system mounted?",
        )
    return store_at(location, access_key_file=access_key_file, identity=identity, networks=networks)


def store_at(
    location: str,
    *,
    access_key_file: Path | None = None,
    identity: Identity | None = None,
    networks: Sequence[str] = (),
) -> Store:
    """The store at a location, whether or not there is anything; otherwise as `open_store`."""
    if location.startswith(SCHEME):
        return _remote(location, identity or Identity.of_environment(os.environ), networks)
    if not location.startswith(OBJECT_STORE):
        return LocalStore(Path(location))
    from proxy_worker.repository.store.objects import ObjectStore  # noqa: PLC0415 - heavy, and rarely wanted

    return ObjectStore(location, access_key=load_access_key(access_key_file) if access_key_file else None)


def _remote(location: str, identity: Identity | None, networks: Sequence[str]) -> Store:
    if identity is None:
        raise LinkCertificateError(
            f"repository {location}",
            why="a gateway wants to see a certificate",
            remedy=f"Name one in ${CERTIFICATE_VARIABLE}, or in proxy.toml: `scheduler pki issue` makes it.",
        )
    from proxy_worker.repository.store.remote import RemoteStore  # noqa: PLC0415 - heavy, and rarely wanted

    return RemoteStore(location, identity, networks=networks)


def unlock(store: Store, credential: Credential) -> Unlocked:
    """The keys that a credential gives, if they are this repository's.

    Raises `RepositoryNotFoundError`, `RepositoryVersionError`, `RepositoryDamageError`, `CredentialError`s.
    """
    config = load_config(store)
    if credential.key:
        return Unlocked(config, _of_now(_pinned(store, config, credential.key), config), None)
    what = f"repository {store.location}"
    if config.open_secrets and credential.passphrase is None:
        secrets = config.open_secrets
    elif config.open_secrets:
        # A store could put such a configuration in the place of an encrypted one, to be sent blocks in clear.
        raise WrongPassphraseError(
            what,
            why="it is not encrypted, although a passphrase is given",
            remedy="If it should be, its configuration was exchanged: find out by whom. Else give no passphrase.",
        )
    elif credential.passphrase is None:
        raise WrongPassphraseError(what, why="it is encrypted", remedy="Give a passphrase file or a key file.")
    else:
        secrets, _ = passphrases.unlock(store, credential.passphrase, config.repository_id)
        secrets = unlocked_whole(store, config, credential.passphrase, secrets)
    if secrets.root_public_key != config.root_public_key:
        raise WrongKeyError(what, why="its configuration is not signed by the root key that its keys hold")
    return Unlocked(config, _of_now(secrets.keyring(config.repository_id_bytes), config), secrets)


def _of_now(keyring: Keyring, config: Config) -> Keyring:
    """New blocks are sealed to the pair that is in force, whatever a key file or an unfinished rotation says."""
    return replace(keyring, data_public_key=config.data_public_keys[0])


def _pinned(store: Store, config: Config, key: KeyFile) -> Keyring:
    what = f"repository {store.location}"
    if key.repository_id != config.repository_id or key.root_public_key != config.root_public_key:
        raise WrongKeyError(
            what, why=f"the key is of repository {key.repository_id}, this is {config.repository_id}"
        )
    if config.generation < key.least_generation:
        raise WrongKeyError(
            what,
            why=f"its configuration is generation {config.generation}, the key knows {key.least_generation}",
            remedy="Somebody has put back an old copy; find out who before writing to it.",
        )
    keyring = key.keyring()
    writer = keyring.identity.body
    if writer.writer_id in config.revoked:
        raise RevokedKeyError(
            what,
            why=f"the {key.kind} key {writer.label} ({writer.writer_id.hex()}) was revoked",
            remedy="Make a new one with `proxy-worker repository keys export-write`.",
        )
    return keyring
