"""Packs that are filled by whoever tends a repository: with chunks of other packs as they are, or stored anew.

Chunks of each trust group go into packs of their own, which are durable before the fragments that describe them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.access import Access
from proxy_worker.repository.codec import Codec, Compressor
from proxy_worker.repository.data_keys import SealedDataKey
from proxy_worker.repository.fragments import FragmentPack, encode_fragment, fragment_name
from proxy_worker.repository.identity import SignatureVerifier, issue_identity
from proxy_worker.repository.index_run import FRAGMENT_ID_BYTES
from proxy_worker.repository.keyring import Keyring, Secrets
from proxy_worker.repository.pack_layout import Chunk, ChunkKind
from proxy_worker.repository.packs import BUFFER_BYTES, ClosedPack, PackWriter
from proxy_worker.repository.sealing import MetadataSealer
from proxy_worker.repository.store import Buffer

PACKS_PER_FRAGMENT: Final = 8


@dataclass
class _Group:
    """A trust group's open pack, and those before that aren't published yet."""

    name: str
    keyring: Keyring
    sealer: MetadataSealer
    pack: PackWriter | None = None
    closed: list[ClosedPack] = field(default_factory=list)


class NewPacks:
    """One open pack for each trust group. Single-threaded."""

    def __init__(
        self, access: Access, *, unlocked: Secrets | None, pack_bytes: int, new_blocks: bool = False
    ) -> None:
        """`unlocked` is what it takes to speak for trust groups of others; `new_blocks` if `put_block` is used."""
        self.count = 0
        """Packs that were finished."""
        self._access = access
        self._unlocked = unlocked
        self._pack_bytes = pack_bytes
        self._seals = new_blocks and access.encrypted
        self._compressor = Compressor(CompressionLevel.OPTIMAL)
        self._groups: dict[str, _Group] = {}

    def speaks_for(self, group: str) -> bool:
        """Whether packs of this group can be made here."""
        return self._group(group) is not None

    def put_stored(self, group: str, chunk: Chunk, key: SealedDataKey | None, stored: Buffer) -> None:
        """Append a chunk as it is stored elsewhere, with its data key."""
        self._open(group).add_stored(chunk, key, stored)
        self._close_if_full(group)

    def put_block(self, block_id: bytes, plain: Buffer) -> None:
        """Store a block anew, in a pack of the own group."""
        codec, data = self._compressor.compress(plain)
        group = self._access.keyring.identity.body.group
        self._open(group).add_block(block_id, Codec(codec), data, len(plain))
        self._close_if_full(group)

    def put_metadata(self, kind: ChunkKind, content_id: bytes, plain: Buffer) -> None:
        """Store a segment or a map anew, in a pack of the own group."""
        group = self._access.keyring.identity.body.group
        self._open(group).add_metadata(kind, content_id, plain, self._compressor)
        self._close_if_full(group)

    def waiting(self, group: str) -> int:
        """Packs of a group that a fragment is to describe."""
        return len(self._groups[group].closed)

    def publish(self, group: str) -> None:
        """Make all that a group was given durable and findable."""
        self._close(self._groups[group])
        made = self._groups[group]
        if made.closed:
            name = fragment_name(secrets.token_bytes(FRAGMENT_ID_BYTES))
            described = [
                (FragmentPack(pack.pack_id, pack.size_bytes, group, pack.data_keys), pack.chunks)
                for pack in made.closed
            ]
            self._access.store.put_if_absent(name, [encode_fragment(made.sealer, name, described)])
            made.closed = []

    def publish_all(self) -> None:
        """The same for every group."""
        for group in self._groups:
            self.publish(group)

    def discard(self) -> None:
        """Drop packs that are still open. Idempotent."""
        for group in self._groups.values():
            if group.pack:
                group.pack.discard()
                group.pack = None

    def _open(self, name: str) -> PackWriter:
        group = self._group(name)
        if group is None:
            raise ValueError(f"packs of trust group {name} can't be made with this key")
        if group.pack is None:
            group.pack = PackWriter(
                self._access.store,
                group.keyring,
                group.sealer,
                encrypted=self._seals,
                parity=self._access.parity,
                buffer=bytearray(max(BUFFER_BYTES, 2 * self._access.block_size)),
            )
        return group.pack

    def _close_if_full(self, name: str) -> None:
        group = self._groups[name]
        if group.pack and group.pack.size_bytes >= self._pack_bytes:
            self._close(group)

    def _close(self, group: _Group) -> None:
        if group.pack:
            closed = group.pack.close()
            closed.object.finish()
            group.pack = None  # not sooner: what can't be finished is discarded
            group.closed.append(closed)
            self.count += 1

    def _group(self, name: str) -> _Group | None:
        """Chunks stay of the trust group that vouched for them; only the owner can speak for another."""
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
