"""Changing a repository's configuration: the next generation, signed by the root key, which everybody honours."""

from __future__ import annotations

import msgspec

from proxy_worker.repository import documents
from proxy_worker.repository.config import Config, encode_config, name_of
from proxy_worker.repository.errors import ConfigurationChangedError
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.store import ObjectNotFoundError, Store


def publish_next(store: Store, config: Config, unlocked: Secrets, **changes: object) -> Config:
    """Publish the generation after `config` with these fields changed; one step, done or not done.

    Raises `ConfigurationChangedError` if somebody else has published another one meanwhile.
    """
    following = msgspec.structs.replace(config, generation=config.generation + 1, **changes)
    name, encoded = name_of(following.generation), encode_config(following, unlocked.root_key)
    # The signature is deterministic: the same bytes under that name are this call's own, after a lost reply.
    if not store.put_if_absent(name, [encoded]) and store.get(name) != encoded:
        raise ConfigurationChangedError(
            f"configuration of {store.location}",
            why="somebody else has changed it just now",
            remedy="See what has changed with `proxy-worker repository keys list`, then do it again.",
        )
    return following


def is_newest(store: Store, config: Config) -> bool:
    """Whether that is still what the repository says of itself: processes that stay open ask before each task.

    It isn't where a later generation was published; and where another repository is in its place, made anew or on
    another disk that is mounted there, or none: what was written with its keys nobody could read.
    """
    try:
        held = store.get(name_of(config.generation))
    except ObjectNotFoundError:
        return False
    return held == documents.encode(config) and not store.exists(name_of(config.generation + 1))
