"""`proxy-worker repository reindex`: mend the index."""

from __future__ import annotations

import json

import typer

from proxy_worker.cli.opening import open_repository
from proxy_worker.cli.repository_options import AsJson, KeyFile, Location, PassphraseFile
from proxy_worker.repository.reindex import reindex

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def reindex_repository(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild index fragments that are missing or damaged from what packs say of themselves.

    \b
    Examples:
      proxy-worker repository reindex /backup/main --passphrase-file main.passphrase
    """
    with open_repository(repository, passphrase_file=passphrase_file, key_file=key_file) as opened:
        report = reindex(opened.access)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "packs": report.packs,
                    "fragments": report.fragments,
                    "dropped": list(report.dropped),
                    "unreadable": list(report.unreadable_packs),
                }
            )
        )
        return
    typer.echo(f"indexed {report.packs} packs again in {report.fragments} fragments")
    for name in report.dropped:
        typer.echo(f"  replaced {name}")
    for pack in report.unreadable_packs:
        typer.echo(f"  left out {pack}")
