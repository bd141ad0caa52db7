"""`scheduler point`: the restore points that the catalogue knows."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text
from sqlalchemy import select

from proxy_worker.contract.using import BootWishes
from proxy_worker.program.units import size
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, InRepository, NewestPoint, VmName, Wait
from scheduler.cli.finding import find_repository
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, facts, iso, moment, note, print_json, show_rows, table
from scheduler.cli.printing import show as print_view
from scheduler.cli.upkeep import follow, read_upkeep
from scheduler.restores.left_out import left_out
from scheduler.state.asking import (
    ask_to_boot,
    ask_to_delete,
    copies_of,
    find_only_point,
    find_point,
    points_of,
)
from scheduler.state.asking import pin as set_pin
from scheduler.state.models import Point

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Look at, pin, remove and prove restore points.",
)

PointName = Annotated[
    str, typer.Argument(metavar="POINT", help="The restore point.", autocompletion=completion.points)
]


@app.command("list")
def list_points(
    vm: Annotated[
        str | None, typer.Option(metavar="VM", help="Only of this VM.", autocompletion=completion.vms)
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only in this repository.", autocompletion=completion.repositories),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List restore points, by VM, the newest first.

    \b
    Examples:
      scheduler point list
      scheduler point list --vm web01 --json | jq -r '.[0].point'
    """
    wanted = select(Point).order_by(Point.vm_name, Point.created_at.desc(), Point.point.desc())
    with opened_state() as state, state.read() as session:
        if repository is not None:
            wanted = wanted.where(Point.repository == find_repository(session, repository).name)
        if vm is not None:
            points_of(session, vm, repository=repository)
            wanted = wanted.where((Point.vm_name == vm) | (Point.vm_id == vm))
        points = session.scalars(wanted).all()
    if as_json:
        print_json([_as_json(point) for point in points])
        return
    if not points:
        note("No restore points are known. `scheduler repository rescan` looks for those of a repository.")
        return
    columns: Columns = {
        "VM": [Text(point.vm_name) for point in points],
        "POINT": [point.point for point in points],
        "CREATED": [moment(point.created_at) for point in points],
        "DISKS": [str(len(point.disks)) for point in points],
        "SIZE": [size(sum(disk.size_bytes for disk in point.disks)) for point in points],
        "STORED": [size(sum(disk.stored_bytes for disk in point.disks)) for point in points],
        "PROVEN": [_proven(point) for point in points],
        "REPOSITORY": [Text(point.repository) for point in points],
    }
    show_rows(columns, right=("DISKS", "SIZE", "STORED"), spare=("CREATED", "REPOSITORY", "DISKS"))


@app.command()
def show(
    vm: VmName,
    point: NewestPoint = None,
    repository: InRepository = None,
    as_json: AsJson = False,
) -> None:
    """Show a restore point of a VM with its disks. Of several copies it is the original, unless told.

    \b
    Examples:
      scheduler point show web01
      scheduler point show web01 --repository second
      scheduler point show web01 20261122T190102Z-1a2b3c4d --json
    """
    with opened_state() as state, state.read() as session:
        found = find_point(session, vm, point, repository=repository)
        missing = left_out(session, found)
        copies = copies_of(session, found)
    if as_json:
        print_json({**_as_json(found), "left_out": list(missing), "also_in": copies})
        return
    disks = table("DISK", "SIZE", "STORED", right=("SIZE", "STORED"))
    for disk in found.disks:
        disks.add_row(disk.key, size(disk.size_bytes), size(disk.stored_bytes))
    rows: list[tuple[str, str | Text]] = [
        ("point", found.point),
        ("VM", f"{found.vm_name} ({found.vm_id})"),
        ("created", moment(found.created_at)),
        ("repository", found.repository),
        ("also in", ", ".join(copies) or "-"),
        ("job", found.job or "-"),
        ("pinned", "yes" if found.pinned else "no"),
        ("last proven", _proven(found)),
        ("sample restored", moment(found.sampled_at) if found.sampled_at is not None else "-"),
        ("VM started", _started(found)),
    ]
    if missing:
        rows.append(("left out", Text(f"{', '.join(missing)}, by the job", style="yellow")))
    first = found.disks[0].key if found.disks else "KEY"
    print_view(Group(facts(rows), "", disks))
    where = f" --repository {found.repository}" if copies else ""
    restoring = f"scheduler restore disk --vm {vm} --point {found.point}{where} --disk {first} --to PATH --wait"
    note(f"Restore with `{restoring}`.")


