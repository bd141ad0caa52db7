"""Traffic rules: what they may say, whom they hold for, and which one counts."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy_worker.contract.names import TrafficKind
from scheduler.planning.traffic import (
    TrafficRule,
    goes_plain,
    parse_range,
    parse_rate,
    repository_host,
    rules_between,
    why_encrypted,
)
from scheduler.planning.window import Window

MONDAY_NOON = 1_763_985_600.0
"""2025-11-24 12:00 UTC."""
PRIMARY, REMOTE, ELSEWHERE = (ip_address(text) for text in ("10.1.0.7", "10.9.0.5", "172.16.0.1"))


def rule(name: str = "wan", **keys: object) -> TrafficRule:
    return TrafficRule.model_validate(
        {"name": name, "source": ("10.1.0.0/16",), "target": ("10.9.0.0/24",), "limit": "80 Mbit/s"} | keys
    )


def names(*rules: TrafficRule, kind: TrafficKind = TrafficKind.BACKUP, moment: float = MONDAY_NOON) -> list[str]:
    in_force = [one for one in rules if not one.why_not(kind, moment)]
    return [found.name for found in rules_between(in_force, PRIMARY, REMOTE)]


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("80 Mbit/s", 10_000_000),
        ("80Mbit/s", 10_000_000),
        ("1.5 Gbit/s", 187_500_000),
        ("64 kbit/s", 8_000),
        ("10 MB/s", 10_000_000),
        ("10 MiB/s", 10_485_760),
    ],
)
def test_rates(text: str, bytes_per_s: int) -> None:
    assert parse_rate(text) == bytes_per_s


@pytest.mark.parametrize(
    "text",
    ["80", "80 Mbit", "80 mbit/s", "80 Mbps", "-1 Mbit/s", "0 Mbit/s", "1 kbit/s", "1e3 MB/s", "80 Kib/s"],
)
def test_rates_in_wrong_units_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected a rate such as '80 Mbit/s'"):
        rule(limit=text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.1.0.9-10.1.0.1", "it is reversed, as 10.1.0.1 is below 10.1.0.9"),
        ("10.1.0.5/16", "has host bits set"),
        ("10.1.0.0/33", "expected addresses such as"),
        ("10.1.0.1-fd00::1", "its ends are of IPv4 and IPv6"),
        ("proxy-1.example.com", "expected addresses such as"),
        ("10.1.0.0/16-10.2.0.0/16", "expected addresses such as"),
        ("", "expected addresses such as"),
    ],
)
def test_wrong_and_reversed_ranges_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        rule(source=(text,))


def test_overlapping_ranges_are_refused_by_name() -> None:
    expected = "expected ranges that don't overlap, got '10.1.0.0/16' and '10.1.7.1-10.2.0.9'"
    with pytest.raises(ValidationError, match=expected):
        rule(source=("10.1.0.0/16", "10.3.0.0/16", "10.1.7.1-10.2.0.9"))


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="got 'Mars/Olympus'"):
        rule(window={"hours": ("8:00-18:00",), "timezone": "Mars/Olympus"})


def test_a_rule_that_exempts_everything_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected some kind that isn't exempt"):
        rule(exempt=tuple(TrafficKind))


@pytest.mark.parametrize(
    ("one", "other", "holds"),
    [
        ("10.1.0.7", "10.9.0.5", True),
        ("10.9.0.5", "10.1.0.7", True),
        ("10.1.255.255", "10.9.0.255", True),
        ("10.2.0.0", "10.9.0.5", False),
        ("10.1.0.7", "10.9.1.0", False),
        ("10.1.0.7", "10.1.0.8", False),
        ("fd00::1", "10.9.0.5", False),
    ],
)
def test_rules_hold_both_ways_between_their_ranges(one: str, other: str, holds: bool) -> None:
    assert rule().joins(ip_address(one), ip_address(other)) is holds


def test_the_lowest_of_the_rules_that_hold_comes_first() -> None:
    assert names(rule("wide", limit="1 Gbit/s"), rule("narrow", limit="1 MB/s"), rule("off", enabled=False)) == [
        "narrow",
        "wide",
    ]


def test_restores_are_exempt_unless_told() -> None:
    assert names(rule(), kind=TrafficKind.RESTORE) == []
    assert names(rule(exempt=()), kind=TrafficKind.RESTORE) == ["wan"]
    assert names(rule(exempt=("backup",))) == []


def test_a_rule_holds_in_its_window_by_its_own_clock() -> None:
    office = rule(window=Window(hours=("Mon-Fri 13:00-18:00",), timezone="Europe/Berlin"))
    elsewhere = rule(window=Window(hours=("Mon-Fri 13:00-18:00",), timezone="UTC"))

    assert names(office) == ["wan"]
    assert names(elsewhere) == []
    assert elsewhere.why_not(TrafficKind.BACKUP, MONDAY_NOON) == "it holds in Mon-Fri 13:00-18:00 (UTC) only"


def test_a_rule_may_ask_for_encryption_alone() -> None:
    sealed = rule("sealed", limit=None, encrypt=True)

    assert names(rule(), sealed) == ["wan"]
    assert why_encrypted([sealed], REMOTE, PRIMARY) == "traffic rule sealed asks for encryption"
    assert why_encrypted([sealed], PRIMARY, ELSEWHERE) is None
    assert why_encrypted([sealed], PRIMARY, PRIMARY) is None
    with pytest.raises(ValidationError, match="expected 'limit' or 'encrypt', got neither"):
        rule(limit=None)
    with pytest.raises(ValidationError, match="there is no 'limit'"):
        rule(limit=None, encrypt=True, window=Window(hours=("8:00-18:00",)))


def test_public_addresses_ask_for_encryption_unless_a_rule_says_otherwise() -> None:
    public = ip_address("8.8.8.8")
    anywhere = {"source": ("0.0.0.0/0",), "target": ("0.0.0.0/0",), "limit": None}
    allowed, asked = rule("allowed", encrypt=False, **anywhere), rule("asked", encrypt=True, **anywhere)

    assert why_encrypted([], PRIMARY, public) == "8.8.8.8 is a public address"
    assert why_encrypted([allowed], PRIMARY, public) is None
    assert why_encrypted([allowed, asked], PRIMARY, REMOTE) == "traffic rule asked asks for encryption"
    assert why_encrypted([asked.model_copy(update={"enabled": False})], PRIMARY, REMOTE) is None


@pytest.mark.parametrize(
    ("location", "encrypted", "plain"),
    [
        ("/backup", False, True),
        ("/backup", True, False),
        ("proxyfleet://10.9.0.5/far", False, False),
        ("s3://bucket/main?endpoint=http://10.9.0.5:9000", False, True),
        ("s3://bucket/main?endpoint=http://10.9.0.5:9000", True, False),
        ("s3://bucket/main?endpoint=https://10.9.0.5", False, False),
        ("s3://bucket/main", False, False),
    ],
)
def test_what_can_be_read_on_its_way(location: str, encrypted: bool, plain: bool) -> None:
    assert goes_plain(location, encrypted=encrypted) is plain


def test_what_stays_on_one_machine_is_exempt() -> None:
    everywhere = rule(source=("0.0.0.0/0",), target=("0.0.0.0/0",))

    assert rules_between([everywhere], PRIMARY, PRIMARY) == ()
    assert rules_between([everywhere], ip_address("127.0.0.1"), REMOTE) == ()
    assert rules_between([everywhere], PRIMARY, ELSEWHERE) == (everywhere,)


@pytest.mark.parametrize(
    ("location", "host", "address"),
    [
        ("/backup/main", None, None),
        ("/backup/main", "10.9.0.5", "10.9.0.5"),
        ("s3://bucket/prefix?endpoint=https://10.9.0.5:8333&region=eu", None, "10.9.0.5"),
        ("s3://bucket/prefix?endpoint=https://[fd00::5]:8333", None, "fd00::5"),
        ("s3://bucket/prefix?endpoint=https://s3.example.com", None, None),
        ("proxyfleet://10.9.0.7:7443/main", None, "10.9.0.7"),
        ("proxyfleet://vault.example.com:7443/main", None, None),
        ("s3://bucket/prefix?endpoint=https://s3.example.com", "10.9.0.6", "10.9.0.6"),
    ],
)
def test_where_a_repository_stands(location: str, host: str | None, address: str | None) -> None:
    assert repository_host(location, host) == (ip_address(address) if address else None)


@given(first=st.ip_addresses(v=4), last=st.ip_addresses(v=4), address=st.ip_addresses(v=4))
def test_a_range_holds_what_lies_between_its_ends(first: object, last: object, address: object) -> None:
    low, high = sorted((first, last), key=int)  # type: ignore[arg-type]  # addresses, which the strategy's type hides
    assert (address in parse_range(f"{low}-{high}")) is (int(low) <= int(address) <= int(high))  # type: ignore[call-overload]  # as above
