"""What `fleet.toml` may say of how all jobs share the fleet, and of datastores that are slow."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from scheduler.planning.window import Window


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"expected a network such as '10.9.0.0/16', got {text!r}: {error}") from error


Milliseconds = Annotated[float, Field(gt=0, le=60_000)]


class Latency(BaseModel):
    """What is done about a vCenter's datastore that takes long to answer, as vCenter measures it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    stop_ms: Milliseconds = 20
    """From so many milliseconds on, no further disk of it is begun."""
    throttle_ms: Milliseconds = 30
    """From so many on, some of the disks of it that are being read are paused, until it answers sooner than
    `stop_ms`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.throttle_ms < self.stop_ms:
            raise ValueError(
                f"expected 'throttle_ms' no less than 'stop_ms', got {self.throttle_ms:g} and {self.stop_ms:g}"
            )
        return self


class Dispatch(BaseModel):
    """How all jobs share the fleet. There is one table of it: `[dispatch]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    patience_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60
    """How long a disk waits for a slot of a preferred proxy, or with the best transport mode, before it takes
    another."""
    window: Window | None = None
    """When disks of any job may begin; without this key, at any time. Restores may always."""
    latency: Latency = Latency()
    """For datastores that say nothing else."""
    preferred_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Networks over which proxies reach gateways that have an address there, best first, such as `"10.9.0.0/16"`;
    otherwise over their other addresses."""