@app.command()
def delete(vm: VmName, point: PointName, repository: InRepository = None, as_json: AsJson = False) -> None:
    """Remove a restore point; no other point is touched. The next collection frees what only it needed.

    \b
    Examples:
      scheduler point delete web01 20261122T190102Z-1a2b3c4d
      scheduler point delete web01 20261122T190102Z-1a2b3c4d --repository second
    """
    with opened_state() as state:
        with state.write() as session:
            found = find_only_point(session, vm, point, repository=repository)
            request = ask_to_delete(session, found, now=time.time(), reason="by hand")
            asked = {"request": request.id, "vm": request.vm_name, "point": request.point}
        if as_json:
            print_json(asked)
        else:
            note(f"Restore point {point} of {vm} is to be removed; `scheduler point list` shows when it is gone.")
        warn_without_service(state, "it is removed")


@app.command()
def pin(vm: VmName, point: PointName, repository: InRepository = None, as_json: AsJson = False) -> None:
    """Have a restore point stay, whatever its job keeps.

    \b
    Examples:
      scheduler point pin web01 20261122T190102Z-1a2b3c4d
    """
    _pin(vm, point, repository, pinned=True, as_json=as_json)


@app.command()
def unpin(vm: VmName, point: PointName, repository: InRepository = None, as_json: AsJson = False) -> None:
    """Leave a restore point to what its job keeps again.

    \b
    Examples:
      scheduler point unpin web01 20261122T190102Z-1a2b3c4d
    """
    _pin(vm, point, repository, pinned=False, as_json=as_json)


@app.command()
def boot(
    vm: VmName,
    point: NewestPoint = None,
    *,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What its first serial port is to say; a login prompt unless told."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.01, max=1440, help="How long it is waited for.")
    ] = 5.0,
    repository: InRepository = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Prove that a Linux VM starts from a restore point. A proxy starts it in QEMU and waits for its login
    prompt.

    Nothing is restored and nothing is changed; the VM has no network. `scheduler point show` says how it went.
    Exits 1 if it shows no prompt. The proxy needs QEMU and a key that reads.

    \b
    Examples:
      scheduler point boot web01
      scheduler point boot db01 20261122T190102Z-1a2b3c4d --minutes 10 --prompt 'database ready' --json
    """
    with opened_state() as state:
        if wait:
            require_service(state, "no VM was started")
        with state.write() as session:
            found = find_point(session, vm, point, repository=repository)
            wishes = BootWishes(prompt=prompt, limit_s=minutes * 60)
            request_id = ask_to_boot(session, found, wishes, now=time.time()).id
        if wait:
            follow(state, request_id, as_json=as_json, where=f"`scheduler point show {vm}`")
        if as_json:
            print_json(read_upkeep(state, request_id).model_dump(mode="json"))
        else:
            note(f"Requested; `scheduler point show {vm}` shows the outcome.")
        warn_without_service(state, "this starts")


def _pin(vm: str, point: str, repository: str | None, *, pinned: bool, as_json: bool) -> None:
    with opened_state() as state, state.write() as session:
        found = find_only_point(session, vm, point, repository=repository)
        set_pin(session, found, pinned=pinned)
        shown = _as_json(found)
    if as_json:
        print_json(shown)
    else:
        note(
            f"Restore point {point} of {vm} " + ("stays until it is unpinned." if pinned else "is pinned no more.")
        )


def _proven(point: Point) -> Text:
    """Since when all that it needs has been read and was sound."""
    if point.damaged:
        return Text("damaged", style="red")
    return Text(moment(point.proven_at)) if point.proven_at is not None else Text("not yet")


def _started(point: Point) -> Text:
    """When a VM was started from it, and whether it asked for a login."""
    if point.booted_at is None:
        return Text("-")
    if point.boot_problem is not None:
        return Text(f"{moment(point.booted_at)}, without a login prompt: {point.boot_problem}", style="red")
    return Text(moment(point.booted_at))


def _as_json(point: Point) -> dict[str, Any]:
    return {
        "vm": point.vm_name,
        "vm_id": point.vm_id,
        "point": point.point,
        "repository": point.repository,
        "job": point.job,
        "created": iso(point.created_at),
        "pinned": point.pinned,
        "last_proven": iso(point.proven_at) if point.proven_at is not None else None,
        "sample_restored": iso(point.sampled_at) if point.sampled_at is not None else None,
        "damaged": point.damaged,
        "vm_started": iso(point.booted_at) if point.booted_at is not None else None,
        "start_problem": point.boot_problem,
        "disks": [
            {"disk": disk.key, "size_bytes": disk.size_bytes, "stored_bytes": disk.stored_bytes}
            for disk in point.disks
        ],
    }
