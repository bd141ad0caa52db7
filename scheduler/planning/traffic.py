"""Traffic rules: which of them hold between two addresses at a moment, and the lowest of those. Pure.

A rule holds both ways: what goes from its targets to its sources is counted like what goes from sources to targets.
Times are Unix seconds, rates bytes per second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import combinations
from typing import Annotated, Final, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy_worker.contract.gateway_address import SCHEME
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.subjects import Name
from scheduler.planning.window import Window

_UNITS: Final = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_RATE: Final = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,6})?) ?(?:(?P<bits>[kMG])bit|(?P<bytes>[kMG]|[KMG]i)B)/s")
_BITS_PER_BYTE: Final = 8
LOWEST_BYTES_PER_S: Final = 1_000
"""Below it, the smallest object of a repository would take longer than a disk may stand still."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses of one family, both ends included."""

    first: Address
    last: Address

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    def overlaps(self, other: AddressRange) -> bool:
        """Whether some address is in both."""
        return self.first in other or other.first in self


@lru_cache(maxsize=4096)
def parse_range(text: str) -> AddressRange:
    """`10.1.0.0/16`, `10.1.0.1-10.1.0.99` or one address, also of IPv6. Raises `ValueError`."""
    expected = f"expected addresses such as '10.1.0.0/16', '10.1.0.1-10.1.0.99' or '10.1.0.7', got {text!r}"
    begin, dash, end = (part.strip() for part in text.partition("-"))
    try:
        if not dash:
            network = ip_network(begin)
            return AddressRange(network[0], network[-1])
        first, last = ip_address(begin), ip_address(end)
    except ValueError as error:
        why = f": {error}" if "host bits" in str(error) else ""
        raise ValueError(f"{expected}{why}") from error
    if first.version != last.version:
        raise ValueError(f"{expected}: its ends are of IPv{first.version} and IPv{last.version}")
    if int(first) > int(last):
        raise ValueError(f"{expected}: it is reversed, as {last} is below {first}")
    return AddressRange(first, last)


def parse_rate(text: str) -> int:
    """Bytes per second of `80 Mbit/s`, `1.5 Gbit/s` or `10 MiB/s`. Raises `ValueError`."""
    expected = f"expected a rate such as '80 Mbit/s', '1.5 Gbit/s' or '10 MiB/s', got {text!r}"
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(expected)
    units = _UNITS[match["bits"] or match["bytes"]]
    rate = int(float(match["number"]) * units / (_BITS_PER_BYTE if match["bits"] else 1))
    if rate < LOWEST_BYTES_PER_S:
        raise ValueError(f"{expected}: it is below {LOWEST_BYTES_PER_S * _BITS_PER_BYTE // 1000} kbit/s")
    return rate


