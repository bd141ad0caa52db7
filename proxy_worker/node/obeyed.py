"""What this proxy has obeyed: the highest epoch, and each specification once.

The ledger is not trusted with either. Whoever controls Redis can show a proxy specifications that the scheduler did
sign, long ago or a moment ago, and can lie about the time; what stands in the proxy's own state folder they can't
change. Shared by all pool processes, through files alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.signing import SpecificationError
from proxy_worker.contract.specification import TaskSpecification

CLOCK_TOLERANCE_S: Final = 3600.0
"""How far this machine's clock may be from the scheduler's before it takes nothing more."""
_HOUR_S: Final = 3600


class ReplayedSpecificationError(SpecificationError):
    """A specification that the scheduler once signed is shown again, or too late."""


class ClockAheadError(ReplayedSpecificationError):
    """By this machine's own clock a specification has long expired: either it has, or the clock is wrong."""


class MemoryLostError(ConfigurationError):
    """The record of specifications that this proxy has obeyed can't be read or kept."""


class Obeyed:
    """A proxy's memory in `<state_dir>/obeyed`: `epoch`, and a folder for each hour with a file for each task."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "obeyed"

    @property
    def epoch(self) -> int:
        """The highest epoch that was ever obeyed; 0 before any."""
        try:
            text = (self._folder / "epoch").read_text()
        except FileNotFoundError:
            return 0
        return int(text or 0)

    def admit(self, specification: TaskSpecification) -> None:
        """Remember a verified specification as obeyed.

        Raises `ReplayedSpecificationError` for one of an epoch that is over, one that was obeyed before, and one
        that by this machine's own clock has long expired (`ClockAheadError`); `MemoryLostError` when it can't be
        remembered.
        """
        subject = f"specification of task {specification.task_id}"
        if time.time() > specification.expires_at + CLOCK_TOLERANCE_S:
            raise ClockAheadError(
                subject,
                why="by this machine's clock it has long expired, whatever Redis says",
                remedy="If the clocks of this machine and the scheduler's are hours apart, set them right.",
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._raise_epoch(specification.epoch, subject)
            self._note(specification, subject)
        except (OSError, ValueError) as error:
            raise MemoryLostError(
                f"what this proxy has obeyed, in {self._folder}",
                why=str(error),
                remedy="Make room there, and see that the proxy's user may write to it.",
            ) from error

    def _raise_epoch(self, epoch: int, subject: str) -> None:
        if epoch == self.epoch:
            return
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            highest = self.epoch
            if epoch < highest:
                raise ReplayedSpecificationError(
                    subject,
                    why=f"it is of epoch {epoch}, and this proxy has obeyed epoch {highest} already",
                    remedy="If the scheduler's database was restored from an old copy, and Redis was lost with it, "
                    f"stop this proxy, remove {self._folder}, and start it again.",
                )
            fresh = self._folder / "epoch.new"
            with fresh.open("w") as file:
                file.write(f"{epoch}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._folder / "epoch")

    def _note(self, specification: TaskSpecification, subject: str) -> None:
        hour = int(specification.expires_at) // _HOUR_S
        folder = self._folder / str(hour)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            self._forget()
        identity = f"{specification.epoch} {specification.task_id} {specification.dispatch_number}"
        try:
            (folder / hashlib.sha256(identity.encode()).hexdigest()).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            raise ReplayedSpecificationError(
                subject, why="this proxy has obeyed it before; each is signed for one dispatch"
            ) from None

    def _forget(self) -> None:
        """Drop the hours whose specifications are refused by their age alone."""
        over = (time.time() - CLOCK_TOLERANCE_S) // _HOUR_S - 1
        for folder in self._folder.iterdir():
            if folder.name.isdecimal() and int(folder.name) < over:
                shutil.rmtree(folder, ignore_errors=True)
