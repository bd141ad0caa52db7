"""`proxy-worker repository keys`: passphrases, and the keys that proxies hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.repository import passphrases
from proxy_worker.repository.credentials import load_credential, make_key_file, save_key_file
from proxy_worker.repository.errors import WrongPassphraseError
from proxy_worker.repository.identity import Identity
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.unlocking import open_store

app = typer.Typer(no_args_is_help=True, help="Passphrases, and the keys that proxies hold.")

Location = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The repository's folder.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the passphrase; none if it isn't encrypted.")
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to put the key; must not exist.")]
Label = Annotated[str, typer.Option(help="Whom the key is for, e.g. the proxy's name.")]
Group = Annotated[
    str, typer.Option(help="Trust group: proxies deduplicate against packs of their own group; usually the site.")
]


@app.command("list")
def list_keys(
    repository: Location, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the passphrases' keys; needs none of them."""
    found = list(passphrases.keys(open_store(repository)))
    if as_json:
        typer.echo(json.dumps([{"key": key.key_id, "label": key.label} for key in found]))
        return
    for key in found:
        typer.echo(f"{key.key_id}  {key.label}")


@app.command("add")
def add_passphrase(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[Path, typer.Option(metavar="FILE", help="A file with the new passphrase.")],
    label: Annotated[str, typer.Option(help="What to remember it by.")] = "",
) -> None:
    """Add a passphrase. To change one, add the new and remove the old."""
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        passphrase = load_credential(passphrase_file=new_passphrase_file).passphrase or b""
        key = passphrases.wrap(_unlocked(opened), passphrase, repository_id=opened.id, label=label)
        passphrases.add(opened.access.store, key)
    typer.echo(f"added key {key.key_id}")


@app.command("remove")
def remove_passphrase(
    repository: Location,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `keys list` shows it.")],
    *,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Remove a passphrase; the last one stays. What it unlocked may have been copied: it is not a rotation."""
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        passphrases.remove(opened.access.store, key, opened.id)
    typer.echo(f"removed key {key}")


@app.command("export-write")
def export_write(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    out: Out,
    label: Label = "",
    group: Group = "default",
) -> None:
    """Make a write key, for a proxy that backs up: it adds restore points and can't read one back."""
    _export("write", repository, passphrase_file, out, label=label, group=group)


@app.command("export-read")
def export_read(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    out: Out,
    label: Label = "",
    group: Group = "default",
) -> None:
    """Make a read key, for a proxy that restores (and backs up)."""
    _export("read", repository, passphrase_file, out, label=label, group=group)


def _export(
    kind: Literal["write", "read"],
    repository: str,
    passphrase_file: Path | None,
    out: Path,
    *,
    label: str,
    group: str,
) -> None:
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        key = make_key_file(
            _unlocked(opened),
            kind=kind,
            repository_id=opened.id,
            generation=opened.access.config.generation,
            label=label or out.stem,
            group=group,
        )
    save_key_file(key, out)
    writer = Identity(key.writer_private_key, key.writer_certificate).body
    typer.echo(
        f"made {kind} key {out} for writer {writer.writer_id.hex()} ({writer.label}) of group {writer.group}"
    )


def _unlocked(opened: Repository) -> Secrets:
    if opened.unlocked is None:
        raise WrongPassphraseError("repository keys", why="only a passphrase can hand out keys")
    return opened.unlocked
