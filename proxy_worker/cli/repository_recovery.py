"""`proxy-worker repository keys recovery-sheet` and `recover`: all keys on paper, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import OptionError, open_repository
from proxy_worker.cli.repository_handed_keys import unlocked
from proxy_worker.cli.repository_options import Location, PassphraseFile
from proxy_worker.repository import passphrases
from proxy_worker.repository.config import load_config
from proxy_worker.repository.credentials import load_credential, save_secret
from proxy_worker.repository.errors import NotEncryptedError, WrongKeyError
from proxy_worker.repository.recovery_sheet import Recovered, read_sheet, sheet_page
from proxy_worker.repository.unlocking import open_store


def recovery_sheet(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to put the page (HTML); must not exist.")
    ],
) -> None:
    """Make a page to print that opens the repository. It has lines to type, and the same as a QR code.

    \b
    Examples:
      proxy-worker repository keys recovery-sheet /backup/main --passphrase-file main.passphrase --out sheet.html
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        config = opened.access.config
        if not opened.access.encrypted:
            raise NotEncryptedError(
                f"repository {repository}", why="it isn't encrypted: whoever has it can read it"
            )
        page = sheet_page(
            Recovered(opened.id, config.generation, unlocked(opened)), str(Path(repository).resolve())
        )
    save_secret(page, out, "recovery sheet")
    typer.echo(f"made {out}: print it with a browser, then delete it")


def recover(
    repository: Location,
    *,
    sheet_file: Annotated[
        Path, typer.Option(metavar="FILE", help="What was typed or scanned from a recovery sheet.")
    ],
    new_passphrase_file: Annotated[
        Path, typer.Option(metavar="FILE", help="A file with a new passphrase, in one line.")
    ],
) -> None:
    """Open a repository with a recovery sheet alone. It adds a passphrase to it.

    \b
    Examples:
      proxy-worker repository keys recover /backup/main --sheet-file typed.txt --new-passphrase-file new.passphrase
    """
    try:
        recovered = read_sheet(sheet_file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise OptionError(
            f"--sheet-file {sheet_file}",
            why="it is no text file",
            remedy="Type the sheet's lines into one, or scan its code; a picture of the sheet isn't read.",
        ) from error
    except OSError as error:
        raise OptionError(
            f"--sheet-file {sheet_file}", why=f"it can't be read: {error.strerror or error}"
        ) from error
    store = open_store(repository)
    config = load_config(store)
    secrets = recovered.secrets
    if (recovered.repository_id, secrets.root_public_key) != (config.repository_id, config.root_public_key):
        raise WrongKeyError(
            f"repository {repository}",
            why=f"the sheet is of repository {recovered.repository_id}, this is {config.repository_id}",
        )
    passphrase = load_credential(passphrase_file=new_passphrase_file).passphrase or b""
    key = passphrases.wrap(secrets, passphrase, repository_id=config.repository_id, label="recovered")
    passphrases.add(store, key)
    typer.echo(f"added key {key.key_id}: the new passphrase opens the repository")
    if secrets.data_public_keys != config.data_public_keys:
        typer.echo("The sheet is older than the last rotation: what was stored since doesn't open with it.")
