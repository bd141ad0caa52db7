"""Traffic rules, one by one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from scheduler.cli.proxy_wizard import show_traffic_rules
from scheduler.cli.traffic_hint import tell_traffic_rules
from scheduler.state.store import open_state
from tests.scheduler.cli.conftest import Program
from tests.scheduler.conftest import World

WAN = ("--from", "10.1.0.0/16", "--to", "10.9.0.0/24", "--limit", "80 Mbit/s")
EXPLAIN = ("traffic-rule", "explain", "--from", "10.1.0.7", "--to", "10.9.0.5")


def test_a_rule_is_added_listed_explained_exported_and_removed(applied: Program) -> None:
    assert applied("traffic-rule", "list", "--json").json == []
    assert applied("traffic-rule", "add", "wan", *WAN).code == 0
    assert applied("traffic-rule", "add", "wide", *WAN[:-1], "1 Gbit/s", "--limit-restores").code == 0

    (wan, wide) = applied("traffic-rule", "list", "--json").json
    assert (wan["name"], wan["bytes_per_s"], wan["exempt"], wan["in_force"]) == (
        "wan",
        10_000_000,
        ["restore"],
        True,
    )
    assert wide["exempt"] == []
    assert "80 Mbit/s" in applied("traffic-rule", "list").out
    assert 'limit = "80 Mbit/s"' in applied("export").out

    explained = applied(*EXPLAIN)
    assert explained.err == "A backup between 10.1.0.7 and 10.9.0.5 is limited to 80 Mbit/s, by rule wan.\n"
    assert "yes, the lowest" in explained.out
    restore = applied(*EXPLAIN, "--kind", "restore", "--json").json
    assert (restore["rule"], restore["rules"][0]["why_not"]) == ("wide", "it exempts restore")

    assert applied("traffic-rule", "remove", "wan").code == 0
    assert [rule["name"] for rule in applied("traffic-rule", "list", "--json").json] == ["wide"]


def test_what_a_file_declares_comes_back_from_an_export(applied: Program, tmp_path: Path) -> None:
    hours = ("--window", "Mon-Fri 8:00-18:00", "--timezone", "Europe/Berlin")
    assert applied("traffic-rule", "add", "wan", *WAN, *hours).code == 0
    assert applied("repository", "add", "remote", "--location", "/b", "--host", "10.9.0.5").code == 0
    exported = applied("export").out
    assert 'host = "10.9.0.5"' in exported

    (tmp_path / "exported.toml").write_text(exported)

    assert applied("apply", "-f", str(tmp_path / "exported.toml")).out == "Nothing to change.\n"


def test_a_rule_that_asks_for_encryption_only(applied: Program, tmp_path: Path) -> None:
    assert applied("traffic-rule", "add", "sealed", *WAN[:-2], "--encrypt").code == 0
    (sealed,) = applied("traffic-rule", "list", "--json").json
    assert (sealed["limit"], sealed["encrypt"], sealed["in_force"]) == (None, True, True)
    explained = applied(*EXPLAIN)
    assert explained.err == (
        "Nothing limits a backup between 10.1.0.7 and 10.9.0.5 now.\n"
        "It has to be encrypted: traffic rule sealed asks for encryption.\n"
    )
    assert "no: it is about encryption only" in explained.out
    assert applied(*EXPLAIN, "--json").json["why_encrypted"] == "traffic rule sealed asks for encryption"
    exported = applied("export").out
    (tmp_path / "exported.toml").write_text(exported)
    assert applied("apply", "-f", str(tmp_path / "exported.toml")).out == "Nothing to change.\n"
    refused = applied("traffic-rule", "add", "none", *WAN[:-2])
    assert (refused.code, "expected 'limit' or 'encrypt', got neither" in refused.err) == (3, True)


def test_a_time_zone_of_no_hours_is_refused(applied: Program) -> None:
    refused = applied("traffic-rule", "add", "wan", *WAN, "--timezone", "Europe/Berlin")
    assert refused.code == 2
    assert "--timezone is about --window" in " ".join(refused.err.split())
    assert applied("traffic-rule", "list", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--from", "10.1.0.9-10.1.0.1", *WAN[2:]), "it is reversed"),
        (("--from", "10.1.0.1", *WAN), "ranges that don't overlap, got '10.1.0.1' and '10.1.0.0/16'"),
        ((*WAN[:-1], "80 Mbps"), "expected a rate such as"),
        ((*WAN, "--window", "8:00-9:00", "--timezone", "Mars/X"), "expected a time zone"),
    ],
)
def test_wrong_rules_are_refused_by_name(applied: Program, arguments: tuple[str, ...], named: str) -> None:
    refused = applied("traffic-rule", "add", "bad", *arguments)

    assert refused.code == 3
    assert "traffic rule 'bad'" in refused.err
    assert named in refused.err


def test_unknown_rules_and_addresses_are_named(applied: Program) -> None:
    assert applied("traffic-rule", "remove", "wan").code == 4
    refused = applied("traffic-rule", "explain", "--from", "nowhere", "--to", "10.9.0.5")
    assert (refused.code, "--from 'nowhere': it is no IP address" in refused.err) == (3, True)


def test_a_proxy_that_is_added_is_told_of_the_rules_that_will_hold(
    applied: Program, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = ("--window", "Mon-Fri 8:00-18:00", "--timezone", "Europe/Berlin")
    assert applied("traffic-rule", "add", "wan", *WAN, *hours).code == 0
    assert applied("repository", "add", "remote", "--location", "/b", "--host", "10.9.0.5").code == 0
    capsys.readouterr()

    with closing(open_state(world.url)) as state:
        for host in ("10.1.0.7", "10.2.0.7", "no.such.host.invalid"):
            tell_traffic_rules(state, host)
        show_traffic_rules(state, "10.1.0.7")
        show_traffic_rules(state, "10.2.0.7")

    told = "Traffic rule wan: 80 Mbit/s in Mon-Fri 8:00-18:00 (Europe/Berlin) with remote, restores exempt.\n"
    step = "\n5 of 7: Traffic rules\n"
    assert capsys.readouterr().err == (
        f"{told}{step}{told}{step}None holds for what it exchanges with repositories.\n"
    )
