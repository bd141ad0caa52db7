"""The format as its page describes it, read and written by hand, without the code that implements it."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import blake3
import msgspec
import xxhash
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.repository.check import check
from proxy_worker.repository.codec import Codec, Compressor
from proxy_worker.repository.data_keys import chunk_binding, new_data_key, nonce_of
from proxy_worker.repository.pack_layout import Chunk, ChunkKind
from tests.repository.collecting import put_fragment, put_pack
from tests.repository.making import BLOCK, PASSPHRASE, VM, back_up, make_repository, noise, text


class Stranger:
    """Restores a disk with a passphrase and the format's page."""

    def __init__(self, folder: Path, passphrase: bytes) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config/1").read_text())
        self.repository_id = bytes.fromhex(self.config["repository_id"])
        [key_path] = (folder / "keys").iterdir()
        key = json.loads(key_path.read_text())
        cost = key["cost"]
        kdf = Argon2id(
            salt=b64decode(key["salt"]),
            length=32,
            iterations=cost["iterations"],
            lanes=cost["lanes"],
            memory_cost=cost["memory_kib"],
        )
        header = dict(key, wrapped="", checksum="")
        bound = (json.dumps(header, indent=2, ensure_ascii=False) + "\n").encode()
        wrapped = AESGCM(kdf.derive(passphrase)).decrypt(b64decode(key["nonce"]), b64decode(key["wrapped"]), bound)
        self.secrets = msgspec.msgpack.decode(wrapped)

    def opened(self, name: str, sealed: bytes) -> bytes:
        kdf = HKDF(algorithm=SHA256(), length=32, salt=sealed[:32], info=b"proxyfleet 1 metadata")
        cipher = AESGCM(kdf.derive(self.secrets["metadata_key"]))
        return cipher.decrypt(bytes(12), sealed[32:], self.repository_id + name.encode())

    def signed(self, name: str, sealed: bytes) -> Any:
        payload, certificate, signature = msgspec.msgpack.decode(self.opened(name, sealed))
        body, root_signature = msgspec.msgpack.decode(certificate)
        root = Ed25519PublicKey.from_public_bytes(b64decode(self.config["root_public_key"]))
        root.verify(root_signature, b"proxyfleet 1 writer certificate\0" + self.repository_id + body)
        writer = Ed25519PublicKey.from_public_bytes(msgspec.msgpack.decode(body)[3])
        message = b"proxyfleet 1 signed object\0" + self.repository_id + name.encode() + b"\0" + payload
        writer.verify(signature, message)
        return msgspec.msgpack.decode(payload)

    def sealed_object(self, name: str) -> Any:
        data = (self.folder / name).read_bytes()
        assert data[:8] == b"PFOBJ\0\0\1"
        assert xxhash.xxh3_128_digest(data[:-16]) == data[-16:]
        return self.signed(name, data[8:-16])

    def chunks(self) -> dict[bytes, bytes]:
        """Every block, segment and map by its id, from what packs say of themselves."""
        found: dict[bytes, bytes] = {}
        for path in (self.folder / "packs").glob("*/*"):
            data, name = path.read_bytes(), f"packs/{path.parent.name}/{path.name}"
            assert data[:8] == b"PFPACK\0\1"
            assert data[8:24].hex() == path.name
            count, table_at, table_length, footer_at = struct.unpack_from("<IIII", data, len(data) - 56)
            pack_id, keys, chunks, ids = self.signed(name, data[table_at : table_at + table_length])
            assert (pack_id, footer_at) == (data[8:24], table_at + table_length)
            for number in range(count):
                offset, stored, nonce, plain, key, codec, kind, blocks = struct.unpack_from(
                    "<IIIIHBBBx", chunks, 22 * number
                )
                content_id = ids[32 * number : 32 * number + 32]
                assert blocks == 1
                body = data[offset : offset + stored]
                if kind == 0:
                    key_id, _, sealed_key = keys[key]
                    cipher = AESGCM(self.data_key(key_id, sealed_key))
                    bound = blake3.blake3(content_id + bytes([codec])).digest()
                    body = cipher.decrypt(nonce.to_bytes(12, "big"), body, bound)
                else:
                    body = self.opened(("segment/" if kind == 1 else "map/") + content_id.hex(), body)
                if codec == 1:
                    body = zstandard.ZstdDecompressor().decompress(body)
                assert len(body) == plain
                found[content_id] = body
        return found

    def data_key(self, key_id: bytes, sealed: bytes) -> bytes:
        suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        private = X25519PrivateKey.from_private_bytes(self.secrets["data_private_keys"][0])
        return suite.decrypt(sealed, private, b"proxyfleet 1 data key\0" + self.repository_id + key_id)


