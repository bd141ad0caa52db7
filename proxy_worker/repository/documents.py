"""Readable objects and files: JSON of one canonical form, so that no byte of them can change unnoticed.

A document is a msgspec struct written with an indent of 2 and a newline at its end. Reading encodes what was read
again and compares: spare bits of base64, other spellings and white space don't pass. Documents that nobody signs
carry a checksum of themselves.
"""

from __future__ import annotations

from typing import TypeVar

import blake3
import msgspec


class DocumentError(ValueError):
    """The bytes aren't a document of that type, or were altered; the message says which."""


Document = TypeVar("Document", bound="msgspec.Struct")


class Checksummed(msgspec.Struct, frozen=True, kw_only=True):
    """A document with a BLAKE3 of itself (with this field empty), in hex."""

    checksum: str = ""


Guarded = TypeVar("Guarded", bound=Checksummed)


def encode(document: msgspec.Struct) -> bytes:
    """The document's only form."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(data: bytes, kind: type[Document]) -> Document:
    """The reverse of `encode`; raises `DocumentError` for anything else."""
    try:
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DocumentError(str(error)) from error
    if encode(document) != data:
        raise DocumentError("its bytes are not in the form they were written in")
    return document


def seal(document: Guarded) -> bytes:
    """Encode with the checksum filled in."""
    return encode(msgspec.structs.replace(document, checksum=_checksum(document)))


def unseal(data: bytes, kind: type[Guarded]) -> Guarded:
    """The reverse of `seal`; raises `DocumentError` also when the checksum is wrong."""
    document = decode(data, kind)
    if document.checksum != _checksum(document):
        raise DocumentError("its checksum is wrong")
    return document


def _checksum(document: Checksummed) -> str:
    return blake3.blake3(encode(msgspec.structs.replace(document, checksum=""))).hexdigest()
