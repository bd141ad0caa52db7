"""`proxy-worker repository keys`: passphrases, and the keys that proxies hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_handed_keys import export_read, export_write, revoke_key, unlocked
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.cli.repository_recovery import recover, recovery_sheet
from proxy_worker.repository import passphrases
from proxy_worker.repository.config import load_config
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.errors import NotEncryptedError
from proxy_worker.repository.issuing import IssuedKey, issued_keys
from proxy_worker.repository.rotation import remove_passphrase, rotate
from proxy_worker.repository.unlocking import open_store

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Passphrases, and the keys that proxies hold.",
)
app.command("export-write")(export_write)
app.command("export-read")(export_read)
app.command("revoke")(revoke_key)
app.command("recovery-sheet")(recovery_sheet)
app.command("recover")(recover)

NewPassphraseFile = Annotated[
    Path, typer.Option(metavar="FILE", help="A file with the new passphrase, in one line.")
]


@app.command("list")
def list_keys(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List keys. Those of passphrases need none of them; with a passphrase or key, those handed out are listed,
    too.

    \b
    Examples:
      proxy-worker repository keys list /backup/main
      proxy-worker repository keys list /backup/main --passphrase-file main.passphrase
    """
    store = open_store(repository)
    found, damaged = list(passphrases.keys(store)), passphrases.damaged_keys(store)
    revoked = load_config(store).revoked
    handed: list[IssuedKey] = []
    if passphrase_file is not None or key_file is not None:
        with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
            handed = list(issued_keys(opened.access))
    if as_json:
        keys = [{"key": key.key_id, "kind": "passphrase", "label": key.label} for key in found]
        keys += [{"key": key_id, "kind": "damaged", "label": error.why} for key_id, error in damaged.items()]
        typer.echo(json.dumps([*keys, *(_as_json(issued, revoked) for issued in handed)], indent=2))
        return
    for key in found:
        typer.echo(f"{key.key_id}  {key.label}".rstrip())
    for key_id, error in damaged.items():
        typer.echo(f"{key_id}  damaged: {error.why}")
    for issued in handed:
        state = "revoked" if issued.writer_id in revoked else f"of group {issued.group}"
        when = datetime.fromtimestamp(issued.issued_at, UTC).astimezone()
        typer.echo(
            f"{issued.writer_id.hex()}  {issued.label}: {issued.kind} key {state}, made {when:%Y-%m-%d %H:%M}"
        )


@app.command("add")
def add_passphrase(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile,
    label: Annotated[str, typer.Option(metavar="TEXT", help="What to remember it by.")] = "",
) -> None:
    """Add a passphrase.

    \b
    Examples:
      proxy-worker repository keys add /backup/main --passphrase-file a --new-passphrase-file b --label second
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        secrets = unlocked(opened)
        _require_encrypted(encrypted=opened.access.encrypted, repository=repository)
        passphrase = load_credential(passphrase_file=new_passphrase_file).passphrase or b""
        key = passphrases.wrap(secrets, passphrase, repository_id=opened.id, label=label)
        passphrases.add(opened.access.store, key)
    typer.echo(f"added key {key.key_id}")


@app.command("change")
def change_passphrase(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile,
) -> None:
    """Change a passphrase. The new one takes the place of the one given. Interrupted, both open; do it again.

    \b
    Examples:
      proxy-worker repository keys change /backup/main --passphrase-file old --new-passphrase-file new
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        secrets, store = unlocked(opened), opened.access.store
        _require_encrypted(encrypted=opened.access.encrypted, repository=repository)
        old = load_credential(passphrase_file=passphrase_file).passphrase or b""
        new = load_credential(passphrase_file=new_passphrase_file).passphrase or b""
        own = [key for key in passphrases.keys(store) if key.repository_id == opened.id]
        former = [key for key in own if passphrases.try_open(key, old) is not None]
        key = passphrases.wrap(secrets, new, repository_id=opened.id, label=former[0].label)
        passphrases.add(store, key)
        for one in former:
            remove_passphrase(store, one.key_id, old, new)
    changed = ", ".join(one.key_id for one in former)
    what = f"key {changed}, which is" if len(former) == 1 else f"keys {changed}, which had the same and are"
    typer.echo(f"changed the passphrase of {what} {key.key_id} now")


@app.command("remove")
def remove_key(
    repository: Location,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `keys list` shows it.")],
    *,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Remove a passphrase, with one that stays. What it unlocked may have been copied: it is not a rotation.

    \b
    Examples:
      proxy-worker repository keys remove /backup/main 5f0c2a9d1e6b7788 --passphrase-file main.passphrase
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        unlocked(opened)
        passphrase = load_credential(passphrase_file=passphrase_file).passphrase or b""
        remove_passphrase(opened.access.store, key, passphrase)
    typer.echo(f"removed key {key}")


@app.command("rotate")
def rotate_keys(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    also_passphrase_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Files with the repository's other passphrases; all are needed."),
    ] = None,
) -> None:
    """Make a new data key pair. Old read keys and recovery sheets don't open what is stored from now on.

    Write keys go on working and take up the new pair by themselves. Collections seal what is there to it as well;
    who could read that before still can.

    \b
    Examples:
      proxy-worker repository keys rotate /backup/main --passphrase-file main.passphrase
      proxy-worker repository keys rotate /backup/main --passphrase-file a --also-passphrase-file b
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        store = opened.access.store
        _require_encrypted(encrypted=opened.access.encrypted, repository=repository)
    files = [passphrase_file, *(also_passphrase_file or [])]
    given = [load_credential(passphrase_file=file).passphrase or b"" for file in files]
    rotated = rotate(store, given)
    typer.echo(f"rotated: generation {rotated.generation}, keys {', '.join(rotated.key_ids)}")
    typer.echo(
        "Make new read keys (`keys export-read`) and a new recovery sheet (`keys recovery-sheet`), then collect."
    )


def _as_json(issued: IssuedKey, revoked: frozenset[bytes]) -> dict[str, object]:
    return {
        "key": issued.writer_id.hex(),
        "kind": issued.kind,
        "label": issued.label,
        "group": issued.group,
        "made": datetime.fromtimestamp(issued.issued_at, UTC).isoformat(),
        "revoked": issued.writer_id in revoked,
    }


def _require_encrypted(*, encrypted: bool, repository: str) -> None:
    if not encrypted:
        raise NotEncryptedError(
            f"repository {repository}", why="it isn't encrypted, so a passphrase guards nothing"
        )
