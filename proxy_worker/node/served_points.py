"""Restore points that this proxy serves to hosts: begun and ended by tasks, served by a process of its own.

The two meet in a folder: `<share>/` has `point.json`, which says what is served, and what a host has written. There
is nothing else to agree on, so that proxy and server may be killed and started again at any moment. A share begins
and ends with the name of its folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError, ProxyfleetError, SourceError
from proxy_worker.contract.subjects import RepositoryReference
from proxy_worker.contract.using import PointRelease, PointReleaseResult, PointServe, PointServeResult, ServedDisk
from proxy_worker.export.nfs.kept import ShareFolderError, descriptor_name, lay_out, open_share, written_bytes
from proxy_worker.export.nfs.share import Share, make_durable, write_durably
from proxy_worker.export.opening import exported
from proxy_worker.node.bench import Bench
from proxy_worker.program.instant_restore import InstantRestoreSettings
from proxy_worker.repository.repository import Repository

log = logging.getLogger(__name__)

_POINT: Final = "point.json"
_ENDED: Final = ".ended"
_ANSWERS_S: Final = 5.0


class NoInstantRestoreError(ConfigurationError):
    """This proxy isn't set up for instant restores."""


class ServerSilentError(SourceError):
    """The process that serves restore points doesn't listen."""

    retryable = True


def serve_point(body: PointServe, bench: Bench, *_: object) -> PointServeResult:
    """The task `point.serve`."""
    settings = _settings(bench)
    _require_answer(settings)
    repository = bench.repository(body.repository, "read")
    point = repository.point(body.vm.vm_id, body.run)
    with ExitStack() as stack:
        exported(stack, repository, point, [disk.key for disk in point.disks], None)  # it can be read
    begin_share(settings.folder, body, {disk.key: disk.size_bytes for disk in point.disks})
    disks = tuple(
        ServedDisk(key=disk.key, size_bytes=disk.size_bytes, path=descriptor_name(disk.key)) for disk in point.disks
    )
    return PointServeResult(host=settings.host, path=f"/{body.share}", disks=disks)


def begin_share(served: Path, body: PointServe, sizes: Mapping[str, int]) -> None:
    """Have what is served in its folder, whole and durable, or not at all. Raises `ShareFolderError`."""
    folder = served / body.share
    fresh = _unfinished(folder)
    try:
        served.mkdir(parents=True, exist_ok=True)
        make_durable(served.parent)
        if not folder.exists():
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            write_durably(fresh / _POINT, body.model_dump_json())
            lay_out(fresh, sizes)
            fresh.rename(folder)
        make_durable(served)
    except OSError as error:
        raise _folder_error(served, error) from error


def release_point(body: PointRelease, bench: Bench, *_: object) -> PointReleaseResult:
    """The task `point.release`. What is being read or written at that moment still ends; nothing comes after it."""
    settings = _settings(bench)
    folder = settings.folder / body.share
    ended = folder.with_name(f"{body.share}{_ENDED}")
    try:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(ended)
        shutil.rmtree(_unfinished(folder), ignore_errors=True)
        written = written_bytes(ended)
        if ended.exists():
            shutil.rmtree(ended)
    except OSError as error:
        raise _folder_error(settings.folder, error) from error
    return PointReleaseResult(written_bytes=written)


class OpenShares:
    """The shares there are, as the server finds them: opened when a host first asks, let go when they end."""

    def __init__(self, folder: Path, repository_of: Callable[[RepositoryReference], Repository]) -> None:
        self._folder = folder
        self._repository_of = repository_of
        self._lock = threading.Lock()
        self._opened: dict[bytes, tuple[Share, ExitStack]] = {}

    def __call__(self, token: bytes) -> Share | None:
        """The share of a token. Raises `ProxyfleetError` when its restore point can't be opened now."""
        folder = self._folder / token.hex()
        with self._lock:
            known = self._opened.get(token)
            if folder.is_dir():
                if known is None:
                    known = self._opened[token] = self._open(folder, token)
                return known[0]
            if known is not None:
                log.info("share %s has ended", _shown(token))
                del self._opened[token]
                known[1].close()
        return None

    def sweep(self) -> None:
        """Let go of shares that have ended and that nobody asks for any more."""
        for token in list(self._opened):
            self(token)

    def close(self) -> None:
        """Make all that was written durable."""
        with self._lock:
            for share, stack in self._opened.values():
                try:
                    share.close()
                except OSError:
                    log.exception("what was written last to share %s may be lost", _shown(share.token))
                stack.close()
            self._opened.clear()

    def _open(self, folder: Path, token: bytes) -> tuple[Share, ExitStack]:
        try:
            body = PointServe.model_validate_json((folder / _POINT).read_text())
        except OSError as error:
            raise _folder_error(folder, error) from error
        except ValueError as error:
            raise ShareFolderError(
                f"{folder / _POINT}",
                why="it isn't what this proxy wrote there: it doesn't say which restore point is served",
                remedy="Cancel the instant restore, and begin it anew.",
            ) from error
        with ExitStack() as stack:
            repository = stack.enter_context(self._repository_of(body.repository))
            point = repository.point(body.vm.vm_id, body.run)
            disks = exported(stack, repository, point, [disk.key for disk in point.disks], None)
            share = open_share(folder, token, disks)
            log.info("share %s: %s, restore point %s", _shown(token), point.vm_name, point.run)
            return share, stack.pop_all()


def _shown(token: bytes) -> str:
    """What a log may have of a token, which is all that whoever mounts a share needs to know."""
    return token.hex()[:8]


def sweep_ended(folder: Path) -> None:
    """Remove what a killed process has left of shares that had ended."""
    for left in folder.glob(f"*{_ENDED}"):
        shutil.rmtree(left, ignore_errors=True)


def _unfinished(folder: Path) -> Path:
    """Where a share is made that is to be in `folder`."""
    return folder.with_name(f"{folder.name}.new")


def _settings(bench: Bench) -> InstantRestoreSettings:
    settings = bench.configuration.instant_restore
    if settings is None:
        raise NoInstantRestoreError(
            f"proxy {bench.identity.name}",
            why="its proxy.toml has no [instant_restore]",
            remedy="Add it: `host` and `clients` are needed.",
        )
    return settings


def _require_answer(settings: InstantRestoreSettings) -> None:
    try:
        socket.create_connection((settings.reached_at, settings.port), _ANSWERS_S).close()
    except OSError as error:
        raise ServerSilentError(
            f"NFS server at port {settings.port}",
            why=error.strerror or str(error),
            remedy="The proxy starts it; its log says why it doesn't run.",
        ) from error


def _folder_error(folder: Path, error: OSError) -> ProxyfleetError:
    return ShareFolderError(f"folder {folder}", why=error.strerror or os.strerror(error.errno or 0))
