"""How clients find a share: the portmapper says at which ports, MOUNT gives a share's handle for its name.

Sources: RFC 1833 (the portmapper's version 2), RFC 1813, appendix I (MOUNT).
"""

from __future__ import annotations

import logging
import os
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.export.nfs.node import handle_of
from proxy_worker.export.nfs.protocol import (
    AUTH_NONE,
    AUTH_SYS,
    LONGEST_PATH,
    MOUNT,
    MOUNT_VERSION,
    NFS,
    NFS_VERSION,
    PORTMAP,
    PORTMAP_VERSION,
    TCP,
    Status,
)
from proxy_worker.export.nfs.rpc import Program, nothing
from proxy_worker.export.nfs.share import TOKEN_BYTES, Share, Shares
from proxy_worker.export.nfs.xdr import Reading, Writing

logger = logging.getLogger(__name__)

_SERVED: Final = ((NFS, NFS_VERSION), (MOUNT, MOUNT_VERSION))


def mount_program(shares: Shares) -> Program:
    """MOUNT: who knows a share's name gets its handle. Nobody is told which there are."""

    def mount(arguments: Reading) -> bytes:
        path = bytes(arguments.opaque(LONGEST_PATH))
        try:
            share = _named(path, shares)
            handle = handle_of(share) if share is not None else None
        except (OSError, ProxyfleetError) as error:
            logger.warning("a share can't be mounted: %s", error)
            return Writing().u32(Status.IO).done()
        if handle is None:
            return Writing().u32(Status.NOENT).done()
        return Writing().u32(Status.OK).opaque(handle).u32(2, AUTH_SYS, AUTH_NONE).done()

    def unmount(arguments: Reading) -> bytes:
        arguments.opaque(LONGEST_PATH)
        return b""

    def none_listed(_: Reading) -> bytes:
        return Writing().u32(0).done()

    return Program(
        MOUNT, MOUNT_VERSION, {0: nothing, 1: mount, 2: none_listed, 3: unmount, 4: nothing, 5: none_listed}
    )


def portmap_program(port: int) -> Program:
    """The portmapper of a machine that has no other: both programs are at one port, by TCP."""

    def get_port(arguments: Reading) -> bytes:
        wanted, protocol = (arguments.u32(), arguments.u32()), arguments.u32()
        return Writing().u32(port if wanted in _SERVED and protocol == TCP else 0).done()

    def dump(_: Reading) -> bytes:
        listed = Writing()
        for program in _SERVED:
            listed.u32(1, *program, TCP, port)
        return listed.u32(0).done()

    return Program(PORTMAP, PORTMAP_VERSION, {0: nothing, 3: get_port, 4: dump})


def _named(path: bytes, shares: Shares) -> Share | None:
    """The share of a path: its token in hexadecimal, whatever slashes are around it."""
    try:
        token = bytes.fromhex(os.fsdecode(path).strip("/"))
    except ValueError:
        return None
    return shares(token) if len(token) == TOKEN_BYTES else None
