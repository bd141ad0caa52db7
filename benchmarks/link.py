"""`python -m benchmarks.link`: the link against plain TLS sockets, and a backup to a gateway against a local one.

Both ends on this machine, mutual TLS 1.3 by the same certificates, paired in each round; the backups are of the
reference disk, read from memory, into encrypted repositories. Prints medians, and exits with 1 when a bound is
missed: at least 0.8 of the sockets' throughput, at most 1.2 of the local backup's time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.far import COMMAND, GATEWAY, HERE, PROXY, certify, environment, gateway, identity
from benchmarks.process import Measured, run
from benchmarks.rounds import rested
from benchmarks.second_day import prepare
from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.link.admission import Peer as Caller
from proxy_worker.link.client import Link
from proxy_worker.link.frames import LARGEST_MESSAGE_BYTES, PAYLOAD_BYTES, framed, opened
from proxy_worker.link.messages import Done, Prepare, encoded
from proxy_worker.link.server import Limits, LinkServer, Methods
from proxy_worker.program.allocation import keep_freed_memory

LEAST_THROUGHPUT = 0.8
MOST_TIME = 1.2
MIB = 1 << 20
GIB = 1 << 30


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds (5)")
    parser.add_argument("--mib", type=int, default=1024, help="moved over the link in each (1024)")
    parser.add_argument("--gib", type=int, default=4, help="size of the reference disk (4)")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where everything is made (.bench)")
    parser.add_argument("--receive", choices=("tls", "link"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()  # as `proxy-worker` does
    if options.receive:
        (_receive_tls if options.receive == "tls" else _receive_link)(options.folder)
        return 0
    disk = prepare(options.folder.resolve() / f"disks-{options.gib}", options.gib * GIB).first
    with tempfile.TemporaryDirectory(prefix="link-", dir=options.folder) as name:
        folder = Path(name).resolve()
        certify(folder)
        rounds = [_round(folder, options.mib, disk) for _ in range(options.rounds)]
    figures = {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]}
    missed = figures["link_to_tls"] < LEAST_THROUGHPUT or figures["gateway_to_local"] > MOST_TIME
    print(json.dumps({**figures, "missed": missed}, indent=2))
    return int(missed)


def _round(folder: Path, mib: int, disk: Path) -> dict[str, float]:
    tls, link = _sent(folder, "tls", _send_tls, mib), _sent(folder, "link", _send_link, mib)
    local, gateway = _backups(folder, disk)
    return {
        "tls_mib_s": tls[0],
        "link_mib_s": link[0],
        "link_to_tls": link[0] / tls[0],
        "tls_cpu_s_per_gib": tls[1],
        "link_cpu_s_per_gib": link[1],
        "local_backup_s": local,
        "gateway_backup_s": gateway,
        "gateway_to_local": gateway / local,
    }


def _sent(folder: Path, how: str, send: Callable[[Path, int, int], None], mib: int) -> tuple[float, float]:
    """MiB per second, and CPU seconds per GiB of both ends."""
    command = [sys.executable, "-m", "benchmarks.link", "--receive", how, "--folder", str(folder)]
    before = _cpu_s()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        started = time.monotonic()
        send(folder, port, mib)
        took_s = time.monotonic() - started
        receiver.communicate()
    return mib / took_s, (_cpu_s() - before) / (mib / 1024)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _context(folder: Path, name: str, *, server: bool) -> ssl.SSLContext:
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose, cafile=folder / "ca.pem")
    context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    own = identity(folder, name)
    context.load_cert_chain(own.certificate, own.key)
    return context


def _send_tls(folder: Path, port: int, mib: int) -> None:
    payload = random.Random(1).randbytes(MIB)
    context = _context(folder, PROXY, server=False)
    with (
        socket.create_connection((HERE, port)) as plain,
        context.wrap_socket(plain, server_hostname=HERE) as wire,
    ):
        for _ in range(mib):
            wire.sendall(payload)
        wire.sendall(b"end")
        assert wire.recv(1)


def _receive_tls(folder: Path) -> None:
    with socket.create_server((HERE, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        plain, _ = listener.accept()
        buffer = bytearray(LARGEST_MESSAGE_BYTES)
        with _context(folder, GATEWAY, server=True).wrap_socket(plain, server_side=True) as wire:
            while (count := wire.recv_into(buffer)) and buffer[max(0, count - 3) : count] != b"end":
                pass
            wire.sendall(b"!")


def _send_link(folder: Path, port: int, mib: int) -> None:
    payload = random.Random(1).randbytes(PAYLOAD_BYTES)
    address = GatewayAddress(HERE, port, "sink")
    link = Link(address, identity(folder, PROXY), errors={})

    def frames() -> Iterator[bytes]:
        for _ in range(mib):
            yield framed(payload)

    link.persist(link.send("Sink", Prepare("sink"), frames, Done))
    link.close()


def _receive_link(folder: Path) -> None:
    def sink(_: Caller, messages: Iterator[bytes]) -> bytes:
        next(messages)
        return encoded(Done(sum(len(opened(frame)) for frame in messages)))

    methods = Methods(receive={"Sink": sink})
    server = LinkServer(methods, identity(folder, GATEWAY), host=HERE, port=0, limits=Limits())
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop(0)


def _backups(folder: Path, disk: Path) -> tuple[float, float]:
    """Seconds to a folder, and to such a folder behind a gateway."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        with gateway(folder, place) as port:
            locations = [str(place / "local"), f"proxyfleet://{HERE}:{port}/far"]
            local_s, gateway_s = (_backup(folder, place, disk, location) for location in locations)
    return local_s, gateway_s


def _backup(folder: Path, place: Path, disk: Path, location: str) -> float:
    passphrase_file = place / "passphrase"
    passphrase_file.write_text("of a benchmark")
    of_repository: list[str | Path] = ["--passphrase-file", passphrase_file]

    def command(*arguments: str | Path) -> Measured:
        surroundings = environment(folder, place)
        return run([COMMAND, *arguments, *of_repository], environment=surroundings, folder=place)

    command("repository", "init", location)
    options = ["--repository", location, "--vm", "bench", "--disk", "scsi0:0"]
    return rested(lambda disk: command("backup", disk, *options), disk).wall_s


if __name__ == "__main__":
    sys.exit(main())