def checked_address(text: str) -> str:
    """An IP address as it is usually written. Raises `ValueError`."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError(f"expected an IP address such as '10.9.0.5', got {text!r}") from error


def _checked_range(text: str) -> str:
    parse_range(text)
    return text


def _apart(texts: tuple[str, ...]) -> tuple[str, ...]:
    for one, other in combinations(texts, 2):
        if parse_range(one).overlaps(parse_range(other)):
            raise ValueError(f"expected ranges that don't overlap, got {one!r} and {other!r}")
    return texts


def _checked_rate(text: str) -> str:
    parse_rate(text)
    return text


def _not_all(kinds: tuple[TrafficKind, ...]) -> tuple[TrafficKind, ...]:
    if set(kinds) == set(TrafficKind):
        raise ValueError("expected some kind that isn't exempt, got all: such a rule would do nothing")
    return kinds


Ranges = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_range)], ...], Field(min_length=1), AfterValidator(_apart)
]


class TrafficRule(BaseModel):
    """A limit of what proxies exchange with repositories and each other between addresses, or its encryption.

    All jobs that a rule holds for, in the whole fleet, have equal parts of its limit. Where several rules hold, the
    lowest is what counts. What stays on one machine is never limited, and needs no encryption.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: Name
    """The rule's name."""
    source: Ranges
    """Addresses on one side: `"10.1.0.0/16"`, `"10.1.0.1-10.1.0.99"` or a single one; those of a list don't
    overlap."""
    target: Ranges
    """Addresses on the other side. The rule holds in both directions."""
    limit: Annotated[str, AfterValidator(_checked_rate)] | None = None
    """The rate for all of it together: `"80 Mbit/s"`, `"1.5 Gbit/s"`, `"10 MiB/s"`; without this key, none."""
    encrypt: bool | None = None
    """Whether what crosses has to be encrypted, by the repository or on its way, at any time. Without this key, and
    another rule that says so, only where one of the addresses is a public one."""
    window: Window | None = None
    """When the limit holds, e.g. `{hours = ["Mon-Fri 8:00-18:00"], timezone = "Europe/Berlin"}`; without this key,
    always."""
    exempt: Annotated[tuple[TrafficKind, ...], AfterValidator(_not_all)] = (TrafficKind.RESTORE,)
    """What it doesn't limit: `backup`, `restore`, `copy`, `replication`."""
    enabled: bool = True
    """Whether it holds at all."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.limit is None and self.encrypt is None:
            raise ValueError("expected 'limit' or 'encrypt', got neither")
        if self.limit is None and self.window is not None:
            raise ValueError("'window' says when a limit holds, and there is no 'limit'")
        return self

    @property
    def bytes_per_s(self) -> int | None:
        """The limit, if it is one."""
        return parse_rate(self.limit) if self.limit is not None else None

    def joins(self, one: Address, other: Address) -> bool:
        """Whether traffic between these addresses is its matter."""
        return (_among(one, self.source) and _among(other, self.target)) or (
            _among(other, self.source) and _among(one, self.target)
        )

    def why_not(self, kind: TrafficKind, moment: float) -> str:
        """Why it doesn't limit traffic of this kind then, addresses aside; empty when it does."""
        if not self.enabled:
            return "it is disabled"
        if self.limit is None:
            return "it is about encryption only"
        if kind in self.exempt:
            return f"it exempts {kind}"
        if self.window is not None and not self.window.is_open(moment):
            return f"it holds in {self.window} only"
        return ""


def rules_between(rules: Iterable[TrafficRule], one: Address, other: Address) -> tuple[TrafficRule, ...]:
    """Those of the rules in force that limit traffic between two addresses, the lowest first."""
    if same_machine(one, other):
        return ()
    holding = (rule for rule in rules if rule.joins(one, other))
    return tuple(sorted(holding, key=lambda rule: (rule.bytes_per_s or 0, rule.name)))


def why_encrypted(rules: Iterable[TrafficRule], one: Address, other: Address) -> str | None:
    """What asks for encryption between two addresses, if anything does: a rule that does goes before one that says
    that none is needed."""
    if same_machine(one, other):
        return None
    said = [rule for rule in rules if rule.enabled and rule.encrypt is not None and rule.joins(one, other)]
    asking = next((rule for rule in said if rule.encrypt), None)
    if asking is not None:
        return f"traffic rule {asking.name} asks for encryption"
    if said:
        return None
    public = next((address for address in (one, other) if address.is_global), None)
    return f"{public} is a public address" if public is not None else None


def goes_plain(location: str, *, encrypted: bool) -> bool:
    """Whether what is exchanged with a repository can be read on its way there; `encrypted` is its content."""
    if encrypted or location.startswith(SCHEME):
        return False
    return not location.startswith("s3://") or _endpoint(location).startswith("http://")


def same_machine(one: Address, other: Address) -> bool:
    """Whether traffic between these addresses leaves no machine."""
    return one == other or one.is_loopback or other.is_loopback


def repository_host(location: str, host: str | None) -> Address | None:
    """Where a repository stands: as declared, or where its gateway or object store is, if by address."""
    if host is not None:
        return ip_address(host)
    if not location.startswith(("s3://", SCHEME)):
        return None
    endpoint = location if location.startswith(SCHEME) else _endpoint(location)
    try:
        return ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return None


def _endpoint(location: str) -> str:
    return parse_qs(urlsplit(location).query).get("endpoint", [""])[0]


def _among(address: Address, ranges: Sequence[str]) -> bool:
    return any(address in parse_range(text) for text in ranges)
