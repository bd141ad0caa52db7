"""What opens a repository for commands that `proxy-worker` does here, with the secrets of this server."""

from __future__ import annotations

from proxy_worker.contract.errors import CredentialError
from scheduler.cli.opening import configuration
from scheduler.state.models import Repository


class NoKeyHereError(CredentialError):
    """This server holds no key that could open the repository."""


def opening(repository: Repository, key_option: str, *, elsewhere: str) -> list[str]:
    """The options that open a repository: of its passphrase, or of its key.

    Raises `NoKeyHereError`, which says what to do `elsewhere`, where there is one.
    """
    if repository.credential is None:
        return []
    folder = configuration().secrets_dir
    passphrase, key = (folder / f"{repository.credential}.{kind}" for kind in ("passphrase", "key"))
    if passphrase.exists():
        return ["--passphrase-file", str(passphrase)]
    if key.exists():
        return [key_option, str(key)]
    raise NoKeyHereError(
        f"repository {repository.name!r} can't be opened here",
        why=f"this server has neither {passphrase.name} nor {key.name} in {folder}",
        remedy=f"Where one is: {elsewhere}",
    )
