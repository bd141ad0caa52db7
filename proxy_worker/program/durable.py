"""Names that are still there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(path: Path) -> None:
    """Have a folder's names on stable storage. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def give_new_name(path: Path, to: Path) -> None:
    """Rename a file, unlike a plain rename not over what has that name by now. Raises FileExistsError, OSError."""
    try:
        to.hardlink_to(path)
        path.unlink()
    except PermissionError:
        path.rename(to)  # a file system without hard links
