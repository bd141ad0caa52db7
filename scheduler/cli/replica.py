"""`scheduler replica`: VMs that are kept ready at another site, and what is done when one is needed."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import select

from scheduler.cli import completion
from scheduler.cli.arguments import AsJson
from scheduler.cli.finding import find_job
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, console, moment, note, print_json, show_rows, state
from scheduler.cli.printing import show as print_view
from scheduler.cli.replica_record import ReplicaRecord, operation_line, replica_record, replica_summary
from scheduler.cli.watching import Told, Watch
from scheduler.replication.asking import ask_for, find_replica
from scheduler.replication.cancelling import ask_to_cancel
from scheduler.replication.forgetting import forget_replica
from scheduler.state.models import Replica, ReplicaOperationKind
from scheduler.state.store import State

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Look at replicas, fail over to them and back.",
)

ReplicaName = Annotated[
    str,
    typer.Argument(
        metavar="REPLICA", help="The replica's name or id, or the VM's name.", autocompletion=completion.replicas
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done, and exit with its code.")]


@app.command("list")
def list_replicas(
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only replicas of this job.", autocompletion=completion.jobs)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List replicas and what each of them is now.

    \b
    Examples:
      scheduler replica list
      scheduler replica list --job away --json | jq '.[] | select(.state == "failed over").name'
    """
    wanted = select(Replica).order_by(Replica.name, Replica.id)
    with opened_state() as opened, opened.read() as session:
        if job is not None:
            wanted = wanted.where(Replica.job == find_job(session, job).name)
        records = [replica_record(session, replica, Live()) for replica in session.scalars(wanted)]
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
    elif not records:
        note("There are no replicas. `scheduler job create --kind replication --help` shows how to make some.")
    else:
        columns: Columns = {
            "REPLICA": [Text(record.name) for record in records],
            "STATE": [state(record.state) for record in records],
            "VM": [Text(record.vm) for record in records],
            "JOB": [Text(record.job) for record in records],
            "DATASTORE": [Text(record.datastore) for record in records],
            "POINTS": [str(len(record.points)) for record in records],
            "NEWEST": [moment(record.points[-1].created) if record.points else "-" for record in records],
        }
        show_rows(columns, right=("POINTS",), spare=("JOB", "DATASTORE"))


@app.command()
def show(replica: ReplicaName, as_json: AsJson = False) -> None:
    """Show a replica and its restore points.

    And where it lies, what was asked for last, and how far that is.

    \b
    Examples:
      scheduler replica show web01_replica
      scheduler replica show web01 --json | jq -r '.points[-1].point'
    """
    with opened_state() as opened:
        _print(_read(opened, replica, LedgerWindow()), as_json=as_json)


