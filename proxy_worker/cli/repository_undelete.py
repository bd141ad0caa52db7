"""`proxy-worker repository undelete`: bring back what was deleted or overwritten though it was locked."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from proxy_worker.cli.repository_options import AsJson, Location
from proxy_worker.cli.store_requests import requests_json, show_requests
from proxy_worker.repository.undeleting import bring_back, forget_ends, hidden_objects, require_versions
from proxy_worker.repository.unlocking import open_store

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def undelete(
    repository: Location,
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POINT", help="Bring back this restore point although it was removed; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would come back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring back what somebody has deleted or overwritten in a bucket, though object lock kept it.

    It needs a key of the store, and none of the repository. Restore points that were removed stay so, unless
    --point names them; passphrases that were removed come back while they are locked: remove them again.

    \b
    Examples:
      proxy-worker repository undelete 's3://backup/main?endpoint=https://s3.example' --dry-run
      proxy-worker repository undelete 's3://backup/main?endpoint=https://s3.example'
      proxy-worker repository undelete 's3://backup/main?region=eu-1' --point 20261122T190102Z-1a2b3c4d
    """
    store = require_versions(open_store(repository), repository)
    found = []
    removed = frozenset(point or ())
    if not dry_run:
        forget_ends(store, removed)
    for hidden in hidden_objects(store, wanted=removed):
        if not dry_run:
            bring_back(store, hidden)
        found.append({"object": hidden.name, "how": hidden.how, "at": hidden.at})
        if not as_json:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(hidden.at))
            typer.echo(f"{'would bring' if dry_run else 'brought'} back {hidden.name}: {hidden.how} {when} UTC")
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "objects": found, "requests": requests_json(store)}, indent=2))
        return
    if not found:
        typer.echo("nothing that was locked is deleted or overwritten")
    elif not dry_run:
        typer.echo("now change the store's keys, then: `proxy-worker repository reindex`, `check`")
    show_requests(store)
