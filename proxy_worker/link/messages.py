"""What crosses a link beside frames: small messages, msgpack, strict about their fields."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from proxy_worker.contract.errors import ProxyfleetError

SERVICE: Final = "proxyfleet.Gateway"
LONGEST_CALL_S: Final = 900.0
"""A call with one message each way says how long it may take, and no longer than this; others last while something
crosses: nobody holds a place at a server for ever."""


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for one object: whether it is there, its size, its removal. The first message of a put, too."""

    repository: str
    name: str


class Put(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begins an object; frames follow, `size_bytes` in all."""

    repository: str
    name: str
    size_bytes: int
    replace: bool = False


class PutDone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it ended."""

    created: bool
    """False: the name is taken."""


class Get(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a piece of an object, or, with no length, all from the offset on. Frames are the answer."""

    repository: str
    name: str
    offset: int
    length: int | None


class Stat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for an object's size and, if wanted, its digest."""

    repository: str
    name: str
    digest: bool = False


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object, if there is one."""

    size_bytes: int | None
    digest: bytes = b""
    """XXH3-128 of its content, if that was wanted."""


class ListNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for every name below a prefix, or for leftovers where the prefix is empty."""

    repository: str
    prefix: str


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some names of an answer; several of these make it whole."""

    names: tuple[str, ...]


class Renew(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks that a hardened repository keep packs for as long as a restore point that is made now."""

    repository: str
    names: tuple[str, ...]


class TermsOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks how long objects must stay yet, or with no names, whether any has to."""

    repository: str
    names: tuple[str, ...]


class TermsLeft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long, in the order of the names."""

    hardened: bool
    """Whether objects have terms at all."""
    overdue: bool = False
    """Whether the upkeep should have renewed all that is needed by now."""
    left_s: tuple[float, ...] = ()
    """Seconds; 0 for what may be deleted. Nothing if none has a term."""


class RemoveLeftovers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks to remove what hasn't been written to for so long: clocks of the two ends may differ."""

    repository: str
    older_than_s: float


class Prepare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks to make the place of a repository ready, or says that its upkeep has renewed what is needed."""

    repository: str


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It is done; how many things it was done to."""

    count: int = 0


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error of the other end, by its code, in its words."""

    code: str
    what: str
    why: str
    remedy: str

    @classmethod
    def of(cls, error: ProxyfleetError) -> Refusal:
        """An error as it travels."""
        return cls(error.code(), error.what, error.why, error.remedy)


def encoded(message: msgspec.Struct) -> bytes:
    """As bytes."""
    return msgspec.msgpack.encode(message)


M = TypeVar("M", bound=msgspec.Struct)


def decoded(data: bytes, kind: type[M]) -> M:
    """From bytes; raises `msgspec.ValidationError`, `msgspec.DecodeError`."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UnicodeDecodeError as error:  # which msgspec leaves as it is
        raise msgspec.DecodeError(str(error)) from error
