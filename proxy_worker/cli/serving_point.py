"""The work of `proxy-worker serve-point`: repository and NBD server put together."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from proxy_worker.cli.opening import Opening, OptionError, find_point
from proxy_worker.export.disk import Disk
from proxy_worker.export.opening import exported
from proxy_worker.export.server import Server, listen_on_loopback, listen_on_socket
from proxy_worker.program.units import size
from proxy_worker.repository.points import Point

_END = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens: a Unix socket or a port of 127.0.0.1."""

    path: Path | None
    port: int | None

    def begin(self) -> socket.socket:
        """Listen; raises `OptionError`, `ListenError`."""
        if (self.path is None) == (self.port is None):
            raise OptionError(
                "--socket or --port",
                why="nothing says where to listen" if self.port is None else "both were given",
                remedy="Give one of them.",
            )
        return listen_on_socket(self.path) if self.path is not None else listen_on_loopback(self.port or 0)


def serve(
    opening: Opening,
    *,
    vm: str,
    point: str | None,
    disks: Sequence[str],
    listening: Listening,
    overlay: Path | None,
    as_json: bool,
) -> None:
    """Serve until a signal says otherwise."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # in every thread that is started from here on
    with ExitStack() as stack:
        repository = stack.enter_context(opening.repository())
        chosen = find_point(repository, vm, point)
        exports = exported(stack, repository, chosen, disks or [disk.key for disk in chosen.disks], overlay)
        listener = listening.begin()
        if listening.path is not None:
            stack.callback(listening.path.unlink, missing_ok=True)
        server = stack.enter_context(Server(exports, listener))
        _tell(chosen, {key: server.uri(key) for key in exports}, exports, as_json=as_json)
        signal.sigwait(_END)


def _tell(point: Point, uris: dict[str, str], exports: dict[str, Disk], *, as_json: bool) -> None:
    if as_json:
        disks = [{"disk": key, "size_bytes": exports[key].size_bytes, "uri": uri} for key, uri in uris.items()]
        typer.echo(json.dumps({"point": point.run, "vm": point.vm_name, "disks": disks}))
    else:
        typer.echo(f"{point.vm_name}, restore point {point.run}:")
        for key, uri in uris.items():
            typer.echo(f"  {key}  {size(exports[key].size_bytes):>9}  {uri}")
        typer.echo("Ctrl-C ends it.")
    typer.get_text_stream("stdout").flush()
