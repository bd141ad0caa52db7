"""The recovery sheet: all keys of a repository on a page to print, as lines to type and as a QR code to scan.

It opens the repository even if every object in `keys/` is lost and every passphrase forgotten. Whoever has the page
has the keys: it belongs in a safe.

The lines are base32 (RFC 4648), each with a check of its own at its end, so that a slip is found where it was made.
What they hold: version (1), repository id, generation, id key, metadata key, root private key, the number of data
private keys, these keys, newest first, and the first 5 bytes of a BLAKE3 of all before.
"""

from __future__ import annotations

import base64
import re
import struct
import time
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Final

import blake3

from proxy_worker.repository.errors import RecoverySheetError
from proxy_worker.repository.keyring import KEY_BYTES, Secrets

_VERSION: Final = 1
_HEAD: Final = struct.Struct("<B16sI32s32s32sB")
_SUM_BYTES: Final = 5
_LINE_BYTES: Final = 20
_LINE_CHARACTERS: Final = 34
"""32 for 20 bytes, and 2 that check them."""
_CHECK_CHARACTERS: Final = 2
_SLIPS: Final = str.maketrans("018", "OIB")
"""Digits that base32 doesn't have, for the letters that they are mistaken for."""
_REMEDY: Final = "Compare it with the sheet: letters A to Z and digits 2 to 7, in the order of the lines."


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a sheet says."""

    repository_id: str
    generation: int
    """Of the configuration when it was printed; a later one may have other data keys."""
    secrets: Secrets


def sheet_lines(recovered: Recovered) -> list[str]:
    """The text of a sheet, line by line."""
    secrets = recovered.secrets
    head = _HEAD.pack(
        _VERSION,
        bytes.fromhex(recovered.repository_id),
        recovered.generation,
        secrets.id_key,
        secrets.metadata_key,
        secrets.root_private_key,
        len(secrets.data_private_keys),
    )
    payload = head + b"".join(secrets.data_private_keys)
    payload += blake3.blake3(payload).digest(_SUM_BYTES)
    pieces = [payload[at : at + _LINE_BYTES] for at in range(0, len(payload), _LINE_BYTES)]
    return [_encoded(piece) + _check(number, piece) for number, piece in enumerate(pieces)]


def read_sheet(text: str) -> Recovered:
    """The reverse, from typed lines or a scanned code; spaces, dashes and case don't matter.

    Raises `RecoverySheetError`, which names the line.
    """
    lines = [line for line in (re.sub(r"[^A-Z2-7]", "", _plain(line)) for line in text.splitlines()) if line]
    if len(lines) == 1:
        lines = [lines[0][at : at + _LINE_CHARACTERS] for at in range(0, len(lines[0]), _LINE_CHARACTERS)]
    payload = b"".join(_decoded(number, line) for number, line in enumerate(lines))
    body, total = payload[:-_SUM_BYTES], payload[-_SUM_BYTES:]
    if len(body) < _HEAD.size or blake3.blake3(body).digest(_SUM_BYTES) != total:
        raise RecoverySheetError(
            "recovery sheet", why="a line is missing, or they are in another order", remedy=_REMEDY
        )
    version, repository_id, generation, id_key, metadata_key, root_key, count = _HEAD.unpack_from(body)
    keys = body[_HEAD.size :]
    if version != _VERSION or len(keys) != count * KEY_BYTES:
        raise RecoverySheetError("recovery sheet", why=f"it is of version {version}, this reads {_VERSION}")
    private = tuple(keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES))
    return Recovered(repository_id.hex(), generation, Secrets(id_key, metadata_key, root_key, private))


def sheet_page(recovered: Recovered, location: str) -> bytes:
    """The sheet as a page to print from a browser; it loads nothing from anywhere."""
    import segno  # noqa: PLC0415 - for this command alone

    lines = sheet_lines(recovered)
    code = segno.make("".join(lines), error="m", micro=False)
    groups = [" ".join(line[at : at + 4] for at in range(0, len(line), 4)) for line in lines]
    template = resources.files(__package__).joinpath("recovery_sheet.html").read_text()
    page = Template(template).substitute(
        repository_id=recovered.repository_id,
        location=escape(location),
        generation=recovered.generation,
        printed=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        lines="\n".join(groups),
        code=code.svg_inline(scale=5),
    )
    return page.encode()


def _plain(line: str) -> str:
    return line.upper().translate(_SLIPS)


def _encoded(piece: bytes) -> str:
    return base64.b32encode(piece).decode().rstrip("=")


def _check(number: int, piece: bytes) -> str:
    return _encoded(blake3.blake3(bytes((number,)) + piece).digest(5))[:_CHECK_CHARACTERS]


def _decoded(number: int, line: str) -> bytes:
    text, check = line[:-_CHECK_CHARACTERS], line[-_CHECK_CHARACTERS:]
    try:
        piece = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        piece = b""
    if not piece or len(piece) > _LINE_BYTES or (_encoded(piece), _check(number, piece)) != (text, check):
        raise RecoverySheetError(
            f"line {number + 1} of the recovery sheet", why="it has a slip in it", remedy=_REMEDY
        )
    return piece
