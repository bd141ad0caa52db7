"""The private key of `--ssh-key`: checked and tried where it lies, and kept as a secret only at the very end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from proxy_worker.contract.errors import ConflictError
from scheduler.deployment.errors import SshSecretError
from scheduler.pki.files import PRIVATE


class SecretTakenError(ConflictError):
    """A secret of the name that a new one would get is there already, and isn't the same."""


@contextmanager
def on_trial(file: Path | None, name: str, secrets_dir: Path) -> Iterator[Path]:
    """A folder that logs in with the key in `file` as the secret `name`, and holds no copy of it.

    Without a file, the secrets folder itself. Raises `SshSecretError` for what is no private key, and
    `SecretTakenError`.
    """
    if file is None:
        yield secrets_dir
        return
    passphrase = secrets_dir / f"{name}.ssh-passphrase"
    _require_private_key(file, passphrase)
    _require_free(file, name, secrets_dir)
    with tempfile.TemporaryDirectory(prefix="proxyfleet-login-") as folder:
        trial = Path(folder)
        (trial / f"{name}.ssh-key").symlink_to(file.absolute())
        (trial / passphrase.name).symlink_to(passphrase.absolute())
        yield trial


@contextmanager
def kept(file: Path | None, name: str, secrets_dir: Path) -> Iterator[None]:
    """Keep the key in `file` as the secret `name`, unless the `with` block fails; an existing one is left alone.

    Raises `SshSecretError` and `SecretTakenError`.
    """
    target = secrets_dir / f"{name}.ssh-key"
    if file is None or _require_free(file, name, secrets_dir):
        yield
        return
    content = _read(file)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        raise _not_kept(file, target, error) from error
    try:
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise _not_kept(file, target, error) from error
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _require_free(file: Path, name: str, secrets_dir: Path) -> bool:
    """Whether the key is the secret `name` already; raises `SecretTakenError` if something else is."""
    target = secrets_dir / f"{name}.ssh-key"
    if target.exists() and _read(target) == _read(file):
        return True
    for there in (target, secrets_dir / f"{name}.ssh-password"):
        if there.exists():
            raise SecretTakenError(
                f"SSH key {file} can't be kept as the secret {name!r}",
                why=f"{there} is there already, and is another secret",
                remedy=f"Log in with that one (--ssh-credential {name}), or choose another name.",
            )
    return False


def _require_private_key(file: Path, passphrase: Path) -> None:
    try:
        phrase = passphrase.read_text().strip() if passphrase.exists() else None
        asyncssh.import_private_key(_read(file), phrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise SshSecretError(
            f"SSH key {file}",
            why=f"it can't be used as a private key: {error}",
            remedy=f"Give the private one, not the .pub file; the passphrase of an encrypted one goes into "
            f"{passphrase}.",
        ) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SshSecretError(f"SSH key {file}", why=error.strerror or str(error)) from error


def _not_kept(file: Path, target: Path, error: OSError) -> SshSecretError:
    return SshSecretError(
        f"SSH key {file}",
        why=f"{target}: {error.strerror or error}",
        remedy=f"Put it into {target} yourself, and give --ssh-credential {target.stem}.",
    )
