"""What a run does, and the words for it: a replication backs nothing up, and a copy is of restore points."""

from __future__ import annotations

from enum import StrEnum

from scheduler.state.recorded import Run


class RunKind(StrEnum):
    """What a run does."""

    BACKUP = "backup"
    COPY = "copy"
    """Restore points of one repository, to another."""
    REPLICATION = "replication"
    FAILBACK = "failback"
    """What a replica has done is brought back to its original."""

    @classmethod
    def of(cls, run: Run) -> RunKind:
        """The kind of a run."""
        if run.copy_from is not None:
            return cls.COPY
        if run.failback_of is not None:
            return cls.FAILBACK
        return cls.BACKUP if run.replica is None else cls.REPLICATION

    @property
    def done(self) -> str:
        """What was done with its VMs and disks."""
        return _DONE[self]

    @property
    def unit(self) -> str:
        """One of what it ends in."""
        return "restore point" if self is RunKind.COPY else "VM"

    @property
    def delivered(self) -> str:
        """What became of bytes that had to be moved."""
        return "stored" if self.to_repository else "sent"

    @property
    def to_repository(self) -> bool:
        """Whether a repository is what it writes to."""
        return self in {RunKind.BACKUP, RunKind.COPY}


_DONE = {
    RunKind.BACKUP: "backed up",
    RunKind.COPY: "copied",
    RunKind.REPLICATION: "replicated",
    RunKind.FAILBACK: "brought back",
}
