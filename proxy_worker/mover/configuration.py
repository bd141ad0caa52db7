"""The files of a VM's configuration (VMX, NVRAM), kept as blocks in the restore point of its disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy_worker.mover.plan import ZERO_ID
from proxy_worker.repository.points import StoredFile
from proxy_worker.repository.writer import DiskWriter


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """One file: its name within the VM's folder, and its whole content, which is small."""

    name: str
    content: bytes


def store_configuration(writer: DiskWriter, files: Sequence[ConfigurationFile]) -> list[StoredFile]:
    """Store the files' blocks; returns what a restore point keeps of them."""
    stored = []
    for file in files:
        pieces = [
            file.content[at : at + writer.block_size] for at in range(0, len(file.content), writer.block_size)
        ]
        ids = tuple(_store(writer, piece) for piece in pieces)
        stored.append(StoredFile(name=file.name, size_bytes=len(file.content), block_ids=ids))
    return stored


def _store(writer: DiskWriter, piece: bytes) -> bytes:
    if not any(piece):
        return ZERO_ID
    block_id = writer.identify(piece)
    if not writer.has(block_id):
        codec, data = writer.compress(piece)
        writer.store_block(block_id, codec, data, len(piece))
    return block_id
