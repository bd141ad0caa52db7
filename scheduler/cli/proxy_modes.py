"""Which transport modes a new proxy's machine leaves it: network alone, where a hardened repository is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace

import typer
from sqlalchemy import select

from scheduler.cli.printing import note
from scheduler.cli.proxy_plan import ProxyPlan
from scheduler.fleet.hardening import ONLY, hardened_on, hosts_of, unavailable_modes
from scheduler.fleet.values import ModeChoice
from scheduler.state.models import Repository
from scheduler.state.store import State


def modes_denied_on(state: State, host: str) -> Mapping[ModeChoice, str]:
    """The transport modes that a proxy on this machine may not use, and why; also by what its name resolves to."""
    with state.read() as session:
        hardened = session.scalars(select(Repository).where(Repository.hardened)).all()
        own = {host, *_addresses([host])} if hardened else {host}
        kept = hardened_on(own, hardened) or next(
            (one for one in hardened if own & _addresses(hosts_of(one))), None
        )
        return unavailable_modes(kept)


def in_a_possible_mode(plan: ProxyPlan, denied: Mapping[ModeChoice, str]) -> ProxyPlan:
    """The plan, in network mode where that is all there is and no mode was named.

    Raises `typer.BadParameter` for a mode that was, and isn't possible.
    """
    why = denied.get(plan.transport_mode)
    if why is None:
        return plan
    if plan.transport_mode is not ModeChoice.AUTOMATIC:
        raise typer.BadParameter(f"--transport-mode {plan.transport_mode.value} is unavailable: {why}")
    note(f"Transport mode: {ONLY.value} only, since {why}.")
    note("warning: who logs in there to put it up can undo that too: take that login's rights away afterwards.")
    return replace(plan, transport_mode=ONLY)


def _addresses(hosts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for host in hosts:
        try:
            found.update(str(one[4][0]) for one in socket.getaddrinfo(host, None))
        except OSError:
            continue
    return found