@app.command()
def failover(
    replica: ReplicaName,
    point: Annotated[
        str | None,
        typer.Option(
            metavar="POINT",
            help="The restore point to start from; the newest unless told.",
            autocompletion=completion.replica_points,
        ),
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Have a replica take its original's place.

    It is what it was at a restore point, and its job leaves it alone from then on. What is changed in it can be
    brought back (`failback`), thrown away (`undo`), or kept for good (`permanent`).

    \b
    Examples:
      scheduler replica failover web01 --wait
      scheduler replica failover web01_replica --point 20261122T190102Z-1a2b3c4d
    """
    _ask(ReplicaOperationKind.FAILOVER, replica, point=point, wait=wait, as_json=as_json)


@app.command("planned-failover")
def planned_failover(replica: ReplicaName, wait: Wait = False, as_json: AsJson = False) -> None:
    """Run the job once more, then fail over.

    Nothing is lost. Shut the original down first, and leave it off.

    \b
    Examples:
      scheduler replica planned-failover web01 --wait
    """
    _ask(ReplicaOperationKind.PLANNED_FAILOVER, replica, wait=wait, as_json=as_json)


@app.command()
def undo(replica: ReplicaName, wait: Wait = False, as_json: AsJson = False) -> None:
    """Take back a failover or a failback.

    After a failover the replica is again what it was at its newest restore point, and what was changed in it since
    is lost. After a failback the original is again what it was before, and the replica goes on in its place.

    \b
    Examples:
      scheduler replica undo web01 --wait
    """
    _ask(ReplicaOperationKind.UNDO, replica, wait=wait, as_json=as_json)


@app.command()
def permanent(replica: ReplicaName, wait: Wait = False, as_json: AsJson = False) -> None:
    """Make a replica a VM of its own, for good.

    It has to be failed over. Its restore points are removed, and its job doesn't touch it any more: exclude the VM
    from the job.

    \b
    Examples:
      scheduler replica permanent web01_replica --wait
    """
    _ask(ReplicaOperationKind.PERMANENT, replica, wait=wait, as_json=as_json)


@app.command()
def failback(replica: ReplicaName, wait: Wait = False, as_json: AsJson = False) -> None:
    """Bring a replica's changes to the original.

    It has to be failed over. Shut both down first. The original is kept as it is, so that `undo` can return to it;
    `commit` ends it. Only what differs is sent. A failback that fails leaves the original as it was.

    \b
    Examples:
      scheduler replica failback web01 --wait
    """
    _ask(ReplicaOperationKind.FAILBACK, replica, wait=wait, as_json=as_json)


@app.command()
def commit(replica: ReplicaName, wait: Wait = False, as_json: AsJson = False) -> None:
    """End a failback for good.

    The original goes on with what was brought back, and the replica is a standby again.

    \b
    Examples:
      scheduler replica commit web01 --wait
    """
    _ask(ReplicaOperationKind.COMMIT, replica, wait=wait, as_json=as_json)


@app.command()
def cancel(replica: ReplicaName) -> None:
    """Cancel what was asked for a replica and is under way.

    A failover that has begun is taken back, and what a failback has written of the original is taken out of it.
    Of the others, what a proxy has begun is finished. `replica show` says what it came to.

    \b
    Examples:
      scheduler replica cancel web01
    """
    with opened_state() as opened:
        with opened.write() as session:
            operation = ask_to_cancel(session, replica)
            what = f"{operation.kind.value} of {find_replica(session, replica).name}"
        note(f"The {what} is being cancelled.")
        warn_without_service(opened, "it ends")


@app.command()
def forget(replica: ReplicaName, as_json: AsJson = False) -> None:
    """Forget a replica that its job doesn't make any more.

    Its files stay where they are, and this says where. It has to be a standby or permanent, and its job deleted.

    \b
    Examples:
      scheduler replica forget web01_replica
      scheduler replica forget web01_replica --json | jq -r .folder
    """
    with opened_state() as opened, opened.write() as session:
        record = replica_record(session, find_replica(session, replica), Live())
        forget_replica(session, replica)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        typer.echo(f"Replica {record.name} is forgotten.")
        kept = f", with its restore points ({len(record.points)})" if record.points else ""
        note(f"Its files stay: folder {record.folder} of datastore {record.datastore}{kept}.")


def _ask(kind: ReplicaOperationKind, replica: str, *, wait: bool, as_json: bool, point: str | None = None) -> None:
    with opened_state() as opened:
        if wait:
            require_service(opened, f"{kind.value} of replica {replica!r} was not asked for")
        with opened.write() as session:
            replica_id = ask_for(session, kind, replica, now=time.time(), point=point).replica_id
        if wait:
            _follow(opened, replica_id, as_json=as_json)
        record = _read(opened, replica_id)
        if as_json:
            print_json(record.model_dump(mode="json"))
        else:
            typer.echo(f"Requested {kind.value} of {record.name}.")
            note(f"See how far it is with `scheduler replica show {record.name}`.")
        warn_without_service(opened, "it starts")


def _follow(opened: State, replica_id: str, *, as_json: bool) -> None:
    """Say how far it is until it has ended, then exit with its code."""
    window = LedgerWindow()
    out = console(sys.stderr if as_json else sys.stdout)
    told = Told()
    watch = Watch(
        lambda: _read(opened, replica_id, window),
        ended=lambda record: record.operation is None or record.operation.final,
        view=lambda record, _: _line(record),
        news=lambda record: [line] if told.is_news(replica_id, line := operation_line(record)) else [],
        on_interrupt=(
            f"It goes on.\n  see it: scheduler replica show {replica_id}\n"
            f"  end it: scheduler replica cancel {replica_id}"
        ),
    )
    record = watch.until_ended(out, quiet=as_json and not out.is_terminal)
    _print(record, as_json=as_json)
    raise typer.Exit(record.operation.exit_code if record.operation is not None else 0)


def _line(record: ReplicaRecord) -> RenderableType:
    return Text(operation_line(record))


def _read(opened: State, replica: str, window: LedgerWindow | None = None) -> ReplicaRecord:
    with opened.read() as session:
        live = window.look(session) if window is not None else Live()
        return replica_record(session, find_replica(session, replica), live)


def _print(record: ReplicaRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_view(replica_summary(record))