def test_a_stranger_with_the_page_and_the_passphrase_restores(tmp_path: Path) -> None:
    content = noise(3) + bytes(BLOCK) + text(2) + b"the end"
    with make_repository(tmp_path) as repository:
        back_up(repository, content, run="run-1")

    stranger = Stranger(tmp_path, PASSPHRASE)
    chunks = stranger.chunks()
    point = stranger.sealed_object("points/vm-1/run-1")
    assert (point["type"], point["vm_name"]) == ("point", VM.name)
    [disk] = point["disks"]
    disk_map = msgspec.msgpack.decode(chunks[disk["map_id"]])
    restored = b""
    for at in range(0, len(disk_map["segment_ids"]), 32):
        ids = chunks[disk_map["segment_ids"][at : at + 32]]
        for place in range(0, len(ids), 32):
            block_id = ids[place : place + 32]
            restored += chunks[block_id] if block_id != bytes(32) else bytes(disk_map["block_size"])
    assert restored[: disk_map["size_bytes"]] == content

    id_key = stranger.secrets["id_key"]
    assert blake3.blake3(content[:BLOCK], key=id_key).digest() in chunks
    segment_key = blake3.blake3(id_key, derive_key_context="proxyfleet 1 segment id").digest()
    first = disk_map["segment_ids"][:32]
    assert blake3.blake3(chunks[first], key=segment_key).digest() == first
    map_key = blake3.blake3(id_key, derive_key_context="proxyfleet 1 disk map id").digest()
    assert blake3.blake3(chunks[disk["map_id"]], key=map_key).digest() == disk["map_id"]


def test_fragments_are_sorted_records_of_sixty_bytes(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        back_up(repository, noise(3), run="run-1")
        names = list(repository.access.store.list("index/"))

    stranger = Stranger(tmp_path, PASSPHRASE)
    known = stranger.chunks()
    seen: set[bytes] = set()
    for name in names:
        packs, records = stranger.sealed_object(name)
        split = [records[at : at + 60] for at in range(0, len(records), 60)]
        assert split == sorted(split)
        for record in split:
            block_id, pack, offset, stored, *_ = struct.unpack("<32sIIIIIHBBBBH", record)
            assert offset + stored < packs[pack][1]
            seen.add(block_id)
    assert seen == set(known)


def test_blocks_that_share_a_chunk_are_read_and_checked(tmp_path: Path) -> None:
    """Writers put one block into a chunk; the format allows sixteen, and readers read them."""
    blocks = [text(1, 1), text(1, 2), noise(1)]
    with make_repository(tmp_path) as repository:
        access = repository.access
        key, cipher = new_data_key(access.keyring)
        ids = b"".join(access.keyring.block_id(block) for block in blocks)
        codec, data = Compressor(CompressionLevel.OPTIMAL).compress(b"".join(blocks))
        stored = cipher.encrypt(nonce_of(7), bytes(data), chunk_binding(ids, Codec.ZSTD))
        chunk = Chunk(0, len(stored), 7, 3 * BLOCK, 0, codec, ChunkKind.BLOCK, ids)
        pack_id, chunks, size = put_pack(repository, [key], [(chunk, stored)])
        put_fragment(repository, pack_id, [key], chunks, size)
        point = back_up(repository, b"".join(reversed(blocks)), run="run-1")
        assert point.disks[0].stored_bytes < BLOCK

        with repository.reader(point) as reader:
            view = bytearray(2 * BLOCK)
            reader.read_blocks_into([ids[64:], ids[:32]], memoryview(view))
            assert view == blocks[2] + blocks[0]
        assert check(access).findings == ()
