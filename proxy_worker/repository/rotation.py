"""Rotation of the data key pair: what is stored from now on opens with a new private key only.

1. For every passphrase a second object in `keys/` is put beside the first, with the new private key in it.
2. They are read back. 3. The next configuration names the new public key: that is the rotation, in one step.
4. The objects that lack the new key go.

Stopped before 3, the old pair is in force and the new objects open what the old ones do. Stopped after it, both
objects of a passphrase are there, and opening takes the private keys of both. Nothing is ever rewritten, so that of
two rotations at once one wins whole. Packs that are there keep their data keys, sealed to the old pair; the next
collections seal them anew (`resealing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository import passphrases
from proxy_worker.repository.config import Config, load_config
from proxy_worker.repository.errors import KeyInUseError, NotEncryptedError, RepositoryDamageError, WrongKeyError
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.passphrases import KdfCost, KeyObject
from proxy_worker.repository.reconfiguring import publish_next
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.terms import delete_if_free


class Rotated(NamedTuple):
    """A rotation that is done."""

    generation: int
    key_ids: tuple[str, ...]
    """The objects in `keys/` that there are now."""


class _Opened(NamedTuple):
    key: KeyObject
    passphrase: bytes
    secrets: Secrets


def rotate(store: Store, given: Sequence[bytes], *, cost: KdfCost | None = None) -> Rotated:
    """Make a new data key pair. `given` are all passphrases of the repository, in any order.

    Raises `KeyInUseError` if one of its keys opens with none of them, `WrongPassphraseError`, `NotEncryptedError`,
    `ConfigurationChangedError`, `StoreError`.
    """
    config = load_config(store)
    if config.open_secrets is not None:
        raise NotEncryptedError(
            f"repository {store.location}", why="it isn't encrypted, so there is nothing to rotate"
        )
    opened = _open_all(store, config, given)
    secrets = complete(config, [one.secrets for one in opened])
    fresh = X25519PrivateKey.generate()
    rotated = msgspec.structs.replace(
        secrets, data_private_keys=(fresh.private_bytes_raw(), *secrets.data_private_keys)
    )
    key_ids = []
    for passphrase, label in {one.passphrase: one.key.label for one in opened}.items():
        key = passphrases.wrap(rotated, passphrase, repository_id=config.repository_id, label=label, cost=cost)
        passphrases.add(store, key)
        _require_readable(store, key, passphrase, rotated)
        key_ids.append(key.key_id)
    public = fresh.public_key().public_bytes_raw()
    following = publish_next(store, config, rotated, data_public_keys=(public, *config.data_public_keys))
    for one in opened:
        delete_if_free(store, f"keys/{one.key.key_id}")
    return Rotated(following.generation, tuple(key_ids))


def remove_passphrase(store: Store, key_id: str, *given: bytes) -> None:
    """Remove a passphrase, where another object that opens with one of those `given` has all that it has, or all.

    After a rotation that was stopped there are two objects of each, one of which lacks the newest private key. So
    does one that was added while another process rotated. Raises `KeyNotFoundError`, `KeyInUseError`.
    """
    config = load_config(store)
    passphrases.require_other(store, key_id, config.repository_id)
    opened = _opened_by(store, config, given)
    left = [one.secrets for one in opened if one.key.key_id != key_id]
    if len(left) < len(opened) and left:
        needed = complete(config, [one.secrets for one in opened]).data_public_keys
    else:
        needed = config.data_public_keys
    if not left or complete(config, left).data_public_keys != needed:
        raise KeyInUseError(
            f"key {key_id} of {store.location}",
            why="with this passphrase, what stays doesn't open everything that is stored",
            remedy="Give a passphrase that stays. Where a rotation was stopped, do it again first: `keys rotate`.",
        )
    store.delete(f"keys/{key_id}")


def complete(config: Config, found: Sequence[Secrets]) -> Secrets:
    """The secrets of several objects of one repository as one: all private keys that the configuration knows the
    public half of, newest first.

    Raises `WrongKeyError` when one holds another root key.
    """
    private: dict[bytes, bytes] = {}
    for secrets in found:
        if secrets.root_public_key != config.root_public_key:
            raise WrongKeyError("repository keys", why="they hold another root key than its configuration names")
        private.update(zip(secrets.data_public_keys, secrets.data_private_keys, strict=True))
    known = tuple(private[public] for public in config.data_public_keys if public in private)
    return msgspec.structs.replace(found[0], data_private_keys=known)


def unlocked_whole(store: Store, config: Config, passphrase: bytes, secrets: Secrets) -> Secrets:
    """What a passphrase unlocks, also right after a rotation that left two objects for it.

    `secrets` are those of the object that opened first.
    """
    if secrets.data_public_keys == config.data_public_keys:
        return secrets
    try:
        found = [one.secrets for one in _opened_by(store, config, [passphrase])]
    except DamageError:
        found = []
    return complete(config, [secrets, *found])


def _require_readable(store: Store, key: KeyObject, passphrase: bytes, secrets: Secrets) -> None:
    """What nobody could open any more mustn't come into force."""
    name = f"keys/{key.key_id}"
    if passphrases.try_open(passphrases.decode_key(store.get(name), name, store.location), passphrase) != secrets:
        raise RepositoryDamageError(f"{name} in {store.location}", why="it doesn't read back as it was written")


def _open_all(store: Store, config: Config, given: Sequence[bytes]) -> list[_Opened]:
    if damaged := passphrases.damaged_keys(store):
        raise KeyInUseError(
            f"rotation of {store.location}",
            why=f"{', '.join(damaged)} can't be read, and would be left behind: it is damaged",
            remedy="Restore it from a copy of the repository, or take it out with `keys remove`.",
        )
    opened = _opened_by(store, config, given)
    known = {one.key.key_id for one in opened}
    closed = [key for key in passphrases.keys(store) if key.repository_id == config.repository_id]
    closed = [key for key in closed if key.key_id not in known]
    if closed or not opened:
        named = ", ".join(f"{key.key_id} ({key.label})" if key.label else key.key_id for key in closed)
        raise KeyInUseError(
            f"rotation of {store.location}",
            why=f"these keys open with none of the passphrases that were given: {named}; they would be left behind",
            remedy="Give their passphrases as well (--also-passphrase-file), or remove them first.",
        )
    return opened


def _opened_by(store: Store, config: Config, given: Sequence[bytes]) -> list[_Opened]:
    found = []
    for key in passphrases.keys(store):
        if key.repository_id != config.repository_id:
            continue
        for passphrase in dict.fromkeys(given):
            secrets = passphrases.try_open(key, passphrase)
            if secrets is not None:
                found.append(_Opened(key, passphrase, secrets))
                break
    return found
