"""What a source talks to: the reception of its replica's disk, in this process or at the end of a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy_worker.replication.messages import BlockHead, Open, Opened, Seal, Sealed
from proxy_worker.repository.store import Buffer


@dataclass(frozen=True, slots=True)
class Packed:
    """A block as it is sent."""

    head: BlockHead
    data: Buffer
    """Empty for zeros."""


class FarEnd(Protocol):
    """The target, as its source sees it. Thread-safe. Every call may raise what the target refuses with."""

    def open(self, asked: Open) -> Opened:
        """Begin."""

    def haves(self, first: int, count: int) -> bytes:
        """The digests of these blocks, as the replica has them."""

    def packed(self, index: int, digest: bytes, block: memoryview) -> Packed:
        """A block made ready to be sent; `block` may be used for another afterwards."""

    def write(self, blocks: Sequence[Packed]) -> None:
        """Write blocks, at most `BLOCKS_AT_ONCE`."""

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of the VM's configuration."""

    def seal(self, asked: Seal) -> Sealed:
        """End, once the replica's disk is equal and durable."""

    def close(self) -> None:
        """Let go of it."""
