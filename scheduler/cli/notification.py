"""`scheduler notification`: who is told how runs ended."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import NotFoundError
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.printing import Columns, ago, iso, note, print_json, show_rows
from scheduler.fleet.editing import declare, withdraw
from scheduler.notifications.counting import counts
from scheduler.planning.addressees import MailSecurity, NotifyWhen
from scheduler.state.asking import find_run, new_id
from scheduler.state.models import Delivery, DeliveryState, Notification, Run, RunState

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Tell servers and people how runs ended.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NOTIFICATION", help="The notification's name.", autocompletion=completion.notifications
    ),
]


class NoSuchNotificationError(NotFoundError):
    """No notification has that name."""


class NothingToTellError(NotFoundError):
    """No run has ended yet that a test could tell of."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NOTIFICATION", help="The new notification's name.")],
    *,
    when: Annotated[
        NotifyWhen, typer.Option(help="Which runs' ends are told: all, those with warnings or failures, failures.")
    ] = NotifyWhen.WARNING,
    jobs: Annotated[
        list[str] | None,
        typer.Option("--job", metavar="JOB", help="Of which jobs, by name or pattern; all unless told."),
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="The server to tell.")] = None,
    url_credential: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Instead, the secret NAME.url holds it."),
    ] = None,
    signing_credential: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The secret NAME.secret signs what is sent."),
    ] = None,
    mail_to: Annotated[
        list[str] | None,
        typer.Option("--mail-to", metavar="ADDRESS", help="Whom to send mail to."),
    ] = None,
    mail_from: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Whom mail is from.")] = None,
    server: Annotated[str | None, typer.Option(metavar="HOST", help="The mail server.")] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Its port; the usual one unless told."),
    ] = None,
    security: Annotated[
        MailSecurity, typer.Option(help="How the connection to it is protected.")
    ] = MailSecurity.STARTTLS,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Whom to log in as.")] = None,
    credential: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The secret NAME.password of that user."),
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Authorities that verify the server; the system's unless told."),
    ] = None,
) -> None:
    """Have a server or people told how runs end. Secrets are files in the scheduler's secrets folder, by name.

    `scheduler notification test` tries it.

    \b
    Examples:
      scheduler notification add chat --url-credential chat --when failure
      scheduler notification add tickets --url https://tickets.example.com/backup --signing-credential tickets
      scheduler notification add admins --mail-to admins@example.com --mail-from backup@example.com \\
        --server mail.example.com --user backup --credential mail
    """
    given_webhook = {"url": url, "url_credential": url_credential, "signing_credential": signing_credential}
    given_email = {"to": mail_to, "sender": mail_from, "server": server, "port": port, "user": user}
    given_email |= {"credential": credential}
    webhook = {key: value for key, value in given_webhook.items() if value is not None}
    email = {key: value for key, value in given_email.items() if value is not None}
    if email:
        email["security"] = security.value
    if bool(webhook) == bool(email):
        raise typer.BadParameter(
            "give either --url or --url-credential, for a server, or --mail-to with --mail-from and --server"
        )
    for channel in (webhook, email):
        if channel and ca_file is not None:
            channel["ca_file"] = ca_file
    keys = {
        "name": name,
        "when": when.value,
        "jobs": jobs or None,
        "webhook": webhook or None,
        "email": email or None,
    }
    with opened_state(migrate=True) as state, state.write() as session:
        declare(session, "notification", keys)
    note(f"Added notification {name}. `scheduler notification test {name}` tries it.")


