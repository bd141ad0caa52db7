"""Small files that are there whole or not at all, whenever the power goes."""

from __future__ import annotations

import os
from pathlib import Path

from proxy_worker.program.durable import sync_folder


def put(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write or replace a file. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.rename(path)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)
