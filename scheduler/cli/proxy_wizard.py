"""The questions of `scheduler proxy add`, step by step; what options said already is offered as the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import typer
from rich.text import Text

from scheduler.cli.printing import facts, note, show, table
from scheduler.cli.proxy_plan import (
    ProxyPlan,
    checked_server,
    connection,
    found_there,
    too_many,
    way_in_words,
)
from scheduler.cli.proxy_secrets import in_words, not_reading, warnings
from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.errors import MissingSecretError
from scheduler.deployment.given import credential_files, reached_by
from scheduler.deployment.survey import REDIS, Found
from scheduler.fleet.models import ModeChoice
from scheduler.state.store import State

STEPS: Final = (
    "Server",
    "Transport mode and datastores",
    "Concurrent tasks",
    "Network and keys",
    "Review",
    "Finish",
)
"""A step about traffic rules goes before the review, once there are any."""

Look = Callable[[ProxyPlan], Found]
"""Looks at the machine again, with what is planned now."""


def heading(step: str) -> None:
    """Say which step begins."""
    note(f"\n{STEPS.index(step) + 1} of {len(STEPS)}: {step}")


def ask_server(plan: ProxyPlan, host: str | None, *, has_key: bool) -> ProxyPlan:
    """Which machine, and how to log in there, unless a key was given; `host` is what was said of it already."""
    heading("Server")
    server = plan.server
    name = _ask("Name of the proxy", plan.name or None)
    site = _ask("Site it stands at", plan.site)
    keys = {
        **server.model_dump(exclude_defaults=True),
        "host": _ask("Name or address of its machine", host),
        "port": _ask("SSH port", server.port),
        "user": _ask("SSH user: root, or one whom sudo asks no password", server.user),
    }
    if not has_key:
        question = "Secret with its SSH key or password; nothing for the SSH agent and your own keys"
        keys["credential"] = _ask(question, server.credential or "") or None
    description = _ask("Description", plan.description)
    return replace(plan, name=name, site=site, server=checked_server(keys), description=description)


def ask_datastores(plan: ProxyPlan, found: Found, names: list[str], look: Look) -> ProxyPlan:
    """Which transport mode, and which datastores; each is tried from there."""
    heading("Transport mode and datastores")
    modes = ", ".join(mode.value for mode in ModeChoice)
    plan = replace(plan, transport_mode=ModeChoice(_choice(f"Transport mode ({modes})", plan.transport_mode.value)))
    if not names:
        note(f"No datastore is declared at site {plan.site}.")
        return plan
    there = found_there(found, names)
    shown = table("DATASTORE", "FOUND THERE")
    for name in names:
        shown.add_row(Text(name), Text(way_in_words(there[name]) if name in there else "not as a folder"))
    show(shown)
    while True:
        text = _ask("Connected datastores: automatic, or NAME or NAME=/folder, NAME=nfs://…, …", "automatic")
        wished = with_datastores(
            plan, None if text == "automatic" else text.replace(",", " ").split(), found, names
        )
        problems = {name: why for name, why in look(wished).unreached.items() if why and name != REDIS}
        if not problems:
            return wished
        for name, why in problems.items():
            note(f"{name} isn't reached from there: {why}")


def with_datastores(plan: ProxyPlan, chosen: list[str] | None, found: Found, names: list[str]) -> ProxyPlan:
    """The plan with the chosen datastores, or with None, with all that were found there."""
    there = found_there(found, names)
    if chosen is None:
        return plan.connected(there)
    pairs = [connection(one) for one in chosen]
    ways = {name: way or there.get(name) for name, way in pairs}
    connected = plan.connected({name: way for name, way in ways.items() if way is not None})
    return replace(connected, datastores=tuple(ways))


def ask_slots(plan: ProxyPlan, found: Found) -> ProxyPlan:
    """How many tasks at once."""
    heading("Concurrent tasks")
    while True:
        slots = _ask(
            f"Max concurrent tasks ({found.cores} cores, {found.memory_bytes / (1 << 30):.1f} GiB of memory)",
            plan.max_concurrent_tasks or found.slots,
        )
        warning = too_many(slots, found)
        if warning is None or typer.confirm(f"{warning}. Take {slots} all the same", err=True):
            return replace(plan, max_concurrent_tasks=slots)


def ask_network(plan: ProxyPlan, configuration: SchedulerConfiguration, state: State) -> ProxyPlan:
    """Failover, encryption, and which secrets it gets."""
    heading("Network and keys")
    with state.read() as session:
        reached = reached_by(session, plan.name, plan.site)
    usual, left_out = not_reading(configuration, None, reached)
    files = credential_files(configuration, usual, reached)
    for told in warnings(files, left_out):
        note(f"warning: {told}.")
    given = " ".join(plan.server.credentials) if plan.server.credentials is not None else "automatic"
    changes = {
        "failover_to_network": typer.confirm(
            "Fail over to network mode", default=plan.server.failover_to_network, err=True
        ),
        "encryption_to_host": typer.confirm(
            "Require encryption to the host in network mode", default=plan.server.encryption_to_host, err=True
        ),
    }
    what = f"automatic ({', '.join(in_words(files)) or 'none'})"
    while True:
        text = _ask(f"Secrets that it gets: {what}, or names", given)
        credentials = usual if text == "automatic" else text.replace(",", " ").split()
        try:
            files = credential_files(configuration, credentials, reached)
        except MissingSecretError as error:
            note(str(error))
        else:
            for told in warnings(files, ()):
                note(f"warning: {told}.")
            return plan.on(**changes, credentials=credentials)


def review(plan: ProxyPlan, system: str, secrets: Sequence[str]) -> None:
    """Show all of it, with the secrets that it gets in words, and ask whether to go on."""
    heading("Review")
    server = plan.server
    ways = [f"{name} ({way_in_words(way)})" for name, way in server.datastores.items()]
    rows: list[tuple[str, str | Text]] = [
        ("proxy", f"{plan.name}{f', {plan.description}' if plan.description else ''}"),
        ("site", plan.site),
        ("server", f"{server.user}@{server.address}"),
        ("host key", server.host_key or "-"),
        ("system", system),
        ("transport mode", plan.transport_mode.value),
        ("datastores", ", ".join(ways) or "none connected"),
        ("may read", "all it reaches" if plan.datastores is None else ", ".join(plan.datastores)),
        ("concurrent tasks", str(plan.max_concurrent_tasks or "-")),
        ("failover to network", "yes" if server.failover_to_network else "no"),
        ("encryption to host", "required" if server.encryption_to_host else "where the host allows it"),
        ("secrets", ", ".join(secrets) or "none"),
    ]
    show(facts(rows))
    typer.confirm("Put the proxy there", default=True, abort=True, err=True)
    heading("Finish")


def _ask(question: str, proposed: Any) -> Any:
    return typer.prompt(question, default=proposed, show_default=proposed not in {None, ""}, err=True)


def _choice(question: str, proposed: str) -> str:
    while True:
        text: str = _ask(question, proposed)
        if text in set(ModeChoice):
            return text
        note(f"expected {', '.join(ModeChoice)}")
