"""`python -m benchmarks.replication`: a disk replicated, then again one day later, when 4% of it have changed.

Both ends are processes of this machine, with mutual TLS 1.3 between them. What crosses in the second run, all
told, is compared with the changed blocks, compressed one by one; exits with 1 when it is more than 1.05 times
that, or when a replica isn't equal to its source.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.far import GATEWAY, HERE, PROXY, certify, identity
from benchmarks.reference_disk import SEED, SYSTEM_SHARE, divide, make_first_day, system_files
from benchmarks.second_day import make_second_day
from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.replication import DEFAULT_STREAMS
from proxy_worker.contract.replication_outcome import DiskReplicateResult
from proxy_worker.mover.control import Unattended
from proxy_worker.replication.blocks import BLOCK_BYTES
from proxy_worker.replication.linked_end import LinkedEnd
from proxy_worker.replication.listening import listening, receive
from proxy_worker.replication.receiving import Desk
from proxy_worker.repository.codec import Compressor
from tests.replication.linking import QUICK
from tests.replication.sites import Target, request, send
from tests.surviving.relay import Relay

MOST_SENT = 1.05
MIB = 1 << 20


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the disk (1024)")
    parser.add_argument("--receive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        _receive(options.receive)
        return 0
    with tempfile.TemporaryDirectory(prefix="proxyfleet-bench-") as name:
        folder = Path(name)
        certify(folder)
        first, second = folder / "day1.raw", folder / "day2.raw"
        size_bytes = options.mib * MIB
        make_first_day(first, size_bytes)
        _, rest = divide(system_files(SEED), int(size_bytes * SYSTEM_SHARE))
        make_second_day(first, second, folder / "areas.json", [file.path for file in rest])
        figures = _measured(folder, first, second)
    print(json.dumps(figures, indent=2))
    return int(bool(figures["missed"]))


def _measured(folder: Path, first: Path, second: Path) -> dict[str, float | bool]:
    target = Target.made(folder / "dr")
    before_s = _cpu_s()
    day1, day1_s, day1_wire = _replicated(folder, first)
    cpu_s = _cpu_s() - before_s
    equal = filecmp.cmp(first, target.flat, shallow=False)
    day2, day2_s, day2_wire = _replicated(folder, second)
    changed = sum(_changed_blocks(first, second))
    equal &= filecmp.cmp(second, target.flat, shallow=False)
    return {
        "first_s": round(day1_s, 2),
        "first_read_mib_per_s": round(day1.report.read_bytes / MIB / day1_s, 1),
        "first_sent_mib": round(day1_wire / MIB, 1),
        "cpu_s_per_gib_read": round(cpu_s / (day1.report.read_bytes / MIB / 1024), 2),
        "second_s": round(day2_s, 2),
        "second_sent_mib": round(day2.report.stored_bytes / MIB, 2),
        "second_on_the_wire_mib": round(day2_wire / MIB, 2),
        "changed_blocks_compressed_mib": round(changed / MIB, 2),
        "second_on_the_wire_to_changed": round(day2_wire / changed, 4),
        "equal": equal,
        "missed": not equal or day2_wire > MOST_SENT * changed,
    }


def _replicated(folder: Path, disk: Path) -> tuple[DiskReplicateResult, float, int]:
    """The result, seconds, and bytes that crossed in either direction."""
    with _receiver(folder) as port:
        crossed: list[int] = []
        relay = Relay(port)
        relay.overheard = lambda data: crossed.append(len(data))
        end = LinkedEnd(
            Receiver(proxy=GATEWAY, host=HERE, port=relay.port),
            "session",
            identity(folder, PROXY),
            streams=DEFAULT_STREAMS,
            level=CompressionLevel.OPTIMAL,
            patience=QUICK,
            given_up=threading.Event(),
        )
        started_s = time.monotonic()
        result = send(disk, end, request(disk.stem))
        took_s = time.monotonic() - started_s
        relay.close()
    return result, took_s, sum(crossed)


@contextmanager
def _receiver(folder: Path) -> Iterator[int]:
    """A target in a process of its own; its port."""
    command = [sys.executable, "-m", "benchmarks.replication", "--receive", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        yield int(receiver.stdout.readline())


def _receive(folder: Path) -> None:
    target = Target(folder / "dr/ds-dr", folder / "dr/state")
    with target.reception(time.time_ns()) as (reception, key):
        desk = Desk(reception, key, session="session", source=PROXY)
        ports = range(1)  # a free one
        with listening(desk, identity(folder, GATEWAY), host=HERE, ports=ports, streams=DEFAULT_STREAMS) as port:
            print(port, flush=True)
            ready = Receiver(proxy=GATEWAY, host=HERE, port=port)
            receive(reception, desk, ready, Unattended(), absent_after_s=600)


def _changed_blocks(first: Path, second: Path) -> Iterator[int]:
    """The lengths of the blocks that differ, compressed; those of zeros take nothing."""
    compressor = Compressor(CompressionLevel.OPTIMAL)
    with first.open("rb") as old, second.open("rb") as new:
        while block := new.read(BLOCK_BYTES):
            if block != old.read(BLOCK_BYTES) and block.strip(b"\0"):
                yield len(compressor.compress(block)[1])


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    sys.exit(main())
