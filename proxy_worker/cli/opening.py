"""What the commands that work without a fleet share: opening a repository, and finding VMs in it by name."""

from __future__ import annotations

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from proxy_worker.contract.errors import ConfigurationError, StoreError
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.errors import PointNotFoundError
from proxy_worker.repository.store import Interruptible
from proxy_worker.repository.unlocking import open_store, unlock

if TYPE_CHECKING:
    from proxy_worker.repository.points import Point
    from proxy_worker.repository.repository import Repository


class AmbiguousNameError(ConfigurationError):
    """Several VMs of a repository have this name."""


class OptionError(ConfigurationError):
    """Options that don't go together, or a file that an option names isn't what it should be."""


def cache_folder() -> Path:
    """Where repositories' indexes are cached for commands: `$XDG_CACHE_HOME/proxyfleet`. Losing it costs time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxyfleet"


class Opening:
    """A repository that is being unlocked in a thread, with one credential, or with none when it isn't encrypted.

    A command begins with this and loads what does its work meanwhile: modules need the interpreter's lock, trying
    a passphrase doesn't. What the thread works with is loaded already, so no two threads load modules at once.
    """

    def __init__(
        self,
        location: str,
        *,
        passphrase_file: Path | None = None,
        key_file: Path | None = None,
        access_key_file: Path | None = None,
    ) -> None:
        if passphrase_file is not None and key_file is not None:
            raise OptionError(
                f"repository {location} can't be opened",
                why="a passphrase file and a key file were both given",
                remedy="Give one of them.",
            )
        credential = load_credential(passphrase_file=passphrase_file, key_file=key_file)
        self._store = open_store(location, access_key_file=access_key_file)
        thread = ThreadPoolExecutor(1, thread_name_prefix="unlock")
        self._unlocked = thread.submit(unlock, self._store, credential)
        thread.shutdown(wait=False)

    def repository(self) -> Repository:
        """Wait for it; raises what unlocking raised."""
        from proxy_worker.repository.repository import Repository  # noqa: PLC0415 - loaded while the thread works

        return Repository(self._store, self._unlocked.result(), cache_dir=cache_folder())

    def give_up(self) -> None:
        """From a signal's handler: end soon whatever waits for the repository's store."""
        if isinstance(self._store, Interruptible):
            self._store.give_up()


def open_repository(
    location: str, *, passphrase_file: Path | None = None, key_file: Path | None = None
) -> Repository:
    """Open a repository with one credential, or with none when it isn't encrypted."""
    return Opening(location, passphrase_file=passphrase_file, key_file=key_file).repository()


def abandon(repository: Repository, *, vm_id: str, run: str, reason: str) -> None:
    """Leave nothing of a run that didn't finish in the way of the next one, as far as the repository lets it."""
    with contextlib.suppress(StoreError):  # what ended the run is the error to show
        if repository.abandon(vm_id=vm_id, run=run, reason=reason):
            print(f"its restore point {run} was committed all the same", file=sys.stderr)


def find_point(repository: Repository, vm: str, run: str | None) -> Point:
    """The point of the VM with that name or id: the named one, or the newest.

    Raises `PointNotFoundError`, and `AmbiguousNameError` when VMs share the name.
    """
    points = [point for point in repository.points() if vm in {point.vm_name, point.vm_id}]
    if not points:
        raise PointNotFoundError(
            f"VM {vm} is not in the repository",
            remedy="`proxy-worker repository list` shows the VMs that are.",
        )
    chosen = [point for point in points if run in {None, point.run}]
    if not chosen:
        raise PointNotFoundError(
            f"VM {vm} has no restore point {run}",
            remedy="`proxy-worker repository list` shows the points it has.",
        )
    ids = {point.vm_id for point in chosen}
    if len(ids) > 1:
        raise AmbiguousNameError(
            f"VM {vm} can't be chosen",
            why=f"{len(ids)} VMs have that name",
            remedy=f"Say --vm with one of their ids: {', '.join(sorted(ids))}.",
        )
    newest = repository.newest_point(chosen[-1].vm_id) if run is None else None
    return newest or chosen[-1]
