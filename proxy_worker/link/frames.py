"""Frames: pieces of bulk data as they cross a link, each with its own checksum.

A frame is XXH3-64 of its payload, 8 bytes big-endian, then the payload. TLS keeps strangers from changing it on the
way; the checksum also covers both ends' memory and what lies between a socket and a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import xxhash

PAYLOAD_BYTES: Final = 1 << 20
"""What a full frame carries: as measured, links are fastest with about this much at a time."""
CHECKSUM_BYTES: Final = 8
LARGEST_MESSAGE_BYTES: Final = PAYLOAD_BYTES + (64 << 10)
"""What either end receives in one message at most."""

ANSWER_MS: Final = 120_000
"""How long an answer to whether the other end is there may take: over a slow link it waits behind what is sent."""
OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.http2.max_frame_size", 1 << 16),
    ("grpc.http2.lookahead_bytes", 4 << 20),  # to begin with; it grows by what is measured
    ("grpc.experimental.tcp_read_chunk_size", 1 << 18),
    ("grpc.keepalive_timeout_ms", ANSWER_MS),
    ("grpc.http2.ping_timeout_ms", ANSWER_MS),
)
"""Of connections that move frames, for both ends: 8% less processor time and a sixth more throughput. Frames of
HTTP/2 aren't larger for the sake of slow links: a word that is said between them waits for the one before."""


class FrameError(ValueError):
    """A frame isn't what its checksum says, or too short to have one."""


def framed(payload: bytes | memoryview) -> bytes:
    """A payload with its checksum in front."""
    return b"".join((xxhash.xxh3_64_digest(payload), payload))


def opened(frame: bytes) -> memoryview:
    """The payload of a frame; raises `FrameError`."""
    payload = memoryview(frame)[CHECKSUM_BYTES:]
    if len(frame) < CHECKSUM_BYTES or xxhash.xxh3_64_digest(payload) != frame[:CHECKSUM_BYTES]:
        raise FrameError("a frame's checksum is wrong")
    return payload


def frames_of(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Pieces of any length as frames."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), PAYLOAD_BYTES):
            yield framed(view[start : start + PAYLOAD_BYTES])
