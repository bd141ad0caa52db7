"""What `fleet.toml` says of where restore points go, and of the upkeep there."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from proxy_worker.contract.gateway_address import SCHEME
from proxy_worker.contract.subjects import Name
from scheduler.fleet.values import CronText, Declared, LocationText, Slots, TimezoneName
from scheduler.planning.traffic import checked_address
from scheduler.state.declared import PROVE_CRON, PROVE_DAYS, PROVE_HOURS, NamePattern


class Collection(Declared):
    """When a repository is rid of what no restore point needs."""

    cron: CronText
    """Five cron fields: minute, hour, day, month, weekday."""
    timezone: TimezoneName = "UTC"
    """The time zone that the fields are meant in."""
    hours: Annotated[int, Field(ge=1, le=168)] | None = None
    """How long after it was asked for it may go on; the next does what is left. Without this key, to its end."""
    mib_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How fast it may read what it moves, in MiB per second; without this key, as fast as it goes."""


class Proof(Declared):
    """When a repository's packs and index are read and compared with their checksums, those read longest ago first,
    and samples of its restore points restored."""

    days: Annotated[int, Field(ge=0, le=3650)] = PROVE_DAYS
    """Everything is read at least once in so many days; with 0, only when asked to."""
    cron: CronText = PROVE_CRON
    """When a piece of it is read: five cron fields, minute, hour, day, month, weekday."""
    timezone: TimezoneName = "UTC"
    """The time zone that the fields are meant in."""
    hours: Annotated[int, Field(ge=1, le=168)] = PROVE_HOURS
    """How long a piece may read; what is left comes with the next."""
    mib_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How fast it may read, in MiB per second; without this key, as fast as it goes."""
    samples: bool = True
    """Whether samples are restored and damage is told from what only looks like it, which takes a proxy with a read
    key or the passphrase. With `false` any proxy does, and compares checksums."""


class Repository(Declared):
    """Where restore points go."""

    name: Name
    """The repository's name."""
    location: LocationText
    """The folder, as an absolute path on the proxies that reach it, an object store,
    `s3://BUCKET/PREFIX?endpoint=https://host&region=NAME`, or what a gateway offers, `proxyfleet://HOST:PORT/NAME`."""
    site: Name
    """The site it stands at."""
    credential: Name | None = None
    """The secret that opens it: `<credential>.key` or `<credential>.passphrase` in each proxy's secrets folder; for
    an object store also `<credential>.s3`, a line each with the access key's id and its secret.
    Without this key it must have been made with `--no-encryption`: one that is encrypted is refused, and the other
    way round."""
    host: Annotated[str, AfterValidator(checked_address)] | None = None
    """The IP address of the machine it stands on, for traffic rules; without this key, of the endpoint of an object
    store that is given as an address, otherwise none: no rule holds for it."""
    proxies: tuple[NamePattern, ...] | None = None
    """The proxies that reach it, by name or pattern (`"remote-*"`); without this key, all of its site."""
    preferred_proxies: tuple[NamePattern, ...] = ()
    """Those of them, by name or pattern, that get its disks while they have slots to spare."""
    max_concurrent_tasks: Slots | None = None
    """How many disk tasks may use it at once; without this key, as many as slots allow."""
    collect: Collection | None = None
    """When it is collected by itself; without this key, only when asked to."""
    prove: Proof = Proof()
    """When it is proven by itself."""
    hardened: bool = False
    """Whether the gateway there keeps it hardened, as its gateway.toml says: the machine that it stands on, by its
    location or `host`, may be a proxy with `transport_mode = "network"` only."""
    linked: tuple[Name, ...] = ()
    """Other repositories of the same VMs: what is damaged here is fetched from there."""

    @model_validator(mode="after")
    def _hardened_by_a_gateway(self) -> Self:
        if self.hardened and not self.location.startswith(SCHEME):
            raise ValueError(f"expected a location {SCHEME}HOST:PORT/NAME: only a gateway keeps one hardened")
        return self
