"""`scheduler traffic-rule`: how much proxies may exchange with repositories, by where both stand."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConfigurationError, NotFoundError
from proxy_worker.contract.names import TrafficKind
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, WindowZone, window_of
from scheduler.cli.opening import opened_state
from scheduler.cli.printing import Columns, note, print_json, show_rows
from scheduler.fleet.editing import declare, withdraw
from scheduler.fleet.stored import stored_traffic_rules
from scheduler.planning.traffic import Address, TrafficRule, rules_between, same_machine, why_encrypted
from scheduler.state.models import DeclaredTrafficRule

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Limit what proxies exchange with repositories, over the whole fleet.",
)

_ENCRYPT: Final = {True: "yes", False: "needn't", None: "-"}
Kinds = Annotated[TrafficKind, typer.Option("--kind", help="What is sent.")]


class NoSuchTrafficRuleError(NotFoundError):
    """No traffic rule has that name."""


class NotAnAddressError(ConfigurationError):
    """What should be an IP address isn't one."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="RULE", help="The new rule's name.")],
    *,
    source: Annotated[
        list[str], typer.Option("--from", metavar="ADDRESSES", help="One side: 10.1.0.0/16 or 10.1.0.1-10.1.0.99.")
    ],
    target: Annotated[list[str], typer.Option("--to", metavar="ADDRESSES", help="The other side, likewise.")],
    limit: Annotated[
        str | None, typer.Option(metavar="RATE", help="For all of it together: '80 Mbit/s', '10 MiB/s'.")
    ] = None,
    encrypt: Annotated[
        bool | None,
        typer.Option(
            help="Whether what crosses has to be encrypted; where an address is public it has to, unless told."
        ),
    ] = None,
    hours: Annotated[
        list[str] | None,
        typer.Option(
            "--window", metavar="HOURS", help="When the limit holds: 'Mon-Fri 8:00-18:00'. Always unless told."
        ),
    ] = None,
    timezone: WindowZone = None,
    limit_restores: Annotated[bool, typer.Option("--limit-restores", help="Restores aren't exempt.")] = False,
) -> None:
    """Limit or encrypt traffic between two sets of addresses. It holds in both directions.

    Running tasks keep to a limit within seconds. Encryption counts for what is begun from then on.

    \b
    Examples:
      scheduler traffic-rule add wan --from 10.1.0.0/16 --to 10.9.0.0/24 --limit '80 Mbit/s'
      scheduler traffic-rule add office --from 10.1.0.0/16 --to 10.9.0.0/24 --limit '2 MiB/s' \\
        --window 'Mon-Fri 8:00-18:00' --timezone Europe/Berlin
      scheduler traffic-rule add sealed --from 10.1.0.0/16 --to 10.9.0.0/24 --encrypt
    """
    keys = {
        "name": name,
        "source": source,
        "target": target,
        "limit": limit,
        "encrypt": encrypt,
        "window": window_of(hours, timezone),
        "exempt": [] if limit_restores else None,
    }
    with opened_state(migrate=True) as state, state.write() as session:
        declare(session, "traffic_rule", keys)
    note(f"Added traffic rule {name}. `scheduler traffic-rule explain` shows what holds between two addresses.")


@app.command("list")
def list_rules(as_json: AsJson = False) -> None:
    """List traffic rules, and whether each is in force now.

    \b
    Examples:
      scheduler traffic-rule list
      scheduler traffic-rule list --json | jq '.[] | select(.in_force)'
    """
    with opened_state() as state, state.read() as session:
        rules = stored_traffic_rules(session)
    shown = [_as_json(rule, time.time()) for rule in rules]
    if as_json:
        print_json(shown)
        return
    if not shown:
        note("There are no traffic rules. `scheduler traffic-rule add --help` shows how to add one.")
        return
    columns: Columns = {
        "RULE": [Text(one["name"]) for one in shown],
        "FROM": [Text(", ".join(one["source"])) for one in shown],
        "TO": [Text(", ".join(one["target"])) for one in shown],
        "LIMIT": [one["limit"] or "-" for one in shown],
        "ENCRYPT": [_ENCRYPT[rule.encrypt] for rule in rules],
        "WINDOW": [str(rule.window or "always") for rule in rules],
        "EXEMPT": [", ".join(one["exempt"]) or "-" for one in shown],
        "NOW": [
            "in force" if one["in_force"] else "no" if rule.enabled else "disabled"
            for one, rule in zip(shown, rules, strict=True)
        ],
    }
    show_rows(columns, right=("LIMIT",), spare=("EXEMPT", "WINDOW"))


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="RULE", help="The rule's name.", autocompletion=completion.traffic_rules)
    ],
) -> None:
    """Remove a traffic rule; running tasks go on without it.

    \b
    Examples:
      scheduler traffic-rule remove wan
    """
    with opened_state() as state:
        with state.write() as session:
            _require(session, name)
            withdraw(session, "traffic_rule", name)
        note(f"Removed traffic rule {name}.")


