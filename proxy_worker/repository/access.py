"""What an open repository gives to those who read, write and check it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import blake3

from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.repository.config import Config
from proxy_worker.repository.identity import SignatureVerifier
from proxy_worker.repository.index import Index
from proxy_worker.repository.keyring import Keyring
from proxy_worker.repository.parity import Parity
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import Store


@dataclass(frozen=True)
class Access:
    """A store with the keys to it."""

    store: Store
    config: Config
    keyring: Keyring
    sealer: MetadataSealer
    index: Index
    cache_folder: Path | None
    """Where a cache of what this repository holds may be kept between processes; None for nowhere."""

    @classmethod
    def of(cls, store: Store, config: Config, keyring: Keyring, cache_dir: Path | None) -> Access:
        """Put the parts together; `cache_dir` keeps the index between processes."""
        verifier = SignatureVerifier(config.root_public_key, keyring.repository_id, config.revoked)
        sealer = MetadataSealer(keyring, verifier, store.location)
        cached_as = f"{config.repository_id}-{blake3.blake3(_place(store).encode()).hexdigest(4)}"
        index = Index(store, sealer, cached_as=cached_as, generation=config.generation, cache_dir=cache_dir)
        return cls(store, config, keyring, sealer, index, cache_dir / cached_as if cache_dir else None)

    @contextmanager
    def freshly_indexed(self) -> Iterator[Access]:
        """The same, with an index of its own: a cached one doesn't notice what has happened to fragments since."""
        with ScratchFolder("index") as folder:
            fresh = Access.of(self.store, self.config, self.keyring, folder)
            fresh.index.refresh()
            try:
                yield fresh
            finally:
                fresh.index.close()

    @property
    def encrypted(self) -> bool:
        """Whether blocks are sealed."""
        return self.config.cipher != "none"

    @property
    def parity(self) -> Parity | None:
        """How much parity packs have, if any."""
        return self.config.parity or None

    @property
    def block_size(self) -> int:
        """Bytes."""
        return self.config.block_size


def _place(store: Store) -> str:
    """Where it lies, a folder in one way however it was named: each place has a cache of its own."""
    return store.location if "://" in store.location else os.path.abspath(store.location)  # noqa: PTH100 - no links
