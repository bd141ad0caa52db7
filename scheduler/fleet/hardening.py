"""Hardened repositories' machines, and what proxies may do there: pure.

Modes beside network need rights over a machine's disks, and whoever has those can undo what makes a hardened
repository immutable. So the machine of one may be a proxy in network mode only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from proxy_worker.contract.gateway_address import SCHEME, GatewayAddress
from scheduler.fleet.values import ModeChoice

ONLY: Final = ModeChoice.NETWORK


class Kept(Protocol):
    """A repository, declared or as the database has it."""

    @property
    def name(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def host(self) -> str | None: ...
    @property
    def hardened(self) -> bool: ...


def hosts_of(repository: Kept) -> set[str]:
    """The names and addresses by which a repository behind a gateway gives its machine."""
    hosts = {GatewayAddress.parsed(repository.location).host} if repository.location.startswith(SCHEME) else set()
    return {host.lower() for host in (*hosts, repository.host) if host}


def hardened_on(hosts: Iterable[str], repositories: Iterable[Kept]) -> Kept | None:
    """A hardened repository on a machine of these names and addresses."""
    own = {host.lower() for host in hosts}
    return next((one for one in repositories if one.hardened and own & hosts_of(one)), None)


def unavailable_modes(repository: Kept | None) -> Mapping[ModeChoice, str]:
    """The transport modes that a proxy beside this repository may not use, and why."""
    if repository is None:
        return {}
    why = (
        f"its machine keeps hardened repository {repository.name!r}, and modes beside {ONLY.value} need rights "
        "over disks there, which could undo what makes that immutable"
    )
    return {mode: why for mode in ModeChoice if mode is not ONLY}
