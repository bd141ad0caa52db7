"""Parity of packs: some more bytes from which a pack that has rotted in a few places can be worked out.

A pack is cut into groups, each group into equal shares. To the shares of data there are some of parity, by a
Reed-Solomon code (Cauchy matrix): as many shares of a group may be damaged as there are of parity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import xxhash

from proxy_worker.repository.store import Buffer

SUM_BYTES: Final = 16
_SHARE_UNIT: Final = 16
_CODE: Final = "isa_l_rs_cauchy"
DATA_SHARES: Final = 28
SHARE_BYTES: Final = 64 * 1024
MOST_PARITY_SHARES: Final = 4
_MOST_SHARES: Final = 32
"""Of both kinds: what the library takes."""
_MOST_GROUP_BYTES: Final = 64 << 20
"""A group is held in memory, and packs are hardly larger."""


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much parity a repository keeps."""

    parity_shares: int
    """Of each group: so many damaged shares can be mended."""
    data_shares: int = DATA_SHARES
    share_bytes: int = SHARE_BYTES
    """Of a whole group; those of a pack's last group are shorter."""

    @property
    def group_bytes(self) -> int:
        """Data in a whole group."""
        return self.data_shares * self.share_bytes

    def group_count(self, pack_bytes: int) -> int:
        """The groups of a pack."""
        return -(-pack_bytes // self.group_bytes)

    def share_length(self, data_bytes: int) -> int:
        """How long each share of a group with so much data is."""
        return -(-data_bytes // (self.data_shares * _SHARE_UNIT)) * _SHARE_UNIT

    def is_possible(self) -> bool:
        """Whether anybody can have made such parity."""
        data, parity = self.data_shares, self.parity_shares
        counts = data > 0 and parity > 0 and data + parity <= _MOST_SHARES
        sizes = (
            self.share_bytes > 0 and self.share_bytes % _SHARE_UNIT == 0 and self.group_bytes <= _MOST_GROUP_BYTES
        )
        return counts and sizes

    def group_length(self, pack_bytes: int, group: int) -> int:
        """How much data of a pack is in a group."""
        return min(self.group_bytes, pack_bytes - group * self.group_bytes)


class UnmendableError(ValueError):
    """More is damaged than parity makes up for."""


class ShareCode:
    """Works out shares of parity from those of data, and lost shares from the others. Single-threaded."""

    def __init__(self, parity: Parity) -> None:
        # ISA-L, packaged by OpenStack; loaded only where a repository has parity.
        from pyeclib.ec_iface import ECDriver  # noqa: PLC0415

        self._parity = parity
        self._driver: Any = ECDriver(k=parity.data_shares, m=parity.parity_shares, ec_type=_CODE)

    def shares_of(self, data: Buffer) -> list[memoryview]:
        """All shares of a group, those of parity last."""
        length = self._parity.share_length(len(data))
        return [memoryview(fragment)[-length:] for fragment in self._encoded(data)]

    def mended(self, data_bytes: int, shares: Sequence[Buffer | None]) -> bytes:
        """A group's data, so long, from those of all its shares that are whole, None standing for the others.

        Raises `UnmendableError`.
        """
        length = self._parity.share_length(data_bytes)
        if sum(share is not None for share in shares) < self._parity.data_shares:
            raise UnmendableError("more of it is damaged than its parity makes up for")
        # The library wants a head of its own before each share; what is in it depends on lengths only.
        heads = [fragment[:-length] for fragment in self._encoded(bytes(data_bytes))]
        whole = [head + bytes(share) for head, share in zip(heads, shares, strict=True) if share is not None]
        restored: bytes = self._driver.decode(whole)
        return restored[:data_bytes]

    def _encoded(self, data: Buffer) -> list[bytes]:
        padded = bytes(data).ljust(self._parity.data_shares * self._parity.share_length(len(data)), b"\0")
        encoded: list[bytes] = self._driver.encode(padded)
        return encoded


def sums_of(shares: Sequence[Buffer]) -> bytes:
    """The checksums of shares, joined."""
    return b"".join(xxhash.xxh3_128_digest(share) for share in shares)
