"""Random reads of a restore point through `proxy-worker serve-point`, as who looks into a disk makes them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.process import CommandFailedError
from benchmarks.standalone import Repository
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import parse_uri

READ_BYTES: Final = 64 << 10
READS: Final = 8192
AT_ONCE: Final = 8


class WrongContentError(Exception):
    """The export isn't the disk that was backed up."""


@dataclass(frozen=True)
class ExportReads:
    """What reading took."""

    first_byte_s: float
    """From the start of the command to the first 64 KiB."""
    mib_per_s: float


def read_at_random(repository: Repository, disk: Path, *, seed: int = 1) -> ExportReads:
    """Serve the newest point and read places of the disk that aren't zeros, some at once.

    Every read is compared with `disk`. Raises `WrongContentError`, `CommandFailedError`.
    """
    places = _places(disk, random.Random(seed))
    begun = time.monotonic()
    process = repository.serve_point()
    try:
        with NbdSource(parse_uri(_uri(process)), reason="a benchmark") as export:
            view = memoryview(bytearray(READ_BYTES))
            export.read_into(places[0], view)
            first_byte_s = time.monotonic() - begun
            held = threading.local()
            contents = disk.open("rb", buffering=0)

            def read(place: int) -> None:
                if not hasattr(held, "view"):
                    held.view = memoryview(bytearray(READ_BYTES))
                export.read_into(place, held.view)

            begun = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as threads:
                for _ in threads.map(read, places):
                    pass
            seconds = time.monotonic() - begun
            for place in places[:: len(places) // 64]:
                export.read_into(place, view)
                contents.seek(place)
                if contents.read(READ_BYTES) != view:
                    raise WrongContentError(f"the export differs from {disk} at {place}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return ExportReads(first_byte_s, READS * READ_BYTES / seconds / (1 << 20))


def _places(disk: Path, chance: random.Random) -> list[int]:
    """Offsets of pieces that aren't zeros: those cost nothing to read."""
    pieces, zeros = disk.stat().st_size // READ_BYTES, bytes(READ_BYTES)
    places: list[int] = []
    with disk.open("rb", buffering=0) as content:
        while len(places) < READS:
            place = chance.randrange(pieces) * READ_BYTES
            content.seek(place)
            if content.read(READ_BYTES) != zeros:
                places.append(place)
    return places


def _uri(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    said = process.stdout.readline()
    if not said:
        raise CommandFailedError(f"serve-point ended:\n{process.communicate()[1]}")
    return str(json.loads(said)["disks"][0]["uri"])
