"""What keys of `fleet.toml` may hold: texts and numbers that are checked when they are read."""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from proxy_worker.contract.gateway_address import SCHEME, GatewayAddress, GatewayAddressError
from proxy_worker.contract.names import TransportMode
from proxy_worker.vsphere.trust import ThumbprintError, normalised, with_colons

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
Slots = Annotated[int, Field(ge=1, le=256)]


class Declared(BaseModel):
    """Immutable, and strict: an unknown key or a value of another type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ModeChoice(StrEnum):
    """A transport mode, or the best there is."""

    AUTOMATIC = "automatic"
    STORAGE_SNAPSHOT = TransportMode.STORAGE_SNAPSHOT
    DIRECT_STORAGE = TransportMode.DIRECT_STORAGE
    VIRTUAL_APPLIANCE = TransportMode.VIRTUAL_APPLIANCE
    NETWORK = TransportMode.NETWORK


def _cron(text: str) -> str:
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(
            f"expected five cron fields (minute hour day month weekday), got {text!r}: {str(error).lower()}"
        ) from error
    return text


def _timezone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"expected a time zone such as 'Europe/Berlin' or 'UTC', got {text!r}") from error
    return text


def one_line(text: str) -> str:
    """The text of a path; raises `ValueError` for control characters, which would begin a line of a unit's own."""
    if _CONTROL.search(text):
        raise ValueError(f"expected no line breaks or other control characters, got {text!r}")
    return text


def _absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path on the proxies, got {text!r}")
    return one_line(text)


def _repository_location(text: str) -> str:
    if text.startswith(SCHEME):
        try:
            GatewayAddress.parsed(text)
        except GatewayAddressError as error:
            raise ValueError(f"expected {SCHEME}HOST:PORT/NAME, got {text!r}") from error
        return text
    return text if text.startswith("s3://") else _absolute_path(text)


def _thumbprint(text: str) -> str:
    try:
        return with_colons(normalised(text))
    except ThumbprintError as error:
        raise ValueError(
            f"expected a SHA-1 or SHA-256 thumbprint in hexadecimal, such as 'AB:CD:…', got {text[:40]!r}"
        ) from error


def _nbd_uri(text: str) -> str:
    if not text.startswith(("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")):
        raise ValueError(f"expected an nbd://, nbds://, nbd+unix:// or nbds+unix:// address, got {text!r}")
    return text


CronText = Annotated[str, AfterValidator(_cron)]
"""Five cron fields: minute, hour, day, month, weekday."""
TimezoneName = Annotated[str, AfterValidator(_timezone)]
"""A time zone by name."""
LocationText = Annotated[str, AfterValidator(_repository_location)]
"""Where a repository lies: a folder, an object store or what a gateway offers."""
ThumbprintText = Annotated[str, AfterValidator(_thumbprint)]
"""A SHA-1 or SHA-256 of a certificate, as it is written: `AB:CD:…`."""
NbdUri = Annotated[str, AfterValidator(_nbd_uri)]
"""The address of an NBD export."""
