"""What opens a repository: a passphrase, a write key, a read key, or nothing when it isn't encrypted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proxy_worker.repository import documents
from proxy_worker.repository.errors import KeyFileError, KeyFileExistsError
from proxy_worker.repository.identity import Identity, issue_identity
from proxy_worker.repository.keyring import Keyring, Secrets


class KeyFile(documents.Checksummed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A write key (adds and deduplicates) or a read key (restores as well), as its file holds it."""

    format: Literal["proxyfleet key"] = "proxyfleet key"
    version: Literal[1] = 1
    kind: Literal["write", "read"]
    repository_id: str
    least_generation: int
    """The configuration's generation when this was made: the store can't go back before it unnoticed."""
    root_public_key: bytes
    data_public_key: bytes
    id_key: bytes
    metadata_key: bytes
    writer_private_key: bytes
    writer_certificate: bytes
    data_private_keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"KeyFile({self.kind} key of repository {self.repository_id})"

    def keyring(self) -> Keyring:
        """The keys it holds."""
        return Keyring(
            repository_id=bytes.fromhex(self.repository_id),
            id_key=self.id_key,
            metadata_key=self.metadata_key,
            root_public_key=self.root_public_key,
            data_public_key=self.data_public_key,
            identity=Identity(self.writer_private_key, self.writer_certificate),
            data_private_keys=self.data_private_keys,
        )


@dataclass(frozen=True, slots=True)
class Credential:
    """A passphrase or a key; neither, for a repository that isn't encrypted."""

    passphrase: bytes | None = field(default=None, repr=False)
    key: KeyFile | None = None


def load_credential(*, passphrase_file: Path | None = None, key_file: Path | None = None) -> Credential:
    """Read a passphrase file (one line) or a write- or read-key file; no file at all means an unencrypted
    repository.

    Raises `KeyFileError`.
    """
    if key_file is not None:
        try:
            return Credential(key=documents.unseal(_read(key_file), KeyFile))
        except documents.DocumentError as error:
            raise KeyFileError(
                f"key file {key_file}",
                why=f"it is damaged or not a key of this version: {error}",
                remedy="Make a new one with `proxy-worker repository keys export-write`.",
            ) from error
    if passphrase_file is not None:
        passphrase = _read(passphrase_file).removesuffix(b"\n").removesuffix(b"\r")
        if not passphrase or b"\n" in passphrase:
            raise KeyFileError(
                f"passphrase file {passphrase_file}", why="it does not hold one line with a passphrase"
            )
        return Credential(passphrase=passphrase)
    return Credential()


def load_access_key(path: Path) -> tuple[str, str]:
    """The id and the secret of an object store's access key, a line each; raises `KeyFileError`."""
    lines = _read(path).decode(errors="replace").splitlines()
    if len(lines) != 2 or not all(lines):  # noqa: PLR2004 - id and secret
        raise KeyFileError(f"access key {path}", why="it does not hold two lines, the key's id and its secret")
    return lines[0], lines[1]


def make_key_file(
    unlocked: Secrets,
    *,
    kind: Literal["write", "read"],
    repository_id: str,
    generation: int,
    label: str,
    group: str,
) -> KeyFile:
    """A key for a new writer."""
    identity = issue_identity(unlocked.root_key, bytes.fromhex(repository_id), label=label, group=group)
    return KeyFile(
        kind=kind,
        repository_id=repository_id,
        least_generation=generation,
        root_public_key=unlocked.root_public_key,
        data_public_key=unlocked.data_public_keys[0],
        id_key=unlocked.id_key,
        metadata_key=unlocked.metadata_key,
        writer_private_key=identity.private_key,
        writer_certificate=identity.certificate,
        data_private_keys=unlocked.data_private_keys if kind == "read" else (),
    )


def save_key_file(key: KeyFile, path: Path) -> None:
    """Write a key where only its owner reads it; an existing file is left alone.

    Raises `KeyFileExistsError`, `KeyFileError`.
    """
    save_secret(documents.seal(key), path, "key file")


def save_secret(content: bytes, path: Path, what: str) -> None:
    """Write a file that only its owner may read; `what` it is, for messages. Raises as `save_key_file` does."""
    with new_secret(path, what) as write:
        write(content)


@contextmanager
def new_secret(path: Path, what: str) -> Iterator[Callable[[bytes], None]]:
    """The same for what has yet to be made: the file is there from the start, and gone again if the block fails."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise KeyFileExistsError(f"{what} {path}", why="it exists", remedy="Choose another name.") from error
    except OSError as error:
        raise _unwritten(path, what, error) from error

    def write(content: bytes) -> None:
        try:
            with path.open("r+b") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _unwritten(path, what, error) from error

    try:
        yield write
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _unwritten(path: Path, what: str, error: OSError) -> KeyFileError:
    return KeyFileError(f"can't write {what} {path}", why=error.strerror or str(error))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"can't read {path}", why=error.strerror or str(error)) from error
