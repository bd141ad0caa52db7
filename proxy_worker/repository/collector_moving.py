"""Moving what is needed out of packs that are mostly dead, as it is stored: without opening it.

A chunk keeps its data key, nonce and ciphertext; only its place changes. The old packs stay until the new ones, and
the fragments that describe them, are durable: before that everything is there twice.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import xxhash

from proxy_worker.contract.errors import DamageError
from proxy_worker.repository.access import Access
from proxy_worker.repository.collector_packs import Packs
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.identity import SignatureVerifier, issue_identity
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES
from proxy_worker.repository.keyring import Keyring, Secrets
from proxy_worker.repository.pack_layout import Chunk, ChunkKind, Footer, PackLayoutError, PackTable, pack_name
from proxy_worker.repository.packs import BUFFER_BYTES, ClosedPack, PackWriter, read_footer, read_table
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import ObjectNotFoundError

_PACKS_PER_FRAGMENT: Final = 8


class ChunkDamagedError(ValueError):
    """A pack's chunk has another checksum than its footer says."""


@dataclass
class _Group:
    """The open pack of a trust group, and what went into it and those before that aren't published yet."""

    name: str
    keyring: Keyring
    sealer: MetadataSealer
    pack: PackWriter | None = None
    closed: list[ClosedPack] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)


class ChunkMover:
    """Moves chunks into new packs, those of each trust group into packs of their own."""

    def __init__(
        self,
        access: Access,
        packs: Packs,
        *,
        unlocked: Secrets | None,
        pack_bytes: int,
        after_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.moved_bytes = 0
        self.new_packs = 0
        self.left: dict[int, str] = {}
        """Packs that had to stay, with the reason."""
        self._access = access
        self._packs = packs
        self._unlocked = unlocked
        self._pack_bytes = pack_bytes
        self._after_bytes = after_bytes
        self._groups: dict[str, _Group] = {}

    def move(self, offsets: Mapping[int, array[int]]) -> Iterator[int]:
        """Move the chunks at these offsets of these packs; yields each pack that nothing is needed of any more.

        Raises what `after_bytes` raises, which is told after each chunk how long it was.
        """
        try:
            for number, wanted in sorted(offsets.items()):
                group = self._take(number, frozenset(wanted))
                if group and len(group.closed) >= _PACKS_PER_FRAGMENT:
                    yield from self._publish(group)
            for group in self._groups.values():
                yield from self._publish(group)
        finally:
            for group in self._groups.values():
                if group.pack:
                    group.pack.discard()

    def _take(self, number: int, wanted: frozenset[int]) -> _Group | None:
        access, pack_id = self._access, self._packs.ids[number]
        try:
            footer = read_footer(access.store, pack_id)
            table, signer = read_table(access.store, access.sealer, pack_id, footer)
            group = self._group(signer.group)
            if group is None:
                self.left[number] = f"it is of trust group {signer.group}; use the passphrase"
                return None
            for chunk, stored in _stored(access, pack_id, table, footer, wanted):
                self._put(group, chunk, table, stored)
        except ObjectNotFoundError:
            return None
        except (PackLayoutError, DamageError, ChunkDamagedError) as error:
            self.left[number] = str(error)
            return None
        group.sources.append(number)
        return group

    def _put(self, group: _Group, chunk: Chunk, table: PackTable, stored: bytes) -> None:
        if group.pack is None:
            group.pack = PackWriter(
                self._access.store, group.keyring, group.sealer, encrypted=False, buffer=bytearray(BUFFER_BYTES)
            )
        key = None
        if chunk.kind == ChunkKind.BLOCK and table.data_keys:
            if chunk.key_index >= len(table.data_keys):
                raise ChunkDamagedError(f"the chunk at {chunk.offset} names a data key that it doesn't have")
            key = table.data_keys[chunk.key_index]
        group.pack.add_stored(chunk, key, stored)
        self.moved_bytes += len(stored)
        self._after_bytes(len(stored))
        if group.pack.size_bytes >= self._pack_bytes:
            self._close(group)

    def _close(self, group: _Group) -> None:
        if group.pack:
            closed, group.pack = group.pack.close(), None
            closed.object.finish()
            group.closed.append(closed)
            self.new_packs += 1

    def _publish(self, group: _Group) -> Iterator[int]:
        """Make all that has been moved so far findable; only then are its sources dead."""
        self._close(group)
        if group.closed:
            name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
            described = [
                (FragmentPack(pack.pack_id, pack.size_bytes, group.name, pack.data_keys), pack.chunks)
                for pack in group.closed
            ]
            self._access.store.put_if_absent(name, [encode_fragment(group.sealer, name, described)])
        done, group.sources, group.closed = group.sources, [], []
        yield from done

    def _group(self, name: str) -> _Group | None:
        """Moved chunks stay of the trust group that vouched for them; only the owner can speak for another."""
        if name not in self._groups:
            access = self._access
            keyring = access.keyring
            if keyring.identity.body.group != name:
                if self._unlocked is None:
                    return None
                identity = issue_identity(
                    self._unlocked.root_key, keyring.repository_id, label="collector", group=name
                )
                keyring = replace(keyring, identity=identity)
            verifier = SignatureVerifier(keyring.root_public_key, keyring.repository_id, access.config.revoked)
            self._groups[name] = _Group(name, keyring, MetadataSealer(keyring, verifier, access.store.location))
        return self._groups[name]


def _stored(
    access: Access, pack_id: bytes, table: PackTable, footer: Footer, wanted: frozenset[int]
) -> Iterator[tuple[Chunk, bytes]]:
    name = pack_name(pack_id)
    for chunk, (offset, length, checksum) in zip(table, footer, strict=True):
        if offset in wanted:
            stored = access.store.get(name, offset, length)
            if xxhash.xxh3_128_digest(stored) != checksum:
                raise ChunkDamagedError(f"the chunk at {offset} has a wrong checksum")
            yield chunk, stored
