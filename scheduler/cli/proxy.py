"""`scheduler proxy`: the machines that move disks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from proxy_worker.contract.errors import NotFoundError
from proxy_worker.contract.names import TransportMode
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, OfVm, ProxyName
from scheduler.cli.finding import find_job
from scheduler.cli.live import LedgerWindow
from scheduler.cli.mode_record import ExplainedDisk, ModeRecord
from scheduler.cli.mode_record import explain as explained
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.printing import duration, facts, note, print_json, state, table
from scheduler.cli.printing import show as print_view
from scheduler.cli.proxy_add import add
from scheduler.cli.proxy_deploy import deploy, remove, upgrade
from scheduler.cli.proxy_drain import NoFleetError, drain, resume, set_
from scheduler.cli.proxy_record import ProxyRecord, proxy_records, record_of, server_rows

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Add proxies, look at them, drain and resume them, upgrade and remove them.",
)

for command in (add, drain, resume, deploy, upgrade, remove):
    app.command()(command)
app.command("set")(set_)
app.command("enable", hidden=True)(resume)
app.command("disable", hidden=True)(drain)


class NoSigningKeyError(NotFoundError):
    """The scheduler has not made its signing key yet."""


@app.command("list")
def list_proxies(as_json: AsJson = False) -> None:
    """List proxies with their slots. These are those that are declared, and those that registered themselves.

    \b
    Examples:
      scheduler proxy list
      scheduler proxy list --json | jq '.[] | {name, used, slots}'
    """
    window = LedgerWindow()
    records = _records(window)
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
        return
    if window.problem is not None:
        note(f"warning: what proxies do is not known: {window.problem}")
    if not records:
        note("No proxy is declared or has registered. `scheduler proxy key` prints what a proxy.toml needs.")
        return
    print_view(proxy_table(records))


@app.command()
def show(name: ProxyName, as_json: AsJson = False) -> None:
    """Show a proxy: what it reaches, what it may, what it works on.

    \b
    Examples:
      scheduler proxy show proxy-1
    """
    window = LedgerWindow()
    record = record_of(_records(window), name)
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    reaches = [f"{store} ({', '.join(modes)})" for store, modes in record.datastores.items()]
    rows: list[tuple[str, str | Text]] = [
        ("proxy", record.name),
        ("state", state(record.state)),
        *([("note", record.note)] if record.note else []),
        ("enabled", "yes" if record.enabled else "no"),
        ("site", record.site or "-"),
        ("slots", _slots(record)),
        ("datastores", ", ".join(reaches) or "-"),
        ("other disks", ", ".join(record.modes) or "-"),
        ("keys", ", ".join(f"{name} ({kind})" for name, kind in record.credentials.items()) or "-"),
        ("declared", "yes" if record.declared else "no, it registered itself"),
        ("version", record.version or "-"),
        (
            "last heartbeat",
            f"{duration(record.heartbeat_age_seconds)} ago" if record.heartbeat_age_seconds else "-",
        ),
    ]
    if record.description:
        rows.insert(1, ("description", record.description))
    rows += server_rows(record)
    tasks = [Text(f"  {task}") for task in record.tasks]
    print_view(Group(facts(rows), *([Text("works on", style="bold"), *tasks] if tasks else [])))


@app.command()
def explain(
    vm: OfVm,
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="As this job has it read.", autocompletion=completion.jobs),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain how each proxy could read a VM's disks. It names the transport modes, and why the others don't
    serve.

    What only shows when a disk is opened, such as a host that doesn't reach the datastore, isn't known before.

    \b
    Examples:
      scheduler proxy explain --vm web01
      scheduler proxy explain --vm web01 --job nightly --json | jq '.[] | {disk, proxy, reads_by}'
    """
    window = LedgerWindow()
    view = window.look().view
    if view is None:
        raise NoFleetError("what proxies offer is not known", why=window.problem or "")
    with opened_state() as opened, opened.read() as session:
        found = explained(session, view, vm, find_job(session, job) if job is not None else None)
    if as_json:
        print_json([record.model_dump(mode="json") for record in found])
        return
    if not found:
        note("No proxy has registered, or nothing is known of this VM's disks.")
        return
    made = table("DISK", "PROXY", "MODE", "VERDICT", keep=("DISK", "PROXY", "MODE"))
    for record in found:
        for mode in record.modes:
            made.add_row(record.disk, Text(record.proxy), mode.mode, _verdict(record, mode))
    print_view(made)


@app.command()
def key(as_json: AsJson = False) -> None:
    """Print the scheduler's public key. Every proxy.toml needs it in `scheduler_public_keys`.

    \b
    Examples:
      scheduler proxy key
    """
    path = configuration().public_key_path
    try:
        public_key = path.read_text().strip()
    except OSError as error:
        raise NoSigningKeyError(
            f"public key {path}", why=error.strerror or "", remedy="The first `scheduler serve` makes it."
        ) from error
    if as_json:
        print_json({"public_key": public_key})
    else:
        typer.echo(public_key)


def proxy_table(records: list[ProxyRecord]) -> Group:
    """One line a proxy, and what they have together."""
    made = table("PROXY", "SITE", "STATE", "SLOTS", "DATASTORES", "KEYS", keep=("PROXY", "STATE"))
    for record in records:
        made.add_row(
            Text(record.name),
            Text(record.site or "-"),
            state(record.state),
            _slots(record),
            Text(", ".join(record.datastores) or "-"),
            Text(", ".join(f"{name} ({kind})" for name, kind in record.credentials.items()) or "-"),
        )
    return Group(made)


def _records(window: LedgerWindow) -> list[ProxyRecord]:
    view = window.look().view
    with opened_state() as opened, opened.read() as session:
        return proxy_records(session, view)


def _verdict(record: ExplainedDisk, mode: ModeRecord) -> Text:
    if mode.refusal is not None:
        return Text(mode.refusal)
    if mode.mode not in record.reads_by:
        return Text("possible, but failover is off", style="yellow")
    if mode.mode == record.reads_by[0]:
        return Text("taken" if record.running else "would be taken, but the proxy isn't running", style="green")
    return Text("if that fails" if mode.mode == TransportMode.NETWORK else "possible", style="green")


def _slots(record: ProxyRecord) -> str:
    return "-" if record.slots is None else f"{record.used} of {record.slots}"
