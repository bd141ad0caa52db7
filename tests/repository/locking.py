"""A repository whose objects are locked in a bucket, and what its owner and an intruder do to that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from proxy_worker.repository.parity import Parity
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.locks import ObjectLock
from proxy_worker.repository.store.objects import ObjectStore
from tests.repository.making import BLOCK, CHEAP, PASSPHRASE
from tests.simulators.object_storage import ACCESS_KEY, LOCKING_BUCKET, ObjectStorage

DAYS: Final = 30
_DAY_S: Final = 24 * 3600
DEADLINE_S: Final = 120.0
GOVERNANCE: Final = ObjectLock("governance", DAYS)


@dataclass
class Vault:
    """A repository whose objects are locked, and the owner of its bucket."""

    server: ObjectStorage
    store: ObjectStore
    repository: Repository

    def names(self, *prefixes: str) -> list[str]:
        return [name for prefix in prefixes for name in self.store.list(prefix)]

    def days_left(self, name: str) -> float:
        assert self.store.locks is not None
        return (self.store.locks.locked_until(name) - time.time()) / _DAY_S

    def days_left_of_original(self, name: str) -> float:
        """The same of the oldest version, whatever is on top of it."""
        (versions,) = self.store.versions.below(name)
        oldest = [one for one in versions if one.etag][-1]
        return (self.store.versions.locked_until(name, oldest.version_id) - time.time()) / _DAY_S

    def let_time_pass(self, names: list[str], *, days_left: float) -> None:
        """Shorten locks, as only the owner may, and only in governance mode, as if most of a period had passed."""
        for name in names:
            assert self._shorten(name, days_left * _DAY_S)

    def let_locks_end(self, names: list[str]) -> None:
        """The same, and wait: the server takes no time that is over."""
        deadline = time.monotonic() + DEADLINE_S
        for name in names:
            while not self._shorten(name, 2.0):
                assert time.monotonic() < deadline
        while any(self.days_left(name) > 0 for name in names):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _shorten(self, name: str, left_s: float) -> bool:
        until = datetime.fromtimestamp(time.time() + left_s, UTC).replace(microsecond=0)
        owner = self.server.client()
        try:
            owner.put_object_retention(
                Bucket=LOCKING_BUCKET, Key=self.key_of(name), BypassGovernanceRetention=True,
                Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
            )  # fmt: skip
        except owner.exceptions.ClientError:
            return False
        return True

    def key_of(self, name: str) -> str:
        prefix = self.store.location.partition("?")[0].partition(f"{LOCKING_BUCKET}/")[2]
        return f"{prefix}/{name}"

    def versions(self, prefix: str) -> int:
        return sum(len(versions) for versions in self.store.versions.below(prefix))


def make_vault(server: ObjectStorage, lock: ObjectLock = GOVERNANCE, parity: Parity | None = None) -> Vault:
    """Make one, in a place of its own."""
    store = ObjectStore(server.locking_url(), access_key=ACCESS_KEY)
    made = Repository.create(
        store, passphrase=PASSPHRASE, block_size=BLOCK, blocks_per_segment=4, kdf_cost=CHEAP, object_lock=lock,
        parity=parity,
    )  # fmt: skip
    return Vault(server, store, made)


def intruder(vault: Vault) -> ObjectStore:
    """Somebody with a key of the store: what they put isn't locked, what they delete goes out of sight."""
    return ObjectStore(vault.store.location, access_key=ACCESS_KEY)
