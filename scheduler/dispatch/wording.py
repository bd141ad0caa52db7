"""What the policy says: why tasks wait, and how they went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from scheduler.dispatch.candidates import Candidates
from scheduler.dispatch.fleet import FleetProxy
from scheduler.planning.window import Window

_MOST_NAMES: Final = 5


def full(who: Candidates) -> str:
    """None of the candidates has a slot to spare."""
    return "; ".join(_full(who, index) for index in range(len(who.tiers)))


def patience(who: Candidates, index: int, patience_s: float) -> str:
    """The proxies of a tier are full, and the next tier isn't turned to yet."""
    tier, after = who.tiers[index : index + 2]
    other = "a worse mode" if tier.preferences == after.preferences else "another proxy"
    return f"{_full(who, index)}; {other} is taken after {patience_s:.0f} s"


def how(who: Candidates, index: int) -> str:
    """By which mode a task goes, and why not by a better one or to a preferred proxy."""
    mode = who.tiers[index].mode
    passed = "; ".join(_full(who, better) for better in range(index))
    return (f" with {mode}" if mode is not None else "") + (f" ({passed})" if passed else "")


def closed(whose: str, window: Window, now: float) -> str:
    """Nothing new begins at this time of the week."""
    begins = datetime.fromtimestamp(window.next_open(now), ZoneInfo(window.timezone))
    return f"{whose} may run {window}, next from {begins:%a %Y-%m-%d %H:%M}"


def slow(datastore: str | None, latency_ms: float, stop_ms: float) -> str:
    """A datastore has enough to do."""
    return f"datastore {datastore} answers in {latency_ms:.0f} ms, and gets nothing more from {stop_ms:g} ms on"


def names(proxies: Sequence[FleetProxy]) -> str:
    """Some proxies by name."""
    shown = ", ".join(proxy.name for proxy in proxies[:_MOST_NAMES])
    return shown if len(proxies) <= _MOST_NAMES else f"{shown} and {len(proxies) - _MOST_NAMES} others"


def _full(who: Candidates, index: int) -> str:
    tier = who.tiers[index]
    slots = sum(proxy.slots for proxy in tier.proxies)
    mode = f" with {tier.mode}" if len(who.tiers) > 1 and tier.mode is not None else ""
    taken = f"({slots} of {slots} slots)"
    if len(tier.proxies) == 1:
        return f"proxy {tier.proxies[0].name}{mode} is full {taken}"
    preferred = "preferred " if tier.preferences else ""
    return f"all {len(tier.proxies)} {preferred}proxies {who.described}{mode} are full {taken}"
