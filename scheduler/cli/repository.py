"""`scheduler repository`: where restore points live. The work on it is done by proxies that reach it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.ledger import FleetView
from proxy_worker.program.units import size
from scheduler.cli import completion
from scheduler.cli.absent_proxies import warn_of_absent_proxies
from scheduler.cli.arguments import AsJson, RepositoryName, Site, Wait
from scheduler.cli.finding import find_repository
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, facts, iso, moment, note, plural, print_json, show_rows
from scheduler.cli.printing import show as print_view
from scheduler.cli.repository_images import export_image, import_images
from scheduler.cli.upkeep import follow, read_upkeep, upkeep_record
from scheduler.dispatch.fleet import stands_at
from scheduler.fleet.editing import declare, withdraw
from scheduler.fleet.stored import stored_fleet
from scheduler.state.asking import ask_for_upkeep
from scheduler.state.models import Point, Repository, Request, RequestKind
from scheduler.state.proven import damaged_points, proof_figures

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Add repositories, rescan and check them.",
)
app.command("import")(import_images)
app.command("export")(export_image)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="REPOSITORY", help="The new repository's name.")],
    *,
    location: Annotated[str, typer.Option(metavar="PATH", help="Its folder, as its proxies see it, or its URL.")],
    credential: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The secret that opens it: NAME.key or NAME.passphrase; none if not encrypted."
        ),
    ] = None,
    site: Site = "primary",
    host: Annotated[
        str | None, typer.Option(metavar="IP", help="The address of its machine, for traffic rules.")
    ] = None,
    proxies: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            metavar="PROXY",
            help="A proxy that reaches it; all of its site unless told.",
            autocompletion=completion.proxies,
        ),
    ] = None,
    max_concurrent_tasks: Annotated[
        int | None, typer.Option(metavar="COUNT", help="How many disks may be moved to or from it at once.")
    ] = None,
    hardened: Annotated[
        bool, typer.Option("--hardened", help="Its gateway keeps it hardened: see docs/hardened-repository.md.")
    ] = False,
) -> None:
    """Add a repository that `proxy-worker repository init` has made.

    Points that it holds already are known after `scheduler repository rescan`.

    \b
    Examples:
      scheduler repository add main --location /backup/main --credential main
      scheduler repository add vault --location /vault --credential vault --proxy proxy-1 --proxy proxy-2
    """
    keys = {
        "name": name,
        "location": location,
        "site": site,
        "credential": credential,
        "host": host,
        "proxies": proxies or None,
        "max_concurrent_tasks": max_concurrent_tasks,
        "hardened": hardened or None,
    }
    with opened_state(migrate=True) as state, state.write() as session:
        declare(session, "repository", keys)
        fleet = stored_fleet(session)
    warn_of_absent_proxies(fleet, f"repository {name!r}")
    note(f"Added repository {name}. `scheduler repository rescan {name}` reads which restore points it holds.")


@app.command("list")
def list_repositories(as_json: AsJson = False) -> None:
    """List repositories, what they hold, and which proxies reach them.

    \b
    Examples:
      scheduler repository list
      scheduler repository list --json | jq '.[] | {name, points, proxies}'
    """
    view = LedgerWindow().look().view
    with opened_state() as state, state.read() as session:
        repositories = session.scalars(select(Repository).order_by(Repository.name)).all()
        shown = [_as_json(session, repository, view) for repository in repositories]
    if as_json:
        print_json(shown)
        return
    if not shown:
        note("There are no repositories. `scheduler repository add --help` shows how to add one.")
        return
    columns: Columns = {
        "REPOSITORY": [Text(one["name"]) for one in shown],
        "SITE": [Text(one["site"]) for one in shown],
        "LOCATION": [Text(one["location"]) for one in shown],
        "VMS": [str(one["vms"]) for one in shown],
        "POINTS": [str(one["points"]) for one in shown],
        "STORED": [size(one["stored_bytes"]) for one in shown],
        "REACHED BY": [Text(", ".join(one["proxies"]) or "no proxy that is up") for one in shown],
        "LAST CHECK": [_last_check(one["last_check"]) for one in shown],
    }
    show_rows(columns, right=("VMS", "POINTS", "STORED"), spare=("LOCATION", "SITE", "STORED"))


@app.command()
def show(name: RepositoryName, as_json: AsJson = False) -> None:
    """Show a repository. It says what that holds, how well that is proven, and which restore points wait for
    repair.

    \b
    Examples:
      scheduler repository show main
      scheduler repository show main --json | jq '.damaged'
    """
    view = LedgerWindow().look().view
    with opened_state() as state, state.read() as session:
        repository = find_repository(session, name)
        shown = _as_json(session, repository, view)
        waiting = [
            {"vm": point.vm_name, "point": point.point} for point in damaged_points(session, repository.name)
        ]
    if as_json:
        print_json({**shown, "damaged": waiting})
        return
    proof = shown["proof"]
    points, vms = plural(shown["points"], "restore point"), plural(shown["vms"], "VM")
    rows: list[tuple[str, str | Text]] = [
        ("repository", Text(shown["name"])),
        ("location", Text(f"{shown['location']} at {shown['site']}")),
        *(
            [("hardened", "yes: what it holds can't be changed or deleted for a while")]
            if shown["hardened"]
            else []
        ),
        ("holds", f"{points} of {vms}, {size(shown['stored_bytes'])}"),
        ("reached by", Text(", ".join(shown["proxies"]) or "no proxy that is up")),
        ("proven", _proven(proof, shown["points"])),
        ("last proof", _last_check(shown["last_proof"])),
        ("last check", _last_check(shown["last_check"])),
        ("last collection", _last_check(shown["last_collection"])),
    ]
    print_view(facts(rows))
    for kept in (shown["last_collection"] or {}).get("kept", ()):
        print_view(Text(f"the last collection kept {kept}"))
    for point in waiting:
        print_view(Text(f"waits for repair: {point['vm']} {point['point']}", style="red"))


@app.command()
def rescan(name: RepositoryName, wait: Wait = True, as_json: AsJson = False) -> None:
    """Learn which restore points a repository holds. A proxy reads them, and the catalogue is brought up to date.

    \b
    Examples:
      scheduler repository rescan main
    """
    _ask(RequestKind.RESCAN, name, wait=wait, as_json=as_json)


@app.command()
def check(
    name: RepositoryName,
    scrub: Annotated[
        bool, typer.Option("--scrub", help="Compare stored checksums only, which is faster and needs no key.")
    ] = False,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Have a proxy read everything a repository holds. Exits 5 and names what is damaged, if anything is.

    \b
    Examples:
      scheduler repository check main
      scheduler repository check main --scrub --json
    """
    _ask(RequestKind.SCRUB if scrub else RequestKind.CHECK, name, wait=wait, as_json=as_json)


