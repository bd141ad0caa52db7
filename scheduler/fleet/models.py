"""What `fleet.toml` may say, all of it.

Each class is a table of the file, each attribute a key; `docs/reference/configuration.md` is generated from
them. Names are unique within a kind; what refers to another declaration is checked in `references.py`.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from proxy_worker.contract.subjects import Name
from scheduler.deployment.server import ProxyServer
from scheduler.fleet.dispatching import Dispatch
from scheduler.fleet.jobs import Job, Retries, Schedule
from scheduler.fleet.repositories import Collection, Proof, Repository
from scheduler.fleet.sources import Datastore, Site, Vcenter, Vm, VmDisk
from scheduler.fleet.values import Declared, ModeChoice, Slots
from scheduler.planning.addressees import EmailTarget, NotifyWhen, WebhookTarget
from scheduler.planning.traffic import TrafficRule
from scheduler.state.declared import NamePattern

__all__ = [
    "KINDS",
    "Collection",
    "Datastore",
    "Declaration",
    "Fleet",
    "Job",
    "ModeChoice",
    "Notification",
    "Proof",
    "Proxy",
    "Repository",
    "Retries",
    "Schedule",
    "Site",
    "Vcenter",
    "Vm",
    "VmDisk",
    "declarations",
]


class Proxy(Declared):
    """What the scheduler asks of a proxy beyond what the proxy says of itself when it registers."""

    name: Name
    """The name in the proxy's `proxy.toml`."""
    site: Name | None = None
    """Where it must stand: one that registers for another site gets no tasks. Without this key, where it says."""
    max_concurrent_tasks: Slots | None = None
    """Its slots; without this key, as many as its own `proxy.toml` says. The smaller of the two counts."""
    transport_mode: ModeChoice = ModeChoice.AUTOMATIC
    """The only mode it may use, or `automatic`."""
    datastores: tuple[Name, ...] | None = None
    """The datastores it may read; without this key, all that it reaches."""
    enabled: bool = True
    """Whether it gets tasks."""
    description: Annotated[str, Field(max_length=255)] = ""
    """What people should know of it."""
    server: ProxyServer | None = None
    """The machine that the scheduler puts it on; without this key, whoever installs it does."""


class Notification(Declared):
    """Who is told of runs' ends."""

    name: Name
    """The notification's name."""
    when: NotifyWhen = NotifyWhen.WARNING
    """Which runs: `always` all, `warning` those that failed, wholly or in part, and those with warnings, `failure`
    only the former."""
    jobs: Annotated[tuple[NamePattern, ...], Field(min_length=1)] = ("*",)
    """Of which jobs, by name or pattern."""
    webhook: WebhookTarget | None = None
    """A server to tell; either this or `email`."""
    email: EmailTarget | None = None
    """People to tell."""
    enabled: bool = True
    """Whether anything is sent."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("expected either 'webhook' or 'email'")
        return self


class Fleet(Declared):
    """All declarations; the attributes are the names of the file's arrays of tables."""

    site: tuple[Site, ...] = ()
    vcenter: tuple[Vcenter, ...] = ()
    datastore: tuple[Datastore, ...] = ()
    repository: tuple[Repository, ...] = ()
    proxy: tuple[Proxy, ...] = ()
    vm: tuple[Vm, ...] = ()
    job: tuple[Job, ...] = ()
    notification: tuple[Notification, ...] = ()
    traffic_rule: tuple[TrafficRule, ...] = ()
    dispatch: Dispatch = Dispatch()


Declaration = Site | Vcenter | Datastore | Repository | Proxy | Vm | Job | Notification | TrafficRule
KINDS: tuple[str, ...] = tuple(kind for kind in Fleet.model_fields if kind != "dispatch")
"""The kinds of declarations, those first that others refer to."""


def declarations(fleet: Fleet, kind: str) -> dict[str, Declaration]:
    """The fleet's declarations of one kind, by name."""
    return {declared.name: declared for declared in getattr(fleet, kind)}
