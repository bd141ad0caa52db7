"""Sealing with a passphrase, as a stream: nothing of what is sealed is ever on disk in clear.

A header (magic, scrypt's cost and salt) is followed by frames: a length of four bytes, then up to a MiB sealed
with AES-256-GCM under the passphrase's key. A frame's nonce holds its number and whether it is the last, so that
none can be left out, moved or cut off unnoticed; every frame is bound to the header. The scheme is STREAM of Hoang,
Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (2015).
"""

from __future__ import annotations

import io
import secrets
import struct
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from scheduler.server_backup.errors import ArchiveDamagedError, RecoveryPassphraseError

_MAGIC: Final = b"proxyfleet-server-1\n"
_HEADER: Final = struct.Struct(">B16s")
"""log2 of scrypt's cost, and the salt."""
_COST: Final = 17
"""128 MiB of memory for each guess at the passphrase."""
_MOST_COST: Final = 20
_LENGTH: Final = struct.Struct(">I")
_FRAME_BYTES: Final = 1 << 20
_TAG_BYTES: Final = 16


class SealingWriter(io.RawIOBase):
    """Seals what is written to it into `file`; without `close` the result counts as cut short."""

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        header = _MAGIC + _HEADER.pack(_COST, secrets.token_bytes(16))
        self._frames = _Frames(passphrase, header)
        self._file = file
        self._pending = bytearray()
        file.write(header)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of `data`."""
        self._pending += data
        while len(self._pending) > _FRAME_BYTES:  # the last frame is known by `close` alone
            self._seal(bytes(self._pending[:_FRAME_BYTES]), last=False)
            del self._pending[:_FRAME_BYTES]
        return memoryview(data).nbytes

    def close(self) -> None:
        """Write the last frame; `file` stays open."""
        if not self.closed:
            self._seal(bytes(self._pending), last=True)
        super().close()

    def _seal(self, content: bytes, *, last: bool) -> None:
        sealed = self._frames.key.encrypt(self._frames.nonce(last=last), content, self._frames.header)
        self._file.write(_LENGTH.pack(len(sealed)) + sealed)


class SealedReader(io.RawIOBase):
    """What was sealed into `file`.

    Raises `RecoveryPassphraseError` if the first frame can't be opened, `ArchiveDamagedError` for any other.
    """

    def __init__(self, file: BinaryIO, passphrase: bytes, name: str) -> None:
        self._name = name
        self._file = file
        header = file.read(len(_MAGIC) + _HEADER.size)
        if len(header) != len(_MAGIC) + _HEADER.size or not header.startswith(_MAGIC):
            raise ArchiveDamagedError(name, why="it is no backup of a server")
        self._frames = _Frames(passphrase, header)
        self._ready = memoryview(self._open(first=True))

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any, /) -> int:
        """Fill `target` as far as the present frame reaches; 0 at the end."""
        while not self._ready and not self._ended:
            self._ready = memoryview(self._open())
        view = memoryview(target).cast("B")
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _open(self, *, first: bool = False) -> bytes:
        length = self._file.read(_LENGTH.size)
        size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
        sealed = self._file.read(size) if _TAG_BYTES <= size <= _FRAME_BYTES + _TAG_BYTES else b""
        if not sealed or len(sealed) != size:
            raise ArchiveDamagedError(self._name, why="it is cut short")
        following = self._file.peek(1) if isinstance(self._file, io.BufferedReader) else b""
        self._ended = not following
        try:
            return self._frames.key.decrypt(self._frames.nonce(last=self._ended), sealed, self._frames.header)
        except InvalidTag as error:
            if first:
                raise RecoveryPassphraseError(
                    self._name,
                    why="this passphrase doesn't open it",
                    remedy="Give the one that `recovery_credential` named with --recovery-passphrase-file.",
                ) from error
            raise ArchiveDamagedError(self._name, why="what it holds was changed or cut short") from error


class _Frames:
    """The key, and the nonce of each frame in turn."""

    def __init__(self, passphrase: bytes, header: bytes) -> None:
        cost, salt = _HEADER.unpack(header[len(_MAGIC) :])
        if cost > _MOST_COST:
            raise ArchiveDamagedError("backup of the server", why=f"it asks for 2^{cost} KiB to be opened")
        self.header = header
        self.key = AESGCM(Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(passphrase))
        self._number = 0

    def nonce(self, *, last: bool) -> bytes:
        """Of the next frame."""
        self._number += 1
        return self._number.to_bytes(11, "big") + bytes([last])