@app.command()
def prove(name: RepositoryName, wait: Wait = True, as_json: AsJson = False) -> None:
    """Have a proxy read what was read longest ago. It mends what is damaged, and restores samples.

    It happens by itself, as the repository's key `prove` says, a share each time. Exits 5 if damage is left.

    \b
    Examples:
      scheduler repository prove main
    """
    _ask(RequestKind.PROVE, name, wait=wait, as_json=as_json)


@app.command()
def collect(name: RepositoryName, wait: Wait = False, as_json: AsJson = False) -> None:
    """Have a proxy free what no restore point needs any more.

    Backups and restores go on meanwhile. What a backup at work may need stays until the next collection.

    \b
    Examples:
      scheduler repository collect main --wait
    """
    _ask(RequestKind.COLLECT, name, wait=wait, as_json=as_json)


@app.command()
def remove(name: RepositoryName) -> None:
    """Remove a repository that no job names. Its files stay, with all restore points in them.

    Declared again, it shows them after `scheduler repository rescan`.

    \b
    Examples:
      scheduler repository remove vault
    """
    with opened_state() as state, state.write() as session:
        find_repository(session, name)
        withdraw(session, "repository", name)
    note(f"Removed repository {name} from the fleet. Its files stay.")


def _ask(kind: RequestKind, repository: str, *, wait: bool, as_json: bool) -> None:
    with opened_state() as state:
        with state.read() as session:
            find_repository(session, repository)
        if wait:
            require_service(state, f"{kind.value} {repository!r} was not asked for")
        with state.write() as session:
            request_id = ask_for_upkeep(session, kind, repository, now=time.time()).id
        if wait:
            follow(state, request_id, as_json=as_json, where="`scheduler repository list`")
        elif as_json:
            print_json(read_upkeep(state, request_id).model_dump(mode="json"))
        else:
            note("Requested; `scheduler repository list` shows the outcome.")
        warn_without_service(state, "this starts")


