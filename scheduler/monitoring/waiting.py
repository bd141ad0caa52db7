"""Reasons for waiting, by kind: the sentences that people read name proxies and figures, which no label may."""

from __future__ import annotations

import re
from enum import StrEnum


class WaitingKind(StrEnum):
    """What a task waits for."""

    SLOT = "slot"
    """Those who could take it are full."""
    LIMIT = "limit"
    """As many tasks as are allowed use its repository or datastore, or upkeep is ahead of it."""
    WINDOW = "window"
    """Nothing new may begin at this time."""
    LATENCY = "latency"
    """Its datastore is slow enough as it is."""
    NO_PROXY = "no_proxy"
    """Nobody could take it, however idle."""
    PICK_UP = "pick_up"
    """It is announced, or about to be."""
    QUIET = "quiet"
    """Redis lost its data, and leases from before may still be trusted."""
    OTHER = "other"


_KINDS = (
    (re.compile(r"announced on lane|about to be released"), WaitingKind.PICK_UP),
    (re.compile(r"^leases from before"), WaitingKind.QUIET),
    (re.compile(r"^no proxy|^proxy \S+ (has not|is not|is disabled|does not)|not declared"), WaitingKind.NO_PROXY),
    (re.compile(r" may run .*, next from "), WaitingKind.WINDOW),
    (re.compile(r"^datastore .* answers in "), WaitingKind.LATENCY),
    (re.compile(r"tasks at once|are busy with upkeep|upkeep are ahead"), WaitingKind.LIMIT),
    (re.compile(r"(is|are) full \("), WaitingKind.SLOT),
)


def kind_of(reason: str) -> WaitingKind:
    """The kind of a reason as `waiting_reasons` words it."""
    sentence = reason.removeprefix("waiting: ")
    return next((kind for pattern, kind in _KINDS if pattern.search(sentence)), WaitingKind.OTHER)
