"""What maps and segments name, as earlier collections have read it: so that one reads only those that are new.

It is kept beside the cached index and goes by content: an id names the same for ever, so that nothing here is ever
out of date. Each entry bears a keyed checksum of its own, made when the map or segment had been verified. What has
none that fits, as in a file that was damaged, cut, or is another repository's, is read from the repository.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import blake3

from proxy_worker.repository.keyring import Keyring
from proxy_worker.repository.pack_layout import ChunkKind

_ENTRY: Final = struct.Struct("<32s16sI")
"""The id of a map or segment, checksum, bytes of the ids that it names, which follow."""
_BUFFER_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 512 << 20
"""Of a file. What has no room is read from the repository each time."""
_MOST_NAMED_BYTES: Final = 64 << 20


class KnownNames:
    """What some maps, or some segments, name; to be asked in ascending order of their ids, each once.

    What was asked for is what will be known the next time, if the `with` block ends well. Files that can't be read
    or written are as good as none.
    """

    def __init__(self, folder: Path | None, kind: ChunkKind, keyring: Keyring) -> None:
        """`folder` keeps them between processes; without one nothing is known."""
        context = f"proxyfleet 1 known {kind.name.lower()}"
        self._key = blake3.blake3(keyring.id_key, derive_key_context=context).digest()
        self._path = folder / f"{kind.name.lower()}.known" if folder else None
        self._old: BinaryIO | None = None
        self._new: BinaryIO | None = None
        self._new_path = Path()
        self._written = 0
        self._head: tuple[bytes, bytes, int] | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._new_path = self._path.with_name(f"{self._path.name}-{secrets.token_hex(8)}")
            with suppress(OSError):
                for left in self._path.parent.glob(f"{self._path.name}-*"):
                    left.unlink(missing_ok=True)
                self._new = self._new_path.open("wb", _BUFFER_BYTES)
            with suppress(OSError):
                self._old = self._path.open("rb", _BUFFER_BYTES)
                self._head = self._next_head()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._old:
            self._old.close()
        if self._new and self._path:
            with suppress(OSError):
                self._new.close()
                if error is None:
                    self._new_path.replace(self._path)
            with suppress(OSError):
                self._new_path.unlink(missing_ok=True)

    def named_by(self, content_id: bytes, read: Callable[[bytes], bytes]) -> bytes:
        """The ids that a map or segment names; `read` says it if it isn't known. Raises what that raises."""
        named = self._known(content_id)
        if named is None:
            named = read(content_id)
            self._keep(content_id, self._checksum(content_id, named), named)
        return named

    def _known(self, content_id: bytes) -> bytes | None:
        """What the last collection has left, which is then left to the next one."""
        try:
            while self._old and self._head and self._head[0] < content_id:
                self._old.seek(self._head[2], 1)
                self._head = self._next_head()
            if not self._old or not self._head or self._head[0] != content_id:
                return None
            _, checksum, length = self._head
            named = self._old.read(length)
            self._head = self._next_head()
        except OSError:
            self._head = None
            return None
        if self._checksum(content_id, named) != checksum:
            return None
        self._keep(content_id, checksum, named)
        return named

    def _next_head(self) -> tuple[bytes, bytes, int] | None:
        """Id, checksum and length of the next entry; None at the end of all that looks like one."""
        data = self._old.read(_ENTRY.size) if self._old else b""
        if len(data) < _ENTRY.size:
            return None
        head: tuple[bytes, bytes, int] = _ENTRY.unpack(data)
        return head if head[2] <= _MOST_NAMED_BYTES else None

    def _keep(self, content_id: bytes, checksum: bytes, named: bytes) -> None:
        entry = _ENTRY.pack(content_id, checksum, len(named)) + named
        if self._new is None or self._written + len(entry) > _MOST_BYTES:
            return
        self._written += len(entry)
        try:
            self._new.write(entry)
        except OSError:  # a full disk must not keep a collection from freeing some
            self._written = _MOST_BYTES

    def _checksum(self, content_id: bytes, named: bytes) -> bytes:
        return blake3.blake3(content_id + named, key=self._key).digest(16)
