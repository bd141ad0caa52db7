"""The gateway's methods: what a store does, for peers, by name of repository."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import xxhash

from proxy_worker.gateway.hardened import HardenedStore
from proxy_worker.gateway.rights import Rights, refused
from proxy_worker.link.admission import Peer, Role
from proxy_worker.link.frames import PAYLOAD_BYTES, FrameError, frames_of, opened
from proxy_worker.link.messages import (
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
    encoded,
)
from proxy_worker.link.server import Methods
from proxy_worker.repository.store import ObjectNotFoundError, ObjectSizeError, Store, checked_name

_LARGEST_OBJECT_BYTES: Final = 8 << 30
"""Packs are some 64 MiB; one with the map of a very large disk is more."""
_NAMES_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Offer:
    """A store that is offered, and the proxies that may use it."""

    store: Store
    proxies: tuple[str, ...] = ("*",)
    """By name or pattern."""


class Gateway:
    """Offers stores by name. Every method may be called from any thread."""

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        self._offers = dict(offers)
        self._rights = {name: Rights() for name in offers}

    @property
    def methods(self) -> Methods:
        """For the link's server."""
        return Methods(
            answer={
                "Stat": self.stat,
                "Delete": self.delete,
                "Prepare": self.prepare,
                "RemoveLeftovers": self.remove_leftovers,
                "Keep": self.keep,
                "Renew": self.renew,
                "TermsOf": self.terms_of,
            },
            answer_stream={"Get": self.get, "List": self.list_names},
            receive={"Put": self.put},
        )

    def put(self, peer: Peer, requests: Iterator[bytes]) -> bytes:
        """Create an object of frames; whatever comes short, or with a wrong checksum, leaves nothing."""
        asked = decoded(next(requests, b""), Put)
        store, rights = self._open(peer, asked.repository)
        rights.require_add(peer, checked_name(asked.name), replace=asked.replace)
        if not 0 <= asked.size_bytes <= _LARGEST_OBJECT_BYTES:
            raise ObjectSizeError(
                f"can't write {asked.name} in {asked.repository}",
                why=f"it would have {asked.size_bytes} bytes, and an object has 0 to {_LARGEST_OBJECT_BYTES}",
            )
        payloads = _whole(requests, asked.size_bytes)
        if asked.replace:
            store.replace(asked.name, payloads)
            return encoded(PutDone(created=True))
        created = store.put_if_absent(asked.name, payloads)
        if created:
            rights.added(peer, asked.name)
        return encoded(PutDone(created=created))

    def get(self, peer: Peer, request: bytes) -> Iterator[bytes]:
        """An object, or a range of it, as frames."""
        asked = decoded(request, Get)
        store, _ = self._open(peer, asked.repository)
        left = asked.length if asked.length is not None else max(0, store.size(asked.name) - asked.offset)
        offset = max(0, asked.offset)
        while True:
            wanted = min(left, PAYLOAD_BYTES)
            piece = store.get(asked.name, offset, max(0, wanted))
            yield from frames_of([piece])
            offset, left = offset + len(piece), left - len(piece)
            if left <= 0 or len(piece) < wanted:
                return

    def stat(self, peer: Peer, request: bytes) -> bytes:
        """Size and digest of an object, if it is there. Who wants the digest has put it, and heard no answer."""
        asked = decoded(request, Stat)
        store, _ = self._open(peer, asked.repository)
        if asked.digest and isinstance(store, HardenedStore):
            store.make_sure(checked_name(asked.name))
        try:
            size_bytes = store.size(asked.name)
        except ObjectNotFoundError:
            return encoded(Found(None))
        digest = xxhash.xxh3_128()
        for offset in range(0, size_bytes if asked.digest else 0, PAYLOAD_BYTES):
            digest.update(store.get(asked.name, offset, PAYLOAD_BYTES))
        return encoded(Found(size_bytes, digest.digest()))

    def list_names(self, peer: Peer, request: bytes) -> Iterator[bytes]:
        """Names below a prefix, or the leftovers."""
        asked = decoded(request, ListNames)
        store, _ = self._open(peer, asked.repository)
        page: list[str] = []
        for name in store.list(asked.prefix) if asked.prefix else store.leftovers():
            page.append(name)
            if len(page) == _NAMES_AT_ONCE:
                yield encoded(Names(tuple(page)))
                page = []
        yield encoded(Names(tuple(page)))

    def delete(self, peer: Peer, request: bytes) -> bytes:
        """Remove an object, if the peer may."""
        asked = decoded(request, Named)
        store, rights = self._open(peer, asked.repository)
        rights.require_delete(peer, checked_name(asked.name), store.exists)
        store.delete(asked.name)
        rights.removed(asked.name)
        return encoded(Done(1))

    def prepare(self, peer: Peer, request: bytes) -> bytes:
        """Make a folder ready for a repository."""
        asked = decoded(request, Prepare)
        store, rights = self._open(peer, asked.repository)
        rights.require_upkeep(peer, "make a repository")
        store.prepare()
        return encoded(Done())

    def remove_leftovers(self, peer: Peer, request: bytes) -> bytes:
        """Remove what interrupted writes have left."""
        asked = decoded(request, RemoveLeftovers)
        store, rights = self._open(peer, asked.repository)
        rights.require_upkeep(peer, "remove leftovers")
        return encoded(Done(store.remove_leftovers(before=time.time() - asked.older_than_s)))

    def renew(self, peer: Peer, request: bytes) -> bytes:
        """Begin the terms of packs anew that are due."""
        asked = decoded(request, Renew)
        store, rights = self._open(peer, asked.repository)
        for name in asked.names:
            rights.require_renew(peer, name)
        return encoded(Done(store.renew(asked.names) if isinstance(store, HardenedStore) else 0))

    def keep(self, peer: Peer, request: bytes) -> bytes:
        """Take note that the upkeep has renewed all that restore points need."""
        asked = decoded(request, Prepare)
        store, rights = self._open(peer, asked.repository)
        rights.require_upkeep(peer, "say that all is renewed")
        if isinstance(store, HardenedStore):
            store.keep()
        return encoded(Done())

    def terms_of(self, peer: Peer, request: bytes) -> bytes:
        """How long objects of a hardened repository must stay yet."""
        asked = decoded(request, TermsOf)
        store, _ = self._open(peer, asked.repository)
        if not isinstance(store, HardenedStore):
            return encoded(TermsLeft(hardened=False))
        return encoded(
            TermsLeft(
                hardened=True,
                overdue=not asked.names and store.upkeep_is_overdue(),
                left_s=tuple(store.left_s(asked.names)),
            )
        )

    def _open(self, peer: Peer, name: str) -> tuple[Store, Rights]:
        offer = self._offers.get(name)
        allowed = offer is not None and (
            peer.role is Role.GATEWAY or any(fnmatchcase(peer.name, pattern) for pattern in offer.proxies)
        )
        if offer is None or not allowed:
            raise refused(peer, f"use repository {name[:64]!r}", "it isn't offered to it here")
        return offer.store, self._rights[name]


def _whole(frames: Iterator[bytes], size_bytes: int) -> Iterator[memoryview]:
    """What frames carry, of this length exactly; raises `FrameError`."""
    left = size_bytes
    for frame in frames:
        payload = opened(frame)
        left -= len(payload)
        if left < 0:
            break
        yield payload
    if left:
        raise FrameError("the object isn't as long as it was announced to be")