@app.command()
def explain(
    source: Annotated[str, typer.Option("--from", metavar="IP", help="Where a proxy stands.")],
    target: Annotated[str, typer.Option("--to", metavar="IP", help="Where a repository stands.")],
    kind: Kinds = TrafficKind.BACKUP,
    as_json: AsJson = False,
) -> None:
    """Show which rule counts between two addresses now, and why.

    \b
    Examples:
      scheduler traffic-rule explain --from 10.1.0.7 --to 10.9.0.5
      scheduler traffic-rule explain --from 10.1.0.7 --to 10.9.0.5 --kind restore --json
    """
    one, other = _address("--from", source), _address("--to", target)
    with opened_state() as state, state.read() as session:
        rules = stored_traffic_rules(session)
    verdicts = [(rule, _why_not(rule, one, other, kind, time.time())) for rule in rules]
    holding = rules_between((rule for rule, why in verdicts if not why), one, other)
    lowest = holding[0] if holding else None
    encrypted = why_encrypted(rules, one, other)
    if as_json:
        explained = [
            {"rule": rule.name, "limit": rule.limit, "holds": not why, "why_not": why} for rule, why in verdicts
        ]
        print_json(
            {
                "rule": lowest.name if lowest else None,
                "bytes_per_s": lowest.bytes_per_s if lowest else None,
                "encrypt": encrypted is not None,
                "why_encrypted": encrypted,
                "rules": explained,
            }
        )
        return
    if lowest is None:
        note(f"Nothing limits a {kind} between {one} and {other} now.")
    else:
        note(f"A {kind} between {one} and {other} is limited to {lowest.limit}, by rule {lowest.name}.")
    if encrypted is not None:
        note(f"It has to be encrypted: {encrypted}.")
    if verdicts:
        columns: Columns = {
            "RULE": [Text(rule.name) for rule, _ in verdicts],
            "LIMIT": [rule.limit or "-" for rule, _ in verdicts],
            "ENCRYPT": [_ENCRYPT[rule.encrypt] for rule, _ in verdicts],
            "HOLDS": [
                Text(f"no: {why}" if why else "yes, the lowest" if rule is lowest else "yes")
                for rule, why in verdicts
            ],
        }
        show_rows(columns, right=("LIMIT",))


def _why_not(rule: TrafficRule, one: Address, other: Address, kind: TrafficKind, moment: float) -> str:
    if not rule.joins(one, other):
        return "it is about other addresses"
    return "what stays on one machine is exempt" if same_machine(one, other) else rule.why_not(kind, moment)


def _address(option: str, text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise NotAnAddressError(
            f"{option} {text!r}", why="it is no IP address", remedy="Write one such as 10.1.0.7."
        ) from error


def _require(session: Session, name: str) -> None:
    if session.get(DeclaredTrafficRule, name) is None:
        raise NoSuchTrafficRuleError(
            f"traffic rule {name!r}",
            why="no rule has that name",
            remedy="`scheduler traffic-rule list` shows them.",
        )


def _as_json(rule: TrafficRule, moment: float) -> dict[str, Any]:
    in_force = rule.enabled and (
        rule.encrypt is not None or any(not rule.why_not(kind, moment) for kind in TrafficKind)
    )
    return {**rule.model_dump(mode="json"), "bytes_per_s": rule.bytes_per_s, "in_force": in_force}
