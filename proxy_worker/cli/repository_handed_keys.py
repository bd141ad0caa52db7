"""`proxy-worker repository keys export-write`, `export-read` and `revoke`: the keys that proxies hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_options import Location, PassphraseFile
from proxy_worker.repository import documents
from proxy_worker.repository.credentials import make_key_file, new_secret
from proxy_worker.repository.errors import WrongPassphraseError
from proxy_worker.repository.identity import Identity
from proxy_worker.repository.issuing import recorded_issue, revoke
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.repository import Repository

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to put the key; must not exist.")]
Label = Annotated[str, typer.Option(metavar="TEXT", help="Whom the key is for, e.g. the proxy's name.")]
Group = Annotated[
    str,
    typer.Option(
        metavar="GROUP",
        help="Trust group: proxies deduplicate against packs of their own group; usually the site.",
    ),
]


def export_write(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    out: Out,
    label: Label = "",
    group: Group = "default",
) -> None:
    """Make a write key, for a proxy that backs up. It adds restore points and can't read one back.

    \b
    Examples:
      proxy-worker repository keys export-write /backup/main --passphrase-file main.passphrase --out proxy-1.key
    """
    _export("write", repository, passphrase_file, out, label=label, group=group)


def export_read(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    out: Out,
    label: Label = "",
    group: Group = "default",
) -> None:
    """Make a read key, for a proxy that restores (and backs up).

    \b
    Examples:
      proxy-worker repository keys export-read /backup/main --passphrase-file main.passphrase --out restore.key
    """
    _export("read", repository, passphrase_file, out, label=label, group=group)


def revoke_key(
    repository: Location,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its label or writer id, as `keys list` shows them.")],
    *,
    passphrase_file: PassphraseFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Revoke a writer id even if the repository knows nothing of it.")
    ] = False,
) -> None:
    """Shut out a write or read key that was stolen. Nothing that it has stored counts any more, old or new.

    A key that is merely replaced needs no revoking: delete its file, and its restore points stay. What a stolen
    read key could read it can still read; `keys rotate` keeps what is stored from then on from it.

    A writer id that was neither handed out nor has written anything is refused, as it may be mistyped: the stolen
    key would go on working. Give `--force` for a key without a record that hasn't written yet.

    \b
    Examples:
      proxy-worker repository keys revoke /backup/main proxy-1 --passphrase-file main.passphrase
    """
    with open_repository(repository, passphrase_file=passphrase_file) as opened:
        revoked = revoke(opened.access, unlocked(opened), key, force=force)
    typer.echo(f"revoked writer {revoked.writer_id}; proxies honour it from their next task on")
    for point in revoked.points:
        typer.echo(f"  no longer counts: restore point {point}")
    typer.echo("`proxy-worker repository check` names the others' restore points that need what it had stored.")


def unlocked(opened: Repository) -> Secrets:
    """All of a repository's keys; raises `WrongPassphraseError` when a key file opened it."""
    if opened.unlocked is None:
        raise WrongPassphraseError("repository keys", why="only a passphrase can hand out keys and change them")
    return opened.unlocked


def _export(
    kind: Literal["write", "read"],
    repository: str,
    passphrase_file: Path | None,
    out: Path,
    *,
    label: str,
    group: str,
) -> None:
    with (
        open_repository(repository, passphrase_file=passphrase_file) as opened,
        new_secret(out, "key file") as write,
    ):
        key = make_key_file(
            unlocked(opened),
            kind=kind,
            repository_id=opened.id,
            generation=opened.access.config.generation,
            label=label or out.stem,
            group=group,
        )
        with recorded_issue(opened.access, key):
            write(documents.seal(key))
    writer = Identity(key.writer_private_key, key.writer_certificate).body
    typer.echo(
        f"made {kind} key {out} for writer {writer.writer_id.hex()} ({writer.label}) of group {writer.group}"
    )