def _as_json(session: Session, repository: Repository, view: FleetView | None) -> dict[str, Any]:
    points = session.scalars(select(Point).where(Point.repository == repository.name)).all()
    proof = proof_figures(session, repository.name)
    return {
        "name": repository.name,
        "site": repository.site,
        "location": repository.location,
        "credential": repository.credential,
        "repository_id": repository.repository_id,
        "max_concurrent_tasks": repository.max_concurrent_tasks,
        "vms": len({point.vm_id for point in points}),
        "points": len(points),
        "stored_bytes": sum(disk.stored_bytes for point in points for disk in point.disks),
        "proxies": _reached_by(repository, view),
        "last_rescan": _last(session, repository.name, RequestKind.RESCAN),
        "last_check": _last(session, repository.name, RequestKind.CHECK, RequestKind.SCRUB),
        "last_collection": _last(session, repository.name, RequestKind.COLLECT),
        "last_proof": _last(session, repository.name, RequestKind.PROVE),
        "hardened": repository.hardened,
        "linked": list(repository.linked),
        "proof": {
            "unproven": proof.unproven,
            "damaged": proof.damaged,
            "booted": proof.booted,
            "without_prompt": proof.unbootable,
            "oldest": iso(proof.oldest_proof_at) if proof.oldest_proof_at is not None else None,
        },
    }


def _reached_by(repository: Repository, view: FleetView | None) -> list[str]:
    """The proxies that are up, reach the repository and can open it."""
    return sorted(
        proxy.name
        for proxy in (view.proxies.values() if view is not None else ())
        if proxy.live
        and (repository.credential is None or repository.credential in proxy.registration.credentials)
        and stands_at(repository.site, repository.proxies, proxy.registration.site, proxy.name)
    )


def _proven(proof: dict[str, Any], points: int) -> Text:
    if proof["damaged"]:
        return Text(f"{plural(proof['damaged'], 'restore point')} damaged", style="red")
    if proof["unproven"]:
        return Text(f"{points - proof['unproven']} of {plural(points, 'restore point')}", style="yellow")
    return Text(f"all since {_local(proof['oldest'])}" if proof["oldest"] else "-")


def _last_check(check: dict[str, Any] | None) -> Text:
    if check is None:
        return Text("never")
    return Text(f"{_local(check['at'])}: {check['outcome'] or check['state']}")


def _local(iso_time: str) -> str:
    """A time of JSON, as tables show times."""
    return moment(datetime.fromisoformat(iso_time).timestamp())


def _last(session: Session, repository: str, *kinds: RequestKind) -> dict[str, Any] | None:
    newest = select(Request).where(Request.repository == repository, Request.kind.in_(kinds))
    request = session.scalars(newest.order_by(Request.created_at.desc(), Request.id.desc()).limit(1)).first()
    if request is None:
        return None
    record = upkeep_record(session, request, Live())
    return {
        "kind": record.kind,
        "at": iso(request.created_at),
        "state": record.state,
        "outcome": record.outcome,
        "kept": list(record.kept),
    }
