"""The end of a replication that writes in this process, so that nothing crosses a network."""

from __future__ import annotations

from collections.abc import Sequence

from proxy_worker.replication.blocks import ZERO
from proxy_worker.replication.far_end import Packed
from proxy_worker.replication.messages import BlockHead, Open, Opened, Seal, Sealed
from proxy_worker.replication.reception import Reception
from proxy_worker.repository.codec import Codec


class NearEnd:
    """A reception in this process, so that nothing crosses a network."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def open(self, asked: Open) -> Opened:
        """Begin."""
        return self._reception.open(asked)

    def haves(self, first: int, count: int) -> bytes:
        """The digests of these blocks."""
        return self._reception.haves(first, count)

    def packed(self, index: int, digest: bytes, block: memoryview) -> Packed:
        """A block as it is."""
        data = b"" if digest == ZERO else bytes(block)
        return Packed(BlockHead(index, digest, Codec.PLAIN, len(data)), data)

    def write(self, blocks: Sequence[Packed]) -> None:
        """Write blocks."""
        for block in blocks:
            self._reception.write(block.head.index, block.head.digest, memoryview(block.data))

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file."""
        self._reception.keep_file(name, content)

    def seal(self, asked: Seal) -> Sealed:
        """End."""
        return self._reception.seal(asked)

    def close(self) -> None:
        """The reception is closed by whoever opened it."""
