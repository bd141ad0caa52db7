"""Stores: named, immutable objects on something that keeps bytes.

A store knows names, bytes and folders of names; it must not know what the objects mean. Every store behaves as
the conformance suite in `tests/repository/test_store_conformance.py` says, and wrappers compose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

from proxy_worker.contract.errors import ConfigurationError, StoreError
from proxy_worker.repository.store.tally import RequestTally

Buffer: TypeAlias = bytes | bytearray | memoryview

_PART = r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{1,5}}")
_PREFIX = re.compile(rf"(?:{_PART}/){{1,5}}")


class ObjectNotFoundError(StoreError):
    """The store has no object of that name."""

    retryable: ClassVar[bool] = False


class ObjectUnreadableError(StoreError):
    """The object is there, but what keeps it can't read all of it any more, as of a bad sector."""


class StoreFullError(StoreError):
    """The store has no room, or a quota is used up."""

    retryable: ClassVar[bool] = False


class ObjectSizeError(StoreError):
    """An object is larger than the store takes, or of no size that one can have."""

    retryable: ClassVar[bool] = False


class StoreReadOnlyError(StoreError):
    """The store may be read but not written: mounted read-only, or missing permission."""

    retryable: ClassVar[bool] = False


class ObjectLockedError(StoreReadOnlyError):
    """The object is immutable for a time that isn't over: nobody may delete or change it."""


class StoreMissingError(StoreError):
    """The place the store should be at doesn't exist or isn't reachable."""


class ObjectNameError(ConfigurationError):
    """A name that no object can have."""


def checked_name(name: str) -> str:
    """Return `name` if it can name an object, e.g. `points/vm-1/run-2`; raises `ObjectNameError` otherwise."""
    if not is_object_name(name):
        raise ObjectNameError(
            f"object name {name[:200]!r}",
            why="names are 2 to 6 parts of letters, digits and ._:@+=-, each starting with a letter or digit",
        )
    return name


def is_object_name(name: str) -> bool:
    """Whether an object can have this name."""
    return _NAME.fullmatch(name) is not None


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if it ends a whole number of name parts, e.g. `points/`; raises `ObjectNameError`
    otherwise."""
    if not _PREFIX.fullmatch(prefix):
        raise ObjectNameError(f"object prefix {prefix[:200]!r}", why="a prefix is whole parts, each ended by /")
    return prefix


class StoreWriter(Protocol):
    """An object being written. It has no name, and nobody sees it, until `finish` says True."""

    def write(self, data: Buffer) -> None:
        """Append. Raises `StoreError`."""

    def end(self) -> None:
        """Nothing more comes: the object may get its name before `finish` asks for that. Idempotent."""

    def finish(self) -> bool:
        """Make it durable and give it its name; False if the name is taken, which drops what was written."""

    def discard(self) -> None:
        """Drop it. Idempotent, and harmless after `finish`."""


@runtime_checkable
class Interruptible(Protocol):
    """An object being written whose `finish` may take long; or a store whose every call may."""

    def give_up(self) -> None:
        """From any thread, and from signals' handlers: it needn't be finished, and is to raise soon if it can't be.
        Harmless at any time."""


class Pace(Protocol):
    """A rate that is kept to by who spends afterwards and asks before. Thread-safe."""

    def ready(self) -> bool:
        """Whether more may be sent now."""

    def spend(self, count: int) -> None:
        """Count bytes that are sent."""


@runtime_checkable
class PacedStore(Protocol):
    """A store that sends later what it is given now, and keeps to a rate then."""

    pace: Pace | None


class Store(Protocol):
    """Where objects lie. Every method may be called from any thread and raises `StoreError` or a kind of it."""

    location: str
    """For messages: the path or URL."""
    requests: RequestTally | None
    """What was asked of the store; None where requests cost nothing."""

    def prepare(self) -> None:
        """Make the place ready to hold a repository. Idempotent."""

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """Create an object, durable when this returns; False if the name is taken."""

    def create(self, name: str) -> StoreWriter:
        """Begin an object whose content comes piece by piece."""

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """Create or overwrite in one step. Only objects under `keys/` are ever rewritten."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `offset`; shorter than `length` at its end. Raises `ObjectNotFoundError`."""

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on; the number of bytes read, less than the view's only at the object's end."""

    def size(self, name: str) -> int:
        """The object's length in bytes. Raises `ObjectNotFoundError`."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""

    def list(self, prefix: str) -> Iterator[str]:
        """Every name that starts with `prefix` (whole parts, ended by `/`), in no order.

        What lies there under names that no object can have isn't listed.
        """

    def delete(self, name: str) -> None:
        """Remove an object. Idempotent."""

    def leftovers(self) -> Iterator[str]:
        """What interrupted writes have left: harmless, and removable when no writer runs."""

    def remove_leftovers(self, *, before: float) -> int:
        """Remove what hasn't been written to since `before` (Unix seconds); how many there were.

        By the clocks of the store and this machine: a wrong one costs whoever is at work a run, never an object.
        """
