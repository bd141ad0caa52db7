"""The server's own backup by its schedule: a command of its own, which `scheduler serve` starts and watches."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Final

from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.planning.schedule import Schedule
from scheduler.server_backup.settings import ServerBackupSettings
from scheduler.state.models import ServiceMark
from scheduler.state.store import State

logger = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "scheduler.cli", "server", "backup", "now")
AGAIN_AFTER_S: Final = 900.0
"""A backup that failed is made again after this."""
OVERDUE_AFTER_S: Final = 6 * 3600.0
"""A backup that was due so long ago should be there."""
_LOOK_EVERY_S: Final = 10.0


class NightlyBackup:
    """Starts the backup when it is due. `watch` and `stop` belong to one thread."""

    def __init__(self, settings: ServerBackupSettings, state: State, since: float | None = None) -> None:
        """`since`: starts before it (Unix seconds, now) aren't made up for if none was ever made."""
        self._settings = settings
        self._state = state
        self._since = time.time() if since is None else since
        self._process: subprocess.Popen[bytes] | None = None
        self._looked_at = float("-inf")
        self._rest_until = float("-inf")

    def watch(self) -> None:
        """Start it if it is due, or note that it has ended. Never waits, and raises nothing foreseeable."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            if code:
                logger.error("the server's own backup failed with code %d", code)
                self._rest_until = time.monotonic() + AGAIN_AFTER_S
                with contextlib.suppress(ProxyfleetError), self._state.write() as session:
                    note_broken_off(session, code)
        now = time.monotonic()
        if self._settings.repository is None or now < max(self._rest_until, self._looked_at + _LOOK_EVERY_S):
            return
        self._looked_at = now
        try:
            with self._state.read() as session:
                due = is_due(session, self._settings, time.time(), since=self._since)
        except ProxyfleetError:
            return  # the service itself says so, and waits
        if due:
            logger.info("the server's own backup begins")
            try:
                self._process = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:  # as without memory for another process
                self._rest_until = now + AGAIN_AFTER_S
                logger.error("the server's own backup could not be started: %s", error.strerror)  # noqa: TRY400

    def stop(self) -> None:
        """End a backup that is being made: the next one begins anew."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def is_due(session: Session, settings: ServerBackupSettings, now: float, *, since: float) -> bool:
    """Whether a backup is to be begun at `now`, in Unix seconds."""
    mark = session.get(ServiceMark, 1)
    if mark is not None and mark.backup_tried_at is not None and _unfinished(mark):
        return now >= mark.backup_tried_at + AGAIN_AFTER_S
    last = mark.backup_tried_at if mark is not None else None
    return Schedule(settings.cron, settings.timezone).due(since if last is None else last, now) is not None


def note_broken_off(session: Session, code: int) -> None:
    """Note that the newest try ended with `code` unless it said itself why, as one can't that was killed."""
    mark = session.get(ServiceMark, 1)
    if mark is not None and mark.backup_failure is None and _unfinished(mark):
        mark.backup_failure = f"it was broken off (code {code})"


def backup_warnings(session: Session, settings: ServerBackupSettings, now: float) -> tuple[str, ...]:
    """A sentence if the server's own backup needs somebody's attention."""
    mark = session.get(ServiceMark, 1)
    if settings.repository is None or mark is None:
        return ()
    if mark.backup_failure is not None:
        return (f"the server's own backup failed: {mark.backup_failure}",)
    last = mark.backed_up_at or 0.0
    if Schedule(settings.cron, settings.timezone).due(last, now - OVERDUE_AFTER_S) is None:
        return ()
    return (
        f"the server's own backup is {(now - last) / 3600:.0f} hours old"
        if last
        else "the server itself was never backed up",
    )


def _unfinished(mark: ServiceMark) -> bool:
    """Whether no backup was finished since the newest try began: it failed, was killed, or is still going on."""
    return (mark.backed_up_at or 0.0) < (mark.backup_tried_at or 0.0)