@app.command("list")
def list_notifications(as_json: AsJson = False) -> None:
    """List notifications, and what became of what they were to tell.

    \b
    Examples:
      scheduler notification list
      scheduler notification list --json | jq '.[] | select(.waiting > 0)'
    """
    with opened_state() as state, state.read() as session:
        rows = session.scalars(select(Notification).order_by(Notification.name)).all()
        shown = [_as_json(session, row) for row in rows]
    if as_json:
        print_json([{**one, "last_told": iso(one["last_told"])} for one in shown])
        return
    if not shown:
        note("There are no notifications. `scheduler notification add --help` shows how to add one.")
        return
    columns: Columns = {
        "NOTIFICATION": [Text(one["name"]) for one in shown],
        "WHEN": [one["when"] if one["enabled"] else "never (disabled)" for one in shown],
        "JOBS": [Text(", ".join(one["jobs"])) for one in shown],
        "TO": [Text(one["to"]) for one in shown],
        "TOLD": [str(one["delivered"]) for one in shown],
        "LAST": [ago(one["last_told"]) for one in shown],
        "WAITING": [str(one["waiting"]) for one in shown],
        "GIVEN UP": [str(one["given_up"]) for one in shown],
        "PROBLEM": [Text(one["problem"] or "-") for one in shown],
    }
    show_rows(columns, right=("TOLD", "WAITING", "GIVEN UP"), spare=("JOBS", "GIVEN UP", "LAST"))


@app.command("test")
def try_out(
    name: Name,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Which run's end; the newest unless told.", autocompletion=completion.runs
        ),
    ] = None,
) -> None:
    """Send a test. It tells of a run that has ended, now and from here, marked as a test, and says what goes
    wrong.

    \b
    Examples:
      scheduler notification test admins
      scheduler notification test admins --run 20261122T190102Z-1a2b3c4d
    """
    from scheduler.notifications.letter import Letter  # noqa: PLC0415 - with what sends: slow, and for this alone
    from scheduler.notifications.postman import deliver  # noqa: PLC0415 - as above
    from scheduler.reports.run_report import run_report  # noqa: PLC0415 - as above

    with opened_state() as state, state.read() as session:
        row = _find(session, name)
        report = run_report(session, _ended_run(session, run))
    letter = Letter(new_id(time.time()), row.name, report, test=True)
    deliver(letter, row.webhook, row.email, configuration().secrets_dir)
    note(f"Told {_target(row)} of run {report.run}.")


@app.command()
def remove(name: Name) -> None:
    """Remove a notification, with what it still had to tell.

    \b
    Examples:
      scheduler notification remove chat
    """
    with opened_state() as state:
        with state.write() as session:
            _find(session, name)
            withdraw(session, "notification", name)
        note(f"Removed notification {name}.")


def _find(session: Session, name: str) -> Notification:
    row = session.get(Notification, name)
    if row is None:
        raise NoSuchNotificationError(
            f"notification {name!r}",
            why="no notification has that name",
            remedy="`scheduler notification list` shows them.",
        )
    return row


def _ended_run(session: Session, run: str | None) -> Run:
    if run is not None:
        return find_run(session, run)
    ended = select(Run).where(Run.state.in_([state for state in RunState if state.final]))
    newest = session.scalars(ended.order_by(Run.ended_at.desc()).limit(1)).first()
    if newest is None:
        raise NothingToTellError("a test", why="no run has ended yet", remedy="`scheduler job start JOB --wait`.")
    return newest


def _as_json(session: Session, row: Notification) -> dict[str, Any]:
    of_it = select(Delivery).where(Delivery.notification == row.name).order_by(Delivery.created_at.desc()).limit(1)
    told = session.scalars(of_it.where(Delivery.state == DeliveryState.DELIVERED)).first()
    trouble = session.scalars(of_it.where(Delivery.state != DeliveryState.DELIVERED, Delivery.error != "")).first()
    counted = counts(session, row.name)
    return {
        "name": row.name,
        "when": row.when.value,
        "jobs": list(row.jobs),
        "to": _target(row),
        "enabled": row.enabled,
        "delivered": counted[DeliveryState.DELIVERED],
        "last_told": told.ended_at if told is not None else None,
        "waiting": counted[DeliveryState.WAITING],
        "given_up": counted[DeliveryState.GIVEN_UP],
        "problem": trouble.error if trouble is not None else None,
    }


def _target(row: Notification) -> str:
    if row.email is not None:
        return ", ".join(row.email.to)
    assert row.webhook is not None  # noqa: S101 - a declaration has one or the other
    return row.webhook.url or f"{row.webhook.url_credential}.url"
