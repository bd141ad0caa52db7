"""The questions of `scheduler proxy add`, step by step; what options said already is offered as the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer
from rich.text import Text

from scheduler.cli.printing import facts, note, show, table
from scheduler.cli.proxy_plan import (
    ProxyPlan,
    checked_server,
    connection,
    found_there,
    no_name,
    too_many,
    way_in_words,
)
from scheduler.cli.proxy_secrets import in_words, not_reading, warnings
from scheduler.cli.traffic_hint import tell_traffic_rules
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
    "Traffic rules",
    "Review",
    "Finish",
)

_LONGEST_HOST: Final = 255
_LONGEST_USER: Final = 32
_LAST_PORT: Final = 65_535

Look = Callable[[ProxyPlan], Found]
"""Looks at the machine again, with what is planned now."""


def heading(step: str) -> None:
    """Say which step begins."""
    note(f"\n{STEPS.index(step) + 1} of {len(STEPS)}: {step}")


def ask_server(plan: ProxyPlan, host: str | None, taken: Collection[str], secrets_dir: Path | None) -> ProxyPlan:
    """Which machine, and how to log in there; `host` is what was said of it already.

    `taken` are the names of proxies. What logs in is one of the secrets in `secrets_dir`; with None it isn't asked.
    """
    heading("Server")
    server = plan.server
    name = _ask_for(
        "Name of the proxy",
        plan.name or None,
        lambda text: f"there is a proxy {text} already" if text in taken else no_name(text),
    )
    site = _ask_for("Site it stands at", plan.site, no_name)
    keys = {
        **server.model_dump(exclude_defaults=True),
        "host": _ask_for("Name or address of its machine", host, _no_host),
        "port": _ask_for("SSH port", server.port, _no_port),
        "user": _ask_for("SSH user: root, or one whom sudo asks no password", server.user, _no_user),
    }
    if secrets_dir is not None:
        question = "Secret with its SSH key or password; nothing for the SSH agent and your own keys"
        credential = _ask_for(question, server.credential or "", partial(_no_login, secrets_dir))
        keys["credential"] = credential or None
    description = _ask("Description", plan.description)
    return replace(plan, name=name, site=site, server=checked_server(keys), description=description)


def _no_host(text: str) -> str | None:
    wrong = not text or any(letter.isspace() or letter in "/@" for letter in text) or len(text) > _LONGEST_HOST
    return f"{text!r} isn't a machine's name or address: expected one such as 10.0.0.5" if wrong else None


def _no_port(port: int) -> str | None:
    return None if 1 <= port <= _LAST_PORT else f"{port} isn't a port: expected 1 to {_LAST_PORT}"


def _no_user(text: str) -> str | None:
    return None if 1 <= len(text) <= _LONGEST_USER else f"expected a user's name of at most {_LONGEST_USER} letters"


def _no_login(secrets_dir: Path, text: str) -> str | None:
    """Why this isn't the name of a secret that logs in."""
    if not text:
        return None
    problem = no_name(text)
    if problem is not None:
        return f"{problem}. A key in a file is given as `scheduler proxy add --ssh-key FILE`"
    if any((secrets_dir / f"{text}.ssh-{kind}").exists() for kind in ("key", "password")):
        return None
    return f"{secrets_dir} has no {text}.ssh-key or {text}.ssh-password"


def ask_datastores(
    plan: ProxyPlan, found: Found, names: list[str], look: Look, denied: Mapping[ModeChoice, str]
) -> ProxyPlan:
    """Which transport mode but those that are `denied`, and which datastores; each is tried from there."""
    heading("Transport mode and datastores")
    for mode, why in denied.items():
        note(f"{mode.value}: unavailable, {why}.")
    modes = [mode for mode in ModeChoice if mode not in denied]
    plan = replace(plan, transport_mode=_choice("Transport mode", modes, plan.transport_mode))
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
        try:
            wished = with_datastores(plan, None if text == "automatic" else _words(text), found, names)
        except typer.BadParameter as error:
            note(error.message.removeprefix("--datastore "))
            continue
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
        slots = _ask_for(
            f"Max concurrent tasks ({found.cores} cores, {found.memory_bytes / (1 << 30):.1f} GiB of memory)",
            plan.max_concurrent_tasks or found.slots,
            lambda count: None if count >= 1 else "expected at least 1",
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
        text = _ask_for(f"Secrets that it gets: {what}, or names", given, _no_names)
        credentials = usual if text == "automatic" else _words(text)
        try:
            files = credential_files(configuration, credentials, reached)
        except MissingSecretError as error:
            note(str(error))
        else:
            for told in warnings(files, ()):
                note(f"warning: {told}.")
            return plan.on(**changes, credentials=credentials)


def show_traffic_rules(state: State, host: str) -> None:
    """Which traffic rules will hold for it: there is nothing to answer."""
    heading("Traffic rules")
    if not tell_traffic_rules(state, host):
        note("None holds for what it exchanges with repositories.")


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
    if (instant := server.instant_restore) is not None:
        rows.append(("instant restore", f"serves {', '.join(map(str, instant.clients))} as {instant.host}"))
    show(facts(rows))
    typer.confirm("Put the proxy there", default=True, abort=True, err=True)
    heading("Finish")


def _ask(question: str, proposed: Any) -> Any:
    return typer.prompt(question, default=proposed, show_default=proposed not in {None, ""}, err=True)


def _ask_for(question: str, proposed: Any, problem: Callable[[Any], str | None]) -> Any:
    """An answer that has no `problem`; otherwise that is said, and it is asked again."""
    while True:
        answer = _ask(question, proposed)
        why = problem(answer)
        if why is None:
            return answer
        note(f"{why}.")


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _no_names(text: str) -> str | None:
    return next((why for why in map(no_name, _words(text)) if why is not None), None)


def _choice(question: str, modes: Collection[ModeChoice], proposed: ModeChoice) -> ModeChoice:
    expected = ", ".join(mode.value for mode in modes)
    while True:
        text: str = _ask(f"{question} ({expected})", proposed.value)
        if text in modes:
            return ModeChoice(text)
        note(f"expected {expected}")
