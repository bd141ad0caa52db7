"""A store behind another machine's gateway, reached over the link: `proxyfleet://host:port/name`.

What a proxy's certificate doesn't allow there, the gateway refuses. Packs are spooled, and sent when whole.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import grpc
import xxhash

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.link.client import Link, Patience, payloads
from proxy_worker.link.errors import LinkProtocolError, LinkRefusedError
from proxy_worker.link.frames import frames_of
from proxy_worker.link.identity import Identity
from proxy_worker.link.messages import (
    LONGEST_CALL_S,
    Done,
    Found,
    Get,
    ListNames,
    Named,
    Names,
    Prepare,
    Put,
    PutDone,
    RemoveLeftovers,
    Renew,
    Stat,
    TermsLeft,
    TermsOf,
    decoded,
)
from proxy_worker.repository.store import (
    Buffer,
    ObjectLockedError,
    ObjectNameError,
    ObjectNotFoundError,
    ObjectSizeError,
    ObjectUnreadableError,
    Pace,
    StoreFullError,
    StoreMissingError,
    StoreReadOnlyError,
    checked_name,
    checked_prefix,
)
from proxy_worker.repository.store.spool import Room, SpooledObject
from proxy_worker.repository.store.tally import RequestTally

_QUICK_S: Final = 60.0
"""For calls that move next to nothing."""
_NAMES_AT_ONCE: Final = 4096
_ERRORS: Final[dict[str, type[ProxyfleetError]]] = {
    kind.code(): kind
    for kind in (
        StoreError,
        ObjectNameError,
        ObjectLockedError,
        ObjectNotFoundError,
        ObjectSizeError,
        ObjectUnreadableError,
        StoreFullError,
        StoreMissingError,
        StoreReadOnlyError,
    )
}

Frames = Callable[[], Iterator[bytes]]


class RemoteStore:
    """Objects of a repository that a gateway offers. Implements `Store`."""

    requests: RequestTally | None = None
    pace: Pace | None = None
    """See `PacedStore`: packs are sent after they are made."""

    def __init__(
        self,
        location: str,
        identity: Identity,
        *,
        patience: Patience | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        """Raises `GatewayAddressError`; connects when first used, over one of the `networks` if it can."""
        address = GatewayAddress.parsed(location)
        self.location = location
        self.room = Room()
        self._repository = address.name
        self._link = Link(address, identity, errors=_ERRORS, patience=patience, networks=networks)

    def prepare(self) -> None:
        """See `Store`."""
        self._link.ask("Prepare", Prepare(self._repository), Done, timeout_s=_QUICK_S)

    def put_if_absent(self, name: str, chunks: Iterable[Buffer]) -> bool:
        """See `Store`."""
        content = b"".join(chunks)
        return self._put(
            checked_name(name),
            len(content),
            lambda: frames_of([content]),
            lambda: xxhash.xxh3_128_digest(content),
        )

    def create(self, name: str) -> SpooledObject:
        """See `Store`."""
        return SpooledObject(self, checked_name(name))

    def replace(self, name: str, chunks: Iterable[Buffer]) -> None:
        """See `Store`."""
        content = b"".join(chunks)
        put = Put(self._repository, checked_name(name), len(content), replace=True)
        self._link.persist(self._link.send("Put", put, lambda: frames_of([content]), PutDone))

    def send(self, spooled: SpooledObject) -> bool:
        """See `Recipient`."""
        size_bytes, given_up = spooled.size_bytes, spooled.given_up
        return self._put(spooled.name, size_bytes, spooled.frames, spooled.digest, given_up=given_up)

    def kept_waiting(self) -> None:
        """See `Recipient`."""
        self._link.heard()

    def _put(
        self,
        name: str,
        size_bytes: int,
        frames: Frames,
        digest: Callable[[], bytes],
        *,
        given_up: threading.Event | None = None,
    ) -> bool:
        """Send an object. After a lost answer, an object of this content is ours: wherever that is in doubt, it
        carries a token of its writer or has a random name."""
        header = Put(self._repository, name, size_bytes)
        doubtful = False

        def attempt(channel: grpc.Channel) -> bool:
            nonlocal doubtful
            again, doubtful = doubtful, True
            if again and (found := self._found(name, channel)).size_bytes is not None:
                return found.digest == digest()
            done = self._link.send("Put", header, frames, PutDone, given_up)(channel)
            return done.created or (again and self._found(name, channel).digest == digest())

        return self._link.persist(attempt, given_up)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        return b"".join(self._link.persist(lambda channel: tuple(self._payloads(channel, name, offset, length))))

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See `Store`."""

        def attempt(channel: grpc.Channel) -> int:
            done = 0
            for payload in self._payloads(channel, name, offset, len(view)):
                if done + len(payload) > len(view):
                    raise LinkProtocolError(
                        f"gateway's answer for {name}", why="it is longer than what was asked for"
                    )
                view[done : done + len(payload)] = payload
                done += len(payload)
            return done

        return self._link.persist(attempt)

    def size(self, name: str) -> int:
        """See `Store`."""
        size_bytes = self._stat(name).size_bytes
        if size_bytes is None:
            raise ObjectNotFoundError(f"can't read {name} in {self.location}", why="there is no such object")
        return size_bytes

    def exists(self, name: str) -> bool:
        """See `Store`."""
        return self._stat(name).size_bytes is not None

    def list(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        yield from self._names(checked_prefix(prefix))

    def delete(self, name: str) -> None:
        """See `Store`; what a proxy may not remove is a `StoreReadOnlyError`."""
        asked = Named(self._repository, checked_name(name))
        try:
            self._link.ask("Delete", asked, Done, timeout_s=_QUICK_S)
        except LinkRefusedError as error:
            raise StoreReadOnlyError(error.what, why=error.why, remedy=error.remedy) from error

    def leftovers(self) -> Iterator[str]:
        """See `Store`: those of the gateway's folder."""
        yield from self._names("")

    def remove_leftovers(self, *, before: float) -> int:
        """See `Store`."""
        asked = RemoveLeftovers(self._repository, time.time() - before)
        return self._link.ask("RemoveLeftovers", asked, Done, timeout_s=_QUICK_S).count

    def has_terms(self) -> bool:
        """See `TermedStore`: whether the gateway keeps it hardened."""
        return self._terms_of(()).hardened

    def renew(self, names: Iterable[str]) -> int:
        """See `TermedStore`."""
        if not self.has_terms():
            return 0
        count = 0
        for some in _some(names):
            asked = Renew(self._repository, some)
            count += self._link.ask("Renew", asked, Done, timeout_s=LONGEST_CALL_S).count
        return count

    def keep(self) -> None:
        """See `TermedStore`; for certificates of role gateway."""
        if self.has_terms():
            self._link.ask("Keep", Prepare(self._repository), Done, timeout_s=_QUICK_S)

    def upkeep_is_overdue(self) -> bool:
        """See `TermedStore`."""
        return self._terms_of(()).overdue

    def left_s(self, names: Iterable[str]) -> Iterator[float]:
        """See `TermedStore`."""
        for some in _some(names):
            answer = self._terms_of(some)
            yield from answer.left_s if answer.hardened else (0.0 for _ in some)

    def give_up(self) -> None:
        """See `Interruptible`."""
        self._link.give_up()

    def close(self) -> None:
        """End its connections."""
        self._link.close()

    def _terms_of(self, names: tuple[str, ...]) -> TermsLeft:
        return self._link.ask("TermsOf", TermsOf(self._repository, names), TermsLeft, timeout_s=LONGEST_CALL_S)

    def _stat(self, name: str) -> Found:
        asked = Stat(self._repository, checked_name(name))
        return self._link.ask("Stat", asked, Found, timeout_s=_QUICK_S)

    def _found(self, name: str, channel: grpc.Channel) -> Found:
        asked = Stat(self._repository, name, digest=True)
        return self._link.asked("Stat", asked, Found, timeout_s=_QUICK_S)(channel)

    def _payloads(self, channel: grpc.Channel, name: str, offset: int, length: int | None) -> Iterator[memoryview]:
        asked = Get(self._repository, checked_name(name), offset, length)
        return payloads(self._link.receive("Get", asked)(channel))

    def _names(self, prefix: str) -> Iterator[str]:
        asked = ListNames(self._repository, prefix)
        answers = self._link.persist(lambda channel: tuple(self._link.receive("List", asked)(channel)))
        for answer in answers:
            yield from decoded(answer, Names).names


def _some(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(names)
    while some := tuple(itertools.islice(left, _NAMES_AT_ONCE)):
        yield some
