"""Keys that were handed out: each leaves a record in the repository, so that it can be named when it is revoked.

The record is there before the key file is. One without a file, which an interrupted command leaves, does no harm.
Keys that were made before there were records work as before, and are revoked by the writer id that their command
printed. An id that the repository knows nothing of is refused unless it is forced: it may be mistyped, and the key
that was meant would go on working.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, NamedTuple

import msgspec

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.config import Config, load_config
from proxy_worker.repository.credentials import KeyFile
from proxy_worker.repository.errors import CannotReadError, KeyNotFoundError
from proxy_worker.repository.identity import Identity
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.points import Point, decode_outcome, point_names
from proxy_worker.repository.reconfiguring import publish_next
from proxy_worker.repository.store import ObjectNotFoundError
from proxy_worker.repository.store.terms import delete_if_free

_WRITER_ID: Final = re.compile(r"[0-9a-f]{32}")


class IssuedKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A write or read key that was handed out."""

    writer_id: bytes
    kind: Literal["write", "read"]
    label: str
    group: str
    issued_at: int
    """Unix seconds."""


class Revocation(NamedTuple):
    """What shutting a writer out has come to."""

    writer_id: str
    points: tuple[str, ...]
    """Restore points, VM id and run, that it had committed: they no longer count."""


def record_issue(access: Access, key: KeyFile) -> str:
    """Leave the record of a key that is about to be handed out; the name of the object."""
    body = Identity(key.writer_private_key, key.writer_certificate).body
    name = f"issued/{body.writer_id.hex()}"
    issued = IssuedKey(body.writer_id, key.kind, body.label, body.group, body.issued_at)
    access.store.put_if_absent(name, [access.sealer.seal_object(name, msgspec.msgpack.encode(issued))])
    return name


@contextmanager
def recorded_issue(access: Access, key: KeyFile) -> Iterator[None]:
    """The same while a key is handed out in the block: if that fails, the record goes again."""
    name = record_issue(access, key)
    try:
        yield
    except BaseException:
        delete_if_free(access.store, name)
        raise


def issued_keys(access: Access) -> Iterator[IssuedKey]:
    """The records, oldest first; one that can't be read is left out, and a check names it."""
    found = []
    for name in access.store.list("issued/"):
        try:
            payload, _ = access.sealer.open_object(name, access.store.get(name))
            found.append(msgspec.msgpack.decode(payload, type=IssuedKey))
        except (ObjectNotFoundError, DamageError, msgspec.MsgspecError):
            continue
    yield from sorted(found, key=lambda issued: (issued.issued_at, issued.writer_id))


def revoke(access: Access, unlocked: Secrets, which: str, *, force: bool = False) -> Revocation:
    """Shut a writer out, by its id or by the label of its key: nothing that it has written counts any more.

    With `force`, also by an id that nothing is known of. Idempotent. Raises `KeyNotFoundError`,
    `ConfigurationChangedError`.
    """
    writer_id = _writer_id(access, which)
    points = tuple(sorted(_committed_by(access, bytes.fromhex(writer_id))))
    config = load_config(access.store)
    _require_signed_by(config, unlocked)
    if writer_id not in config.revoked_writers:
        if not force and not _is_known(access, writer_id):
            raise KeyNotFoundError(
                f"key {which} of {access.store.location}",
                why="no key of that writer id was handed out, and nothing in the repository is signed by it",
                remedy="Compare it with `proxy-worker repository keys list`; --force revokes it all the same.",
            )
        publish_next(access.store, config, unlocked, revoked_writers=(*config.revoked_writers, writer_id))
    return Revocation(writer_id, points)


def _require_signed_by(config: Config, unlocked: Secrets) -> None:
    if config.root_public_key != unlocked.root_public_key:
        raise CannotReadError("repository keys", why="its configuration was exchanged since it was opened")


def _writer_id(access: Access, which: str) -> str:
    if _WRITER_ID.fullmatch(which):
        return which
    found = [issued for issued in issued_keys(access) if issued.label == which]
    if len(found) != 1:
        why = f"{len(found)} keys have that label" if found else "no key was handed out under that label"
        raise KeyNotFoundError(
            f"key {which} of {access.store.location}",
            why=why,
            remedy="Name it by its writer id; `proxy-worker repository keys list` with a passphrase shows them.",
        )
    return found[0].writer_id.hex()


def _is_known(access: Access, writer_id: str) -> bool:
    """Whether a key was handed out under this id, or restore points or index fragments are signed by it."""
    return access.store.exists(f"issued/{writer_id}") or bytes.fromhex(writer_id) in _signers(access)


def _signers(access: Access) -> Iterator[bytes]:
    for prefix in ("points/", "index/"):
        for name in access.store.list(prefix):
            with suppress(ObjectNotFoundError, DamageError):
                yield access.sealer.open_object(name, access.store.get(name))[1].writer_id


def _committed_by(access: Access, writer_id: bytes) -> Iterator[str]:
    for name in point_names(access.store):
        try:
            data = access.store.get(name)
            _, signer = access.sealer.open_object(name, data)
            outcome = decode_outcome(access.sealer, name, data)
        except (ObjectNotFoundError, DamageError):
            continue
        if signer.writer_id == writer_id and isinstance(outcome, Point):
            yield f"{outcome.vm_name} {outcome.run}"
