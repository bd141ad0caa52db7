"""Which traffic rules will hold for a proxy that is being added, for people to know beforehand."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from scheduler.cli.printing import note
from scheduler.dispatch.traffic import DeclaredTraffic
from scheduler.planning.traffic import TrafficRule
from scheduler.state.store import State


def tell_traffic_rules(state: State, host: str) -> bool:
    """Say which rules hold for a proxy on `host`; False where none does, or nobody knows its address yet."""
    try:
        address = ip_address(socket.getaddrinfo(host, None)[0][4][0])
    except (OSError, ValueError):
        return False
    with state.read() as session:
        declared = DeclaredTraffic.load(session)
    rules = tuple(declared.rules_for(address))
    for rule, repositories in rules:
        exempt = f", {' and '.join(rule.exempt)}s exempt" if rule.exempt and rule.limit is not None else ""
        note(f"Traffic rule {rule.name}: {_what(rule)} with {', '.join(repositories)}{exempt}.")
    return bool(rules)


def _what(rule: TrafficRule) -> str:
    said = (
        [f"{rule.limit}{f' in {rule.window}' if rule.window is not None else ''}"] if rule.limit is not None else []
    )
    if rule.encrypt is not None:
        said.append("encrypted" if rule.encrypt else "not necessarily encrypted")
    return ", ".join(said)
