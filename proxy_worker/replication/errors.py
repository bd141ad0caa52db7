"""What keeps a replica from being written, sent or reverted."""

from __future__ import annotations

from typing import ClassVar

from proxy_worker.contract.errors import ConflictError, DamageError, NotFoundError, ProxyfleetError, TargetError


class ReplicaFailedOverError(ConflictError):
    """A replica has taken its original's place, and isn't written."""


class ReplicaPermanentError(ConflictError):
    """A replica has become a VM of its own, and isn't written."""


class ReplicaPoweredOnError(ConflictError):
    """A replica runs, by the lock files beside it."""


class ReplicaRevertingError(ConflictError):
    """A replica is half reverted to a restore point."""


class ReplicaBusyError(ConflictError):
    """Another session writes a replica's disk, or its restore points are at work."""

    retryable: ClassVar[bool] = True


class StaleSessionError(ConflictError):
    """A later session has had a replica's disk: this one may write no more."""


class ReplicaTooLargeError(TargetError):
    """A replica's datastore has no room for what it would hold."""


class ReplicaDiskSizeError(ConflictError):
    """A replica's disk is larger than its source, or can't be made as large."""


class ReplicaIsSourceError(ConflictError):
    """A disk is to be replicated onto itself."""


class ReplicaUnreachableError(NotFoundError):
    """This proxy doesn't have a replica's datastore as a folder."""


class ReplicaMissingError(NotFoundError):
    """The folder of an existing VM that a replica was mapped to isn't there."""


class ReplicaAbsentError(NotFoundError):
    """A replica isn't where it was; its datastore may not be mounted."""

    retryable: ClassVar[bool] = True


class ReplicaFolderTakenError(ConflictError):
    """The folder for a replica is that of another VM, or of another VM's replica."""


class OriginalChangedError(ConflictError):
    """The VM that a failback would write has other disks by now, as after a snapshot."""


class ReplicaPointMissingError(NotFoundError):
    """There is no such restore point of a replica."""


class ReplicaUnwritableError(TargetError):
    """A file of a replica can't be written."""

    retryable: ClassVar[bool] = True


class ReplicaDiffersError(DamageError):
    """A replica's disk isn't what its source sent, by the digests of both ends."""

    retryable: ClassVar[bool] = True


class SourceAbsentError(TargetError):
    """The source of a replica's disk hasn't been heard of for too long."""

    retryable: ClassVar[bool] = True


class SessionEndedError(ConflictError):
    """A target listens for another session by now, or for none."""

    retryable: ClassVar[bool] = True


TRAVELLING: tuple[type[ProxyfleetError], ...] = (
    ReplicaFailedOverError,
    ReplicaPermanentError,
    ReplicaPoweredOnError,
    ReplicaRevertingError,
    ReplicaBusyError,
    StaleSessionError,
    ReplicaTooLargeError,
    ReplicaDiskSizeError,
    ReplicaUnwritableError,
    ReplicaDiffersError,
    SessionEndedError,
    OriginalChangedError,
)
"""Those that a target's proxy tells its source."""
