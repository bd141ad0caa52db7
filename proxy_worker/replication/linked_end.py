"""The end of a replication that another proxy writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Final

from proxy_worker.contract.errors import StoreError
from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.link.client import Link, Patience
from proxy_worker.link.frames import frames_of
from proxy_worker.link.identity import Identity
from proxy_worker.replication.blocks import ZERO
from proxy_worker.replication.errors import TRAVELLING
from proxy_worker.replication.far_end import Packed
from proxy_worker.replication.messages import (
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
    Opened,
    Seal,
    Sealed,
    Write,
)
from proxy_worker.repository.codec import Codec, Compressor

_CALL_S: Final = 900.0
"""Reading what nobody knows of a replica, and making it durable, may take long."""
_BYE_S: Final = 5.0


class LinkedEnd:
    """A reception at the end of a link; a cut is waited out, in the same session, for as long as patience lasts."""

    def __init__(
        self,
        receiver: Receiver,
        session: str,
        identity: Identity,
        *,
        streams: int,
        level: CompressionLevel,
        patience: Patience,
        given_up: threading.Event,
        networks: Sequence[str] = (),
    ) -> None:
        """Once `given_up` is set, nothing is tried again."""
        self._session = session
        self.compressor = Compressor(level)
        self._streams = threading.BoundedSemaphore(streams)
        self._given_up = given_up
        self._link = Link(
            GatewayAddress(receiver.host, receiver.port, session),
            identity,
            errors={error.code(): error for error in TRAVELLING},
            streams=streams,
            patience=patience,
            peer=receiver.proxy,
            networks=networks,
        )

    def open(self, asked: Open) -> Opened:
        """Begin."""
        return self._link.persist(self._link.asked(OPEN, asked, Opened, timeout_s=_CALL_S), self._given_up)

    def haves(self, first: int, count: int) -> bytes:
        """The digests of these blocks."""
        asked = Haves(self._session, first, count)
        return self._link.persist(
            self._link.asked(HAVES, asked, Digests, timeout_s=_CALL_S), self._given_up
        ).digests

    def packed(self, index: int, digest: bytes, block: memoryview) -> Packed:
        """A block, compressed where that makes it smaller."""
        if digest == ZERO:
            return Packed(BlockHead(index, ZERO, Codec.PLAIN, 0), b"")
        codec, data = self.compressor.compress(block)
        return Packed(BlockHead(index, digest, codec, len(data)), bytes(data) if codec is Codec.PLAIN else data)

    def write(self, blocks: Sequence[Packed]) -> None:
        """Write blocks; after a cut, the same again."""
        payload = b"".join(block.data for block in blocks)
        head = Write(self._session, tuple(block.head for block in blocks))
        with self._streams:
            step = self._link.send(WRITE, head, lambda: frames_of([payload]), Done)
            self._link.persist(step, self._given_up)

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file."""
        head = KeepFile(self._session, name, len(content))
        self._link.persist(self._link.send(KEEP_FILE, head, lambda: frames_of([content]), Done), self._given_up)

    def seal(self, asked: Seal) -> Sealed:
        """End, and tell the target that its answer has arrived, as well as that goes."""
        sealed = self._link.persist(self._link.asked(SEAL, asked, Sealed, timeout_s=_CALL_S), self._given_up)
        enough = threading.Event()
        enough.set()
        with contextlib.suppress(StoreError):
            self._link.persist(self._link.asked(BYE, Bye(self._session), Done, timeout_s=_BYE_S), enough)
        return sealed

    def close(self) -> None:
        """End its connections."""
        self._link.close()
