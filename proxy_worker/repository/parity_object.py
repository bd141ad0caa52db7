"""The object that holds the parity of one pack, to the byte, and how it is written beside the pack.

head      magic, pack id
shares    for each group its shares of parity
sums      XXH3-128 of each share of each group: those of data, then those of parity
trailer   pack's length, share length, shares of data and of parity, XXH3-128 of head + sums + trailer so far, magic

All in clear: it says no more of a pack than the pack does, and mending needs no key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import xxhash

from proxy_worker.repository.pack_layout import PACK_ID_BYTES, PackLayoutError, pack_name
from proxy_worker.repository.parity import SUM_BYTES, Parity, ShareCode, sums_of
from proxy_worker.repository.store import Buffer, Interruptible, Store, StoreWriter

MAGIC: Final = b"PFPARI\x00\x01"
END_MAGIC: Final = b"PFPARI\x00\x02"
_TRAILER: Final = struct.Struct("<IIBBxx16s8s")
_PLAIN: Final = struct.Struct("<IIBBxx")
_HEAD_BYTES: Final = len(MAGIC) + PACK_ID_BYTES
PARITY_PREFIX: Final = "parity/"


class OtherPackSizeError(PackLayoutError):
    """Parity and pack don't fit each other: either may be to blame."""


def parity_name(pack_id: bytes) -> str:
    """Where the parity of a pack lies."""
    return PARITY_PREFIX + pack_name(pack_id).partition("/")[2]


class GuardedObject:
    """A pack being written, and its parity with it. Implements `StoreWriter`."""

    def __init__(self, store: Store, pack_id: bytes, parity: Parity) -> None:
        self._pack = store.create(pack_name(pack_id))
        self._object = store.create(parity_name(pack_id))
        self._shares = ParityWriter(self._object, pack_id, parity)

    def write(self, data: Buffer) -> None:
        """See `StoreWriter`."""
        self._pack.write(data)
        self._shares.write(data)

    def end(self) -> None:
        """See `StoreWriter`: the parity waits until the pack has its name, so that none is ever without one."""
        self._shares.end()
        self._pack.end()

    def finish(self) -> bool:
        """See `StoreWriter`. A proof that came upon the pack just now may have made its parity: it's the same."""
        self._shares.end()
        try:
            named = self._pack.finish()
            if named:
                self._object.finish()
            return named
        finally:
            self._object.discard()

    def give_up(self) -> None:
        """See `Interruptible`."""
        for one in (self._pack, self._object):
            if isinstance(one, Interruptible):
                one.give_up()

    def discard(self) -> None:
        """See `StoreWriter`."""
        self._pack.discard()
        self._object.discard()


class ParityWriter:
    """Turns what is written into a pack into its parity. Single-threaded."""

    def __init__(self, out: StoreWriter, pack_id: bytes, parity: Parity) -> None:
        self._out = out
        self._head = MAGIC + pack_id
        self._parity = parity
        self._code = ShareCode(parity)
        self._group = memoryview(bytearray(parity.group_bytes))
        self._used = 0
        self._pack_bytes = 0
        self._sums = bytearray()
        self._ended = False
        out.write(self._head)

    def write(self, data: Buffer) -> None:
        """The pack's next bytes."""
        view = memoryview(data)
        self._pack_bytes += len(view)
        while view:
            count = min(len(view), len(self._group) - self._used)
            self._group[self._used : self._used + count] = view[:count]
            self._used += count
            view = view[count:]
            if self._used == len(self._group):
                self._close_group()

    def end(self) -> None:
        """The pack is complete. Idempotent."""
        if self._ended:
            return
        self._ended = True
        if self._used:
            self._close_group()
        parity = self._parity
        plain = _PLAIN.pack(self._pack_bytes, parity.share_bytes, parity.data_shares, parity.parity_shares)
        guard = xxhash.xxh3_128_digest(self._head + self._sums + plain)
        self._out.write(bytes(self._sums) + plain + guard + END_MAGIC)

    def _close_group(self) -> None:
        shares = self._code.shares_of(self._group[: self._used])
        self._sums += sums_of(shares)
        self._out.write(b"".join(shares[self._parity.data_shares :]))
        self._used = 0


@dataclass(frozen=True, slots=True)
class PackParity:
    """The parity of a pack, as far as its object says how it is laid out."""

    name: str
    parity: Parity
    pack_bytes: int
    sums: bytes

    def sums_of(self, group: int) -> list[bytes]:
        """The checksums of a group's shares."""
        count = self.parity.data_shares + self.parity.parity_shares
        at = group * count * SUM_BYTES
        return [self.sums[at + place * SUM_BYTES : at + (place + 1) * SUM_BYTES] for place in range(count)]

    def shares_at(self, group: int) -> int:
        """Where in the object a group's shares of parity begin."""
        return _HEAD_BYTES + group * self.parity.parity_shares * self.parity.share_bytes


def load_parity(store: Store, pack_id: bytes) -> PackParity:
    """How a pack's parity is laid out, verified; raises `PackLayoutError`, `ObjectNotFoundError`.

    `OtherPackSizeError` where its pack may be what is wrong. Whoever may write can have put anything there: nothing
    is read by what it says before that can be so.
    """
    name = parity_name(pack_id)
    size = store.size(name)
    head = _read(store, name, 0, _HEAD_BYTES)
    trailer = _read(store, name, max(0, size - _TRAILER.size), _TRAILER.size)
    if len(trailer) != _TRAILER.size or not trailer.endswith(END_MAGIC) or head != MAGIC + pack_id:
        raise PackLayoutError("its parity is cut short, or another pack's")
    pack_bytes, share_bytes, data_shares, parity_shares, guard, _ = _TRAILER.unpack(trailer)
    parity = Parity(parity_shares, data_shares, share_bytes)
    if not parity.is_possible():
        raise PackLayoutError("its parity is of no possible size")
    # A pack that was cut short by more can't be mended.
    if not 0 <= pack_bytes - store.size(pack_name(pack_id)) <= parity_shares * share_bytes:
        raise OtherPackSizeError("its parity is of a pack of another size")
    sums_bytes = parity.group_count(pack_bytes) * (data_shares + parity_shares) * SUM_BYTES
    if size != _HEAD_BYTES + _shares_bytes(parity, pack_bytes) + sums_bytes + _TRAILER.size:
        raise PackLayoutError("its parity is of another size than it says")
    sums = _read(store, name, size - _TRAILER.size - sums_bytes, sums_bytes)
    if xxhash.xxh3_128_digest(head + sums + trailer[: _PLAIN.size]) != guard:
        raise PackLayoutError("the checksums of its parity are damaged")
    return PackParity(name, parity, pack_bytes, sums)


def _shares_bytes(parity: Parity, pack_bytes: int) -> int:
    """What the shares of parity take up."""
    whole, rest = divmod(pack_bytes, parity.group_bytes)
    return parity.parity_shares * (whole * parity.share_bytes + parity.share_length(rest))


def _read(store: Store, name: str, offset: int, length: int) -> bytes:
    """One request, where `Store.get` takes a second to know the object's end."""
    view = memoryview(bytearray(length))
    return bytes(view[: store.read_into(name, offset, view)])
