"""What is wanted of a new proxy, as options and answers say it, on the way to being declared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import typer
from pydantic import ValidationError
from sqlalchemy import select

from proxy_worker.contract.names import is_name
from scheduler.deployment.server import ConnectedDatastore, ProxyServer
from scheduler.deployment.survey import Found
from scheduler.fleet.models import ModeChoice
from scheduler.state.models import Datastore
from scheduler.state.store import State

NAME_RULE: Final = (
    "expected at most 63 letters, digits, '.', '_' and '-', of which the first is a letter or a digit"
)


@dataclass(frozen=True)
class ProxyPlan:
    """One proxy to be."""

    name: str
    site: str
    server: ProxyServer
    description: str = ""
    transport_mode: ModeChoice = ModeChoice.AUTOMATIC
    datastores: tuple[str, ...] | None = None
    """Those it may read; None: all it reaches."""
    max_concurrent_tasks: int | None = None
    """None: as its machine can bear."""

    def on(self, **changes: Any) -> ProxyPlan:
        """The same with its server changed."""
        return replace(self, server=checked_server({**self.server.model_dump(exclude_defaults=True), **changes}))

    def connected(self, ways: dict[str, ConnectedDatastore]) -> ProxyPlan:
        """The same, connected to these datastores too."""
        return replace(
            self, server=self.server.model_copy(update={"datastores": {**self.server.datastores, **ways}})
        )

    def declaration(self) -> dict[str, Any]:
        """The keys that a fleet file would have."""
        return {
            "name": self.name,
            "site": self.site,
            "max_concurrent_tasks": self.max_concurrent_tasks,
            "transport_mode": self.transport_mode.value,
            "datastores": list(self.datastores) if self.datastores is not None else None,
            "description": self.description,
            "server": self.server.model_dump(mode="json", exclude_defaults=True),
        }


def no_name(text: str) -> str | None:
    """Why this can't be the name of a proxy or a secret; None if it can."""
    if is_name(text):
        return None
    what = "is a path, not a name" if "/" in text else "isn't a name"
    return f"{text!r} {what}: {NAME_RULE}"


def require_names(what: str, *names: str | None) -> None:
    """Raise `typer.BadParameter` about the first of these names that is none; `what` they name."""
    for name in names:
        problem = no_name(name) if name is not None else None
        if problem is not None:
            raise typer.BadParameter(f"bad name for {what}: {problem}")


def checked_server(keys: dict[str, Any]) -> ProxyServer:
    """A server of these keys; raises `typer.BadParameter` that says which isn't valid."""
    try:
        return ProxyServer.model_validate(keys)
    except ValidationError as error:
        found = error.errors()[0]
        key = ".".join(map(str, found["loc"])).replace("_", "-")
        raise typer.BadParameter(f"--{key}: {found['msg'].removeprefix('Value error, ')}") from error


def connection(text: str) -> tuple[str, ConnectedDatastore | None]:
    """`ds1`, or `ds1=` and a folder, an nfs:// or nbd:// address, or `san`; None is to be found out there."""
    name, _, way = text.partition("=")
    if not way:
        return name, None
    if way == "san":
        return name, ConnectedDatastore(san=True)
    if way.startswith("nfs://"):
        return name, ConnectedDatastore(nfs_uri=way)
    if way.startswith("nbd"):
        return name, ConnectedDatastore(network_uri=way)
    if way.startswith("/"):
        return name, ConnectedDatastore(path=way)
    raise typer.BadParameter(f"--datastore {text}: expected {name}=/folder, =nfs://…, =nbd://… or =san")


def inventory(state: State, site: str) -> list[str]:
    """Datastores that are declared at a site."""
    with state.read() as session:
        return list(session.scalars(select(Datastore.name).where(Datastore.site == site).order_by(Datastore.name)))


def found_there(found: Found, names: list[str]) -> dict[str, ConnectedDatastore]:
    """Those of these datastores that are a folder on the machine, in the likeliest place."""
    return {name: ConnectedDatastore(path=places[0]) for name in names if (places := found.places(name))}


def way_in_words(way: ConnectedDatastore) -> str:
    """E.g. `/datastores/ds1`."""
    command = " ".join(way.network_command or ())
    return way.path or way.nfs_uri or way.network_uri or command or "SAN"


def too_many(slots: int, found: Found) -> str | None:
    """A warning about more concurrent tasks than the machine bears well."""
    if slots <= found.slots:
        return None
    gib = found.memory_bytes / (1 << 30)
    return (
        f"{slots} concurrent tasks are more than 2 per core and one per GiB of memory: with {found.cores} cores "
        f"and {gib:.1f} GiB, {found.slots} are advised"
    )
