"""A reception that listens: what its source asks over a link, checked before it is believed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import zstandard

from proxy_worker.contract.errors import CancelledError, ProxyfleetError, SourceError, TargetError
from proxy_worker.link.admission import Peer
from proxy_worker.link.errors import LinkRefusedError
from proxy_worker.link.frames import FrameError, opened
from proxy_worker.link.messages import decoded, encoded
from proxy_worker.link.server import Methods
from proxy_worker.replication.blocks import BLOCK_BYTES, STRETCH_BLOCKS, ZERO, digest_of
from proxy_worker.replication.errors import TRAVELLING, ReplicaUnwritableError, SessionEndedError
from proxy_worker.replication.folder import LARGEST_CONFIGURATION_BYTES
from proxy_worker.replication.messages import (
    BLOCKS_AT_ONCE,
    BYE,
    HAVES,
    KEEP_FILE,
    OPEN,
    SEAL,
    WRITE,
    BlockHead,
    Bye,
    Digests,
    Done,
    Haves,
    KeepFile,
    Open,
    Seal,
    Write,
)
from proxy_worker.replication.reception import Reception
from proxy_worker.repository.codec import Codec, Decompressor

_NOTHING: Final = memoryview(b"")


class Desk:
    """Answers one source, of one session. Thread-safe."""

    def __init__(self, reception: Reception, key: bytes, *, session: str, source: str) -> None:
        """`key`: of the digests; `source`: the name of the only proxy that is answered."""
        self.left = threading.Event()
        """Set once the source has said good-bye."""
        self.heard_at_s = time.monotonic()
        """When the source was last heard of."""
        self.failure: ProxyfleetError | None = None
        """What the source was told that ends the session."""
        self._reception = reception
        self._key = key
        self._session = session
        self._source = source
        self._decompressor = Decompressor()

    @property
    def methods(self) -> Methods:
        """For the link's server."""
        return Methods(
            answer={OPEN: self.open, HAVES: self.haves, SEAL: self.seal, BYE: self.bye},
            receive={WRITE: self.write, KEEP_FILE: self.keep_file},
        )

    def open(self, peer: Peer, request: bytes) -> bytes:
        """Begin."""
        asked = decoded(request, Open)
        with self._call(peer, asked.session):
            return encoded(self._reception.open(asked))

    def haves(self, peer: Peer, request: bytes) -> bytes:
        """Digests."""
        asked = decoded(request, Haves)
        if asked.count > STRETCH_BLOCKS:
            raise FrameError(f"{asked.count} digests are too many to be asked for at a time")
        with self._call(peer, asked.session):
            return encoded(Digests(self._reception.haves(asked.first, asked.count)))

    def write(self, peer: Peer, requests: Iterator[bytes]) -> bytes:
        """Write blocks, each once it is whole and has its digest."""
        asked = decoded(next(requests, b""), Write)
        if len(asked.blocks) > BLOCKS_AT_ONCE:
            raise FrameError(f"{len(asked.blocks)} blocks are too many to be sent at a time")
        with self._call(peer, asked.session):
            waiting = bytearray()
            for head in asked.blocks:
                length = self._length(head)
                while len(waiting) < head.stored_length:
                    frame = next(requests, None)
                    if frame is None:
                        raise FrameError("blocks are shorter than they were announced to be")
                    waiting += opened(frame)
                    self.heard_at_s = time.monotonic()
                stored = bytes(waiting[: head.stored_length])
                del waiting[: head.stored_length]
                self._reception.write(head.index, head.digest, self._plain(head, stored, length))
        return encoded(Done())

    def keep_file(self, peer: Peer, requests: Iterator[bytes]) -> bytes:
        """Keep a file of the configuration."""
        asked = decoded(next(requests, b""), KeepFile)
        with self._call(peer, asked.session):
            content = bytearray()
            for request in requests:
                content += opened(request)
                if len(content) > LARGEST_CONFIGURATION_BYTES:
                    break
            if len(content) != asked.size_bytes:
                raise FrameError(f"file {asked.name[:64]!r} isn't as long as it was announced to be")
            self._reception.keep_file(asked.name, bytes(content))
        return encoded(Done())

    def seal(self, peer: Peer, request: bytes) -> bytes:
        """End."""
        asked = decoded(request, Seal)
        with self._call(peer, asked.session):
            return encoded(self._reception.seal(asked))

    def bye(self, peer: Peer, request: bytes) -> bytes:
        """The source has what it needs."""
        with self._call(peer, decoded(request, Bye).session):
            if self._reception.sealed_root is None:
                raise FrameError("a source says good-bye before its disk is sealed")
            self.left.set()
        return encoded(Done())

    @contextmanager
    def _call(self, peer: Peer, session: str) -> Iterator[None]:
        if peer.name != self._source:
            raise LinkRefusedError(
                f"proxy {peer.name} may not write here", why="this disk is another proxy's to send"
            )
        if session != self._session:
            raise SessionEndedError(f"session {session[:64]!r}", why="this target listens for another")
        self.heard_at_s = time.monotonic()
        try:
            yield
        except SessionEndedError:
            raise
        except CancelledError as error:
            raise SessionEndedError(error.what, why=error.why) from error
        except TRAVELLING as error:
            self.failure = error
            raise
        except (SourceError, TargetError) as error:
            self.failure = error
            raise ReplicaUnwritableError(error.what, why=error.why, remedy=error.remedy) from error

    def _length(self, head: BlockHead) -> int:
        """How long a block is that may be written as announced."""
        length = self._reception.length_of(head.index)
        if length is None or not head.sound or head.stored_length > BLOCK_BYTES:
            raise FrameError(f"block {head.index} can't be one of this disk")
        if (head.digest == ZERO) != (head.stored_length == 0):
            raise FrameError(f"block {head.index} is announced to be both zeros and something else")
        return length

    def _plain(self, head: BlockHead, stored: bytes, length: int) -> memoryview:
        """What a block is, decompressed, once it has the digest that it was announced with."""
        if head.digest == ZERO:
            return _NOTHING
        try:
            plain = self._decompressor.decompress(stored, length) if head.codec == Codec.ZSTD else stored
        except zstandard.ZstdError as error:
            raise FrameError(f"block {head.index} can't be decompressed: {error}") from error
        if len(plain) != length or digest_of(self._key, plain) != head.digest:
            raise FrameError(f"block {head.index} isn't what its digest says")
        return memoryview(plain)
