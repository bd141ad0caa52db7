"""Who this proxy is, and proof that it is the only one: instance id, lock, and a name for this life."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError, ConflictError
from proxy_worker.ledger import ProxyIdentity

log = logging.getLogger(__name__)

ORPHANS_TIMEOUT_S: Final = 20.0
"""How long to wait for processes of a killed life to end; they die with their parent, but not in the middle of a
system call."""


class StateFolderError(ConfigurationError):
    """The proxy's state folder can't be used."""


class ProxyRunsError(ConflictError):
    """A proxy with this state folder runs already."""


@contextlib.contextmanager
def begin_life(name: str, state_dir: Path, *, timeout_s: float = ORPHANS_TIMEOUT_S) -> Iterator[ProxyIdentity]:
    """Hold the state folder's lock for as long as this process, or any child of it, lives.

    Children inherit the lock. Whoever gets it therefore knows that every process of the former life is gone.
    Raises `ProxyRunsError` when one is still there after `timeout_s`, and `StateFolderError`.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(state_dir / "proxy.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        instance_id = _instance_id(state_dir / "instance-id")
    except OSError as error:
        raise StateFolderError(
            f"state folder {state_dir}",
            why=error.strerror or str(error),
            remedy="Set state_dir to a writable folder.",
        ) from error
    try:
        _take(lock, state_dir, timeout_s)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield ProxyIdentity(name, instance_id, life=secrets.token_hex(8), lock=_name_of(lock))
    finally:
        os.close(lock)


def _take(lock: int, state_dir: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip() or "?"
            if time.monotonic() > deadline:
                raise ProxyRunsError(
                    f"state folder {state_dir}",
                    why=f"a proxy already runs with it, started as process {holder}",
                    remedy="Stop it, or give each proxy a state_dir of its own.",
                ) from None
            if not told:
                log.info("waiting for the proxy started as process %s to end", holder)
                told = True
            time.sleep(0.1)
        else:
            return


def _instance_id(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    instance_id = str(uuid.uuid4())
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(f"{instance_id}\n")
    fresh.replace(path)
    return instance_id


def _name_of(lock: int) -> str:
    """The same for whoever locks the same file on the same running kernel, and for nobody else."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    file = os.fstat(lock)
    return hashlib.sha256(f"{boot_id} {file.st_dev} {file.st_ino}".encode()).hexdigest()[:32]
