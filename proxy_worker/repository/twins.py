"""Twins: repositories of the same id and keys, so that what is sealed for one opens in the other.

Block ids depend on the id key, and everything sealed on the repository's id. Only where both are the same can a
restore point be carried over by somebody who can't read it. Keys that were handed out for one open the other too;
what is revoked or rotated later in one isn't in the other.
"""

from __future__ import annotations

import time

import msgspec

from proxy_worker.repository import passphrases
from proxy_worker.repository.config import encode_config, name_of, require_none, version_of
from proxy_worker.repository.errors import CannotReadError, RepositoryExistsError
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.locks import ObjectLock, begin_locking
from proxy_worker.repository.unlocking import Unlocked


def make_twin(
    store: Store,
    original: Repository,
    *,
    passphrase: bytes | None,
    kdf_cost: passphrases.KdfCost | None = None,
    object_lock: ObjectLock | None = None,
) -> Repository:
    """Make an empty repository like `original`, whose passphrase it has, in an empty store, with locks of its own.

    Raises `RepositoryExistsError`, `CannotReadError` where a key file opened the original,
    `ObjectLockRefusedError`, `StoreError`.
    """
    secrets, config = original.unlocked, original.access.config
    if secrets is None:
        raise CannotReadError(
            f"repository {store.location}",
            why="what a key file holds isn't enough to make another repository",
            remedy="Use the passphrase.",
        )
    require_none(store)
    if object_lock is not None:
        begin_locking(store, object_lock)
    store.prepare()
    # Key files accept no configuration of an earlier generation than the one that they were made under.
    made = msgspec.structs.replace(config, created_at=int(time.time()), object_lock=object_lock or msgspec.UNSET)
    made = msgspec.structs.replace(made, version=version_of(made))
    if passphrase is not None:
        key = passphrases.wrap(
            secrets, passphrase, repository_id=config.repository_id, label="first", cost=kdf_cost
        )
        passphrases.add(store, key)
    if not store.put_if_absent(name_of(made.generation), [encode_config(made, secrets.root_key)]):
        raise RepositoryExistsError(f"repository {store.location}", why="another one was made here just now")
    return Repository(store, Unlocked(made, secrets.keyring(config.repository_id_bytes), secrets))


def share_ids(one: Repository, other: Repository) -> bool:
    """Whether the same content has the same id in both, cut in the same way, and is sealed or not in both."""
    return one.access.keyring.id_key == other.access.keyring.id_key and (
        one.block_size,
        one.access.config.blocks_per_segment,
        one.access.encrypted,
    ) == (other.block_size, other.access.config.blocks_per_segment, other.access.encrypted)
