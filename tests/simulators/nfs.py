"""A real NFS server, nfs-ganesha with its portmapper, in a network of its own that nothing else reaches."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_DEADLINE_S = 120.0
_CONFIGURATION = """
NFS_CORE_PARAM {{ NFS_Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Protocols = 3; Transports = TCP; SecType = sys;
    Access_Type = RO; Squash = {squash}; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""
_START = """set -e
mount -t tmpfs none /run
mkdir -p /var/lib/nfs && mount -t tmpfs none /var/lib/nfs
ip link set lo up
rpcbind -f -w &
until rpcinfo -p 127.0.0.1 >/dev/null 2>&1; do sleep 0.05; done
exec ganesha.nfsd -F -f {folder}/ganesha.conf -L {folder}/ganesha.log -p /run/ganesha.pid
"""


@dataclass(frozen=True)
class NfsServer:
    """A running server."""

    export: Path
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        """As proxy.toml's `nfs_uri` says it."""
        return f"nfs://{HOST}{self.export}"

    def enter(self, *command: str) -> list[str]:
        """A command that runs in the server's network."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *command]

    def put_on_path(self, folder: Path, program: str, real: str) -> None:
        """Let `folder` have a `program` that runs the `real` one in the server's network."""
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec {" ".join(self.enter(real))} "$@"\n')
        script.chmod(0o755)


@contextlib.contextmanager
def serving(export: Path, folder: Path, *, squash: str = "No_Root_Squash") -> Iterator[NfsServer]:
    """Serve a tmpfs at `export` until the block ends; `folder` is for the server's own files.

    A tmpfs, since the server opens files by handles, which an overlay file system (a container's) doesn't give.
    """
    (folder / "ganesha.conf").write_text(_CONFIGURATION.format(export=export, squash=squash))
    (folder / "start.sh").write_text(_START.format(folder=folder))
    subprocess.run(["mount", "-t", "tmpfs", "none", export], check=True)
    # Without --fork, which Debian 12's unshare fails at now and then: "sigprocmask unblock failed".
    apart = ["unshare", "--net", "--mount", "sh", str(folder / "start.sh")]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *apart], start_new_session=True)
    server = NfsServer(export, process)
    deadline = time.monotonic() + _DEADLINE_S
    try:
        while b"mountd" not in _registered(server):
            assert process.poll() is None, (folder / "ganesha.log").read_text()
            assert time.monotonic() < deadline, "waited in vain until NFS is served"
            time.sleep(0.05)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the portmapper, too
        process.wait(_DEADLINE_S)
        subprocess.run(["umount", "--lazy", export], check=True)


def _registered(server: NfsServer) -> bytes:
    asked = subprocess.run(server.enter("rpcinfo", "-p", HOST), capture_output=True, check=False)
    return asked.stdout
