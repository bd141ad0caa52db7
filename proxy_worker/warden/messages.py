"""What gateway and warden say to each other: one datagram each, msgpack."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from proxy_worker.link.messages import Refusal

LARGEST_BYTES: Final = 128 << 10
NAMES_AT_ONCE: Final = 128
"""Of the longest names as many as fit."""


Verb: TypeAlias = Literal["sweep", "lock", "renew", "keep", "release", "left"]


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the warden is asked for."""

    verb: Verb
    names: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How that went."""

    count: int = 0
    """How many terms were begun."""
    overdue: bool = False
    """Whether the upkeep should have renewed what is needed by now."""
    left_s: tuple[float, ...] = ()
    """What is left of terms, in seconds, in the order of the names."""
    folder: tuple[int, int] = (0, 0)
    """Device and inode of the folder that it looks after."""
    refusal: Refusal | None = None
