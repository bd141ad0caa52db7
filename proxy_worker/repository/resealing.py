"""Sealing the data keys of older packs to the newest public key, after a rotation.

A pack stays as it is; `seals/<data key>/<public key>` is put beside it. So a read key that holds the newest private
key alone opens everything. It takes a key that holds the older private keys too, and is done by every collection
until nothing is left to do; stopped anywhere, the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from proxy_worker.contract.errors import CredentialError, DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.data_keys import DataKeyOpener, SealedDataKey, seal_anew, seal_name
from proxy_worker.repository.keyring import public_key_id
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free


def reseal(access: Access, *, go_on: Callable[[], None] = lambda: None) -> int:
    """Seal what the index knows of to the newest public key; how many data keys that were.

    Without the older private keys nothing is done. `go_on` ends it by raising. Raises `StoreError`.
    """
    if not access.keyring.can_read or len(access.config.data_public_keys) < 2:  # noqa: PLR2004 - the first pair
        return 0
    opener = DataKeyOpener(access.store, access.keyring, access.sealer)
    return sum(_resealed(access, opener, key) for key in _older_keys(access, go_on))


def _older_keys(access: Access, go_on: Callable[[], None]) -> Iterator[SealedDataKey]:
    newest = public_key_id(access.config.data_public_keys[0])
    for run in access.index.runs:
        for number in range(run.pack_count):
            go_on()
            yield from (key for key in run.pack(number).data_keys if key.recipient != newest)


def _resealed(access: Access, opener: DataKeyOpener, key: SealedDataKey) -> bool:
    """Whether a seal was put. One that is damaged, or holds another key than the pack's, is replaced."""
    public = access.config.data_public_keys[0]
    name = seal_name(key.key_id, public_key_id(public))
    try:
        plain = opener.unseal_directly(key)
    except (CredentialError, DamageError):
        return False  # it is sealed to a pair that this key doesn't hold
    with suppress(ObjectNotFoundError, DamageError):
        sealed, _ = access.sealer.open_object(name, access.store.get(name))
        if _holds(access, opener, key, sealed, plain):
            return False
    if not delete_if_free(access.store, name):
        return False
    sealed = seal_anew(access.keyring.repository_id, key.key_id, plain, public)
    return access.store.put_if_absent(name, [access.sealer.seal_object(name, sealed)])


def _holds(access: Access, opener: DataKeyOpener, key: SealedDataKey, sealed: bytes, plain: bytes) -> bool:
    newest = public_key_id(access.config.data_public_keys[0])
    if newest not in access.keyring.openers:
        return True  # an older read key can't tell
    with suppress(DamageError):
        return opener.unseal_directly(SealedDataKey(key.key_id, newest, sealed)) == plain
    return False
