"""Signed task specifications: Ed25519 over the exact bytes that the ledger keeps.

The scheduler holds the private key; every proxy pins the public keys it was deployed with.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from proxy_worker.contract.errors import CredentialError
from proxy_worker.contract.specification import TaskSpecification
from proxy_worker.contract.versions import CONTRACT_VERSION, ContractVersionError, in_words_of

_DOMAIN = b"proxyfleet task specification 1\0"


class SpecificationError(CredentialError):
    """A task specification isn't signed by a scheduler this proxy knows, or isn't the one that was asked for."""


class SpecificationExpiredError(SpecificationError):
    """A task specification was claimed too late, e.g. since Redis' clock was set in between."""


def encode_public_key(key: Ed25519PublicKey) -> str:
    """The form that `proxy.toml` carries: base64 of the 32 raw bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def decode_public_key(text: str) -> Ed25519PublicKey:
    """The reverse of `encode_public_key`; raises `SpecificationError` on anything else."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise SpecificationError(
            f"scheduler public key {text[:60]!r}",
            why="it is not the base64 of a 32-byte Ed25519 key",
            remedy="Copy it from `scheduler proxy key`.",
        ) from error


def sign(specification: TaskSpecification, key: Ed25519PrivateKey) -> bytes:
    """The specification with its signature in front: 64 bytes, then JSON in the words of its version."""
    content = specification.model_dump(mode="json", exclude_none=True)
    payload = json.dumps(in_words_of(specification.contract_version or 1, content)).encode()
    return key.sign(_DOMAIN + payload) + payload


def verify(
    signed: bytes, keys: Iterable[Ed25519PublicKey], *, task_id: str, dispatch_number: int, now: float
) -> TaskSpecification:
    """Return the specification that `signed` holds, if it is the one that a message announced.

    Raises `SpecificationError` when no key in `keys` signed it, when it belongs to another task or dispatch,
    or when it has expired at `now` (Unix seconds); `ContractVersionError` when only a newer proxy can read it.
    """
    signature, payload = signed[:64], signed[64:]
    subject = f"specification of task {task_id}"
    for key in keys:
        try:
            key.verify(signature, _DOMAIN + payload)
            break
        except InvalidSignature:
            continue
    else:
        raise SpecificationError(
            subject,
            why="it is not signed by a scheduler this proxy knows",
            remedy="If the scheduler's key was replaced, put the new public half into proxy.toml.",
        )
    _require_version(payload, subject)
    try:
        specification = TaskSpecification.model_validate_json(payload)
    except ValidationError as error:
        raise SpecificationError(
            subject,
            why=f"this version can't read it: {error.errors()[0]['msg']}",
            remedy="Upgrade this proxy.",
        ) from error
    if (specification.task_id, specification.dispatch_number) != (task_id, dispatch_number):
        raise SpecificationError(subject, why="it was signed for another task or dispatch")
    if now > specification.expires_at:
        raise SpecificationExpiredError(subject, why="it expired before it was claimed")
    return specification


def _require_version(payload: bytes, subject: str) -> None:
    """Raise `ContractVersionError` for what is written in a version to come, before anything of it is read."""
    try:
        version = json.loads(payload).get("contract_version") or 1
    except ValueError:
        return
    if version > CONTRACT_VERSION:
        raise ContractVersionError(
            subject,
            why=f"it is written in version {version} of the contract, and this proxy speaks {CONTRACT_VERSION}",
            remedy="Upgrade this proxy.",
        )
