"""Errors of the scheduler's database."""

from __future__ import annotations

from proxy_worker.contract.errors import (
    ConfigurationError,
    ConflictError,
    CredentialError,
    NotFoundError,
    ProxyfleetError,
)


class StateError(ProxyfleetError):
    """The scheduler's database can't be used."""


class StateUnreachableError(StateError):
    """The database server doesn't answer now; it may later."""


class StatePasswordError(CredentialError):
    """The database server refuses the user, the password, or what the user wants."""


class StateUrlError(ConfigurationError):
    """`database_url` names no database that can be opened."""


class StateLockedError(ConflictError):
    """Another process holds the database's write lock for longer than is waited for."""


class StateFullError(StateError):
    """The database can't grow: its file system is full."""


class StateReadOnlyError(StateError):
    """The database can't be written."""


class StateDamagedError(StateError):
    """The database file is damaged, or is no database."""


class StateVersionError(StateError):
    """The database belongs to a newer version of the scheduler, or has not been set up."""


class SchedulerRunningError(ConflictError):
    """Another scheduler serves from this database."""


class LeadershipLostError(ConflictError):
    """Another scheduler has taken over, or may have: this one must not write any more."""


class NoSuchJobError(NotFoundError):
    """No job of that name is declared."""


class NoSuchRunError(NotFoundError):
    """No run of that id was recorded."""


class NoSuchVmError(NotFoundError):
    """No VM of that name, or no restore point of it, is known."""


class AmbiguousVmError(ConfigurationError):
    """Several VMs have this name."""


class AmbiguousPointError(ConfigurationError):
    """Several repositories have this restore point."""


class NoSuchPointError(NotFoundError):
    """The VM has no such restore point."""


class NoSuchDiskError(NotFoundError):
    """The restore point has no such disk."""


class NoSuchRepositoryError(NotFoundError):
    """No repository of that name is declared."""


class NoSuchVcenterError(NotFoundError):
    """No vCenter of that name is declared."""


class NoSuchRestoreError(NotFoundError):
    """No restore of that id was recorded."""


class PointPinnedError(ConflictError):
    """A restore point that is pinned was to be removed."""


class PointInUseError(ConflictError):
    """A restore point that a VM runs from was to be removed."""


class PointLeavingError(ConflictError):
    """A restore point that is being removed was to be pinned, or a VM was to run from it."""


class RunActiveError(ConflictError):
    """The job, or the run, is still running."""


class RunEndedError(ConflictError):
    """The run has ended already, or has nothing to retry."""


class NoSuchReplicaError(NotFoundError):
    """No replica of that name or id, or of a VM of that name, is known."""


class AmbiguousReplicaError(ConfigurationError):
    """Several replicas go by this name."""


class NoSuchReplicaPointError(NotFoundError):
    """The replica has no such restore point."""


class ReplicaStateError(ConflictError):
    """What was asked for can't be done with a replica that is what it is."""


class ReplicaBusyError(ConflictError):
    """Something is under way with the replica."""
