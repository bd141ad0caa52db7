"""A gateway to back up to, and certificates for it, as the benchmarks of the link have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy_worker.link.identity import CERTIFICATE_VARIABLE, Identity
from scheduler.pki.authority import Authority
from scheduler.pki.certificates import Peer, Role

HERE = "127.0.0.1"
COMMAND = Path(sys.executable).parent / "proxy-worker"
GATEWAY, PROXY = "vault", "proxy-1"


def certify(folder: Path, *, host: str = HERE, proxies: Sequence[str] = (PROXY,)) -> None:
    """Put certificates of a new fleet into a folder, the gateway's for `host`."""
    authority = Authority.make(folder / "pki", name="bench")
    for name, role in ((GATEWAY, Role.GATEWAY), *((proxy, Role.PROXY) for proxy in proxies)):
        bundle = authority.issue(Peer(name, role, None, (host,)))
        (folder / f"{name}.pem").write_bytes(bundle.certificate)
        (folder / f"{name}-key.pem").write_bytes(bundle.key)
        (folder / "ca.pem").write_bytes(bundle.trust)


def identity(folder: Path, name: str) -> Identity:
    """What one of them shows."""
    return Identity.beside(folder / f"{name}.pem")


def environment(folder: Path, place: Path) -> dict[str, str]:
    """Of commands that make repositories and keep their caches in `place`."""
    return {"XDG_CACHE_HOME": str(place / "cache"), CERTIFICATE_VARIABLE: str(folder / f"{GATEWAY}.pem")}


@contextmanager
def gateway(folder: Path, place: Path) -> Iterator[int]:
    """Offer `place/far` as `far` on 127.0.0.1 until the block ends; the port."""
    own = identity(folder, GATEWAY)
    files = {"certificate": own.certificate, "key": own.key, "ca_file": own.ca_file}
    lines = [f'host = "{HERE}"', "port = 0", *(f'{key} = "{path}"' for key, path in files.items())]
    (place / "gateway.toml").write_text("\n".join([*lines, "[repositories.far]", 'path = "far"']))
    command: list[str | Path] = [COMMAND, "serve", "--config", place / "gateway.toml", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as serving:
        assert serving.stdout is not None
        try:
            yield int(json.loads(serving.stdout.readline())["port"])
        finally:
            serving.terminate()
