"""Errors of the server's own backup."""

from __future__ import annotations

from proxy_worker.contract.errors import (
    ConfigurationError,
    ConflictError,
    CredentialError,
    DamageError,
    NotFoundError,
    ProxyfleetError,
    TargetError,
)


class ServerBackupOffError(ConfigurationError):
    """No repository is named for the server's own backup."""


class RecoveryPassphraseError(CredentialError):
    """The passphrase for the server's own backup is missing, or doesn't open it."""


class ServerBackupRunningError(ConflictError):
    """The server's own backup is being made already."""


class ServerFileError(ProxyfleetError):
    """A file that belongs to the server's backup can't be read or written."""


class ArchiveDamagedError(DamageError):
    """A backup of the server is damaged, cut short, or something else."""


class ArchiveVersionError(ConfigurationError):
    """A newer version of the scheduler made this backup of the server."""


class RestoreTargetError(TargetError):
    """The server can't be restored there."""


class NoServerBackupError(NotFoundError):
    """The repository holds no such backup of the server."""


class ShelfError(ProxyfleetError):
    """`proxy-worker`, which keeps the server's own backups in a repository, failed; it said why."""
