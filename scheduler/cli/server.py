"""`scheduler server`: the backup server's own backup, and getting the server back from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.program.settings import read_secret
from proxy_worker.program.units import size
from scheduler.cli.arguments import AsJson
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.printing import iso, moment, note, plural, print_json, show_rows
from scheduler.configuration import refuse_password
from scheduler.server_backup.errors import RecoveryPassphraseError
from scheduler.server_backup.keeping import back_up_server, shelf_of
from scheduler.server_backup.restoring import CONFIGURATION, restore_server
from scheduler.server_backup.shelf import Shelf
from scheduler.state.access import DatabaseAccess

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Back up the backup server itself, and restore it.",
)
backup_app = typer.Typer(
    rich_markup_mode=None, add_completion=False, no_args_is_help=True, help="Make backups of the server, list them."
)
app.add_typer(backup_app, name="backup")


@backup_app.command()
def now(as_json: AsJson = False) -> None:
    """Back the server up now. It takes its database, configuration, keys and secrets. `scheduler serve` does it
    nightly.

    \b
    Examples:
      scheduler server backup now
      scheduler server backup now --json
    """
    with opened_state() as state:
        kept = back_up_server(configuration(), state)
    if as_json:
        print_json(
            {
                "repository": kept.repository,
                "point": kept.point,
                "size_bytes": kept.size_bytes,
                "removed": list(kept.removed),
            }
        )
        return
    removed = f"; {plural(len(kept.removed), 'older one')} given up" if kept.removed else ""
    note(f"Backed the server up to {kept.repository}: {kept.point}, {size(kept.size_bytes)}{removed}.")


@backup_app.command("list")
def list_backups(as_json: AsJson = False) -> None:
    """List the backups of the server, the newest first.

    \b
    Examples:
      scheduler server backup list
      scheduler server backup list --json | jq -r '.[0].point'
    """
    with opened_state() as state, state.read() as session:
        archives = shelf_of(configuration(), session).archives()
    if as_json:
        print_json(
            [{"point": one.point, "made": iso(one.made_at), "size_bytes": one.size_bytes} for one in archives]
        )
        return
    show_rows(
        {
            "POINT": [one.point for one in archives],
            "MADE": [moment(one.made_at) for one in archives],
            "SIZE": [size(one.size_bytes) for one in archives],
        },
        right=("SIZE",),
    )


@app.command()
def restore(
    *,
    repository: Annotated[str, typer.Option(metavar="PATH", help="The repository's folder.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the server.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The repository's passphrase; none if it isn't encrypted.")
    ] = None,
    recovery_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the backup is sealed with, if that isn't the repository's passphrase."
        ),
    ] = None,
    point: Annotated[str | None, typer.Option(metavar="ID", help="Which backup; the newest unless told.")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An empty PostgreSQL database to fill, instead of SQLite in FOLDER."),
    ] = None,
    database_password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The password of its user.")
    ] = None,
    database_ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The authority that certified that database's server: TLS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore the backup server into a new folder. It needs the repository and the passphrase, and nothing else.

    \b
    Examples:
      scheduler server restore --repository /backup/main --passphrase-file main.passphrase --to /var/lib/proxyfleet
      scheduler serve --config /var/lib/proxyfleet/scheduler.toml
    """
    sealed_with = recovery_passphrase_file or passphrase_file
    if sealed_with is None:
        raise RecoveryPassphraseError(
            "restore of the server",
            why="no passphrase is given",
            remedy="Give --passphrase-file, or --recovery-passphrase-file if the repository isn't encrypted.",
        )
    passphrase = read_secret(sealed_with, "recovery passphrase").encode()
    database = None
    if database_url is not None:
        refuse_password(database_url, "--database-url", "give --database-password-file")
        secret = database_password_file
        password = read_secret(secret, "password of the database") if secret is not None else None
        database = DatabaseAccess(database_url, password, database_ca_file)
    with tempfile.TemporaryDirectory(prefix="proxyfleet-server-") as fetched:
        archive = Path(fetched) / "archive"
        chosen = Shelf(repository, passphrase_file).fetch(archive, point)
        restored = restore_server(archive, passphrase, to, database)
    if as_json:
        print_json(
            {
                "point": chosen,
                "made": iso(restored.made_at),
                "host": restored.host,
                "folder": str(restored.folder),
                "files": restored.files,
                "rows": restored.rows,
                "database": restored.database,
            }
        )
        return
    note(
        f"Restored the backup server {restored.host!r} as it was at {moment(restored.made_at)} ({chosen}): "
        f"{plural(restored.files, 'file')}, {plural(restored.rows, 'row')} in {restored.database}."
    )
    note(f"Start it: scheduler serve --config {restored.folder / CONFIGURATION}")
