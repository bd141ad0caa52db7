"""How `scheduler job create --kind replication` is told where the replicas go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from proxy_worker.contract.errors import ConfigurationError
from scheduler.cli import completion


class ReplicaOptionError(ConfigurationError):
    """Options of replicas are missing, or given for a job that makes none."""


TargetDatastore = Annotated[
    str | None,
    typer.Option(
        "--target-datastore",
        metavar="NAME",
        help="Kind replication: the datastore, a folder's or a vCenter's, that the replicas go to.",
        autocompletion=completion.datastores,
    ),
]
Suffix = Annotated[
    str | None, typer.Option("--suffix", metavar="TEXT", help="What replicas' names end in; _replica unless told.")
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--network", metavar="OLD=NEW", help="Connect replicas' cards of the network OLD to NEW."),
]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="VM=FOLDER", help="Make the VM that lies in FOLDER of the target VM's replica."),
]
Seed = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="REPOSITORY",
        help="Begin new replicas with their VMs' newest restore points there, and send what differs.",
        autocompletion=completion.repositories,
    ),
]
ReplicaPoints = Annotated[
    int | None,
    typer.Option(
        "--replica-points",
        metavar="COUNT",
        min=1,
        max=28,
        help="Restore points kept of each replica; 7 unless told.",
    ),
]
TargetProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--target-proxy", metavar="PATTERN", help="Only these proxies may write replicas.",
        autocompletion=completion.proxies,
    ),
]  # fmt: skip


def replica_keys(
    *,
    datastore: str | None,
    suffix: str | None,
    networks: Sequence[str] | None,
    mapped: Sequence[str] | None,
    seed: str | None,
    points: int | None,
    proxies: Sequence[str] | None,
    replicates: bool,
) -> dict[str, Any] | None:
    """The key `replica` of a job that `replicates`; None for any other. Raises `ReplicaOptionError`."""
    given = {
        "datastore": datastore,
        "suffix": suffix,
        "networks": _pairs("--network", networks) if networks else None,
        "mapped": _pairs("--map", mapped) if mapped else None,
        "seed": seed,
        "points": points,
        "proxies": list(proxies) if proxies else None,
    }
    keys = {key: value for key, value in given.items() if value is not None}
    if replicates and datastore is None:
        raise ReplicaOptionError(
            "a job of kind replication",
            why="it isn't said where the replicas go",
            remedy="Give --target-datastore.",
        )
    if keys and not replicates:
        raise ReplicaOptionError(
            f"the option for replicas' {next(iter(keys))}", why="only --kind replication makes replicas"
        )
    return keys if replicates else None


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise ReplicaOptionError(f"{option} {text}", why="it isn't of the form A=B")
        pairs[key] = value
    return pairs
