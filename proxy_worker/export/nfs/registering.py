"""Telling a machine's portmapper, rpcbind, where the server is: it does so for those on the same machine only."""

from __future__ import annotations

import socket
import struct
from typing import Final

from proxy_worker.export.negotiation import receive
from proxy_worker.export.nfs.protocol import (
    MOUNT,
    MOUNT_VERSION,
    NFS,
    NFS_VERSION,
    PORTMAP,
    PORTMAP_PORT,
    PORTMAP_VERSION,
    TCP,
)
from proxy_worker.export.nfs.xdr import Reading, Writing, XdrError
from proxy_worker.program.listening import ListenError

_TIMEOUT_S: Final = 5.0
_SET, _UNSET = 1, 2
_LAST: Final = 1 << 31
_LONGEST: Final = 4096


def register(port: int) -> None:
    """Have rpcbind send clients to `port`, instead of anything else they were sent to. Raises `ListenError`."""
    unregister()
    for program, version in ((NFS, NFS_VERSION), (MOUNT, MOUNT_VERSION)):
        if not _ask(_SET, program, version, port):
            raise ListenError(
                f"NFS at port {port}",
                why="this machine's portmapper doesn't take it",
                remedy="Stop rpcbind, so that this server can be the portmapper.",
            )


def unregister() -> None:
    """Take that back."""
    for program, version in ((NFS, NFS_VERSION), (MOUNT, MOUNT_VERSION)):
        _ask(_UNSET, program, version, 0)


def _ask(procedure: int, program: int, version: int, port: int) -> bool:
    call = Writing().u32(1, 0, 2, PORTMAP, PORTMAP_VERSION, procedure, 0, 0, 0, 0)
    message = call.u32(program, version, TCP, port).done()
    try:
        with socket.create_connection(("127.0.0.1", PORTMAP_PORT), _TIMEOUT_S) as link:
            link.sendall(struct.pack(">I", _LAST | len(message)) + message)
            (header,) = struct.unpack(">I", receive(link, 4))
            answer = Reading(memoryview(receive(link, min(header & ~_LAST, _LONGEST))))
        accepted = [answer.u32() for _ in range(6)][-1]
        return accepted == 0 and bool(answer.u32())
    except (OSError, EOFError, XdrError) as error:
        raise ListenError(
            f"port {PORTMAP_PORT} of this machine",
            why=f"whoever listens there is no portmapper: {error}",
            remedy="End that program, or set `portmapper = false` where hosts need none.",
        ) from error
