"""What can be wrong with a repository, beyond what its store says."""

from __future__ import annotations

from typing import ClassVar

from proxy_worker.contract.errors import (
    ConfigurationError,
    ConflictError,
    CredentialError,
    DamageError,
    NotFoundError,
)


class RepositoryDamageError(DamageError):
    """An object is missing, cut, altered, or under another object's name."""


class ShutOutError(RepositoryDamageError):
    """An object was written by somebody whose key has been revoked."""


class MissingBlockError(DamageError):
    """A block that a restore point needs is nowhere in the repository."""


class WrongPassphraseError(CredentialError):
    """No key of this repository opens with this passphrase."""


class WrongKeyError(CredentialError):
    """A write or read key belongs to another repository, or to a later state than the one that is offered."""


class CannotReadError(CredentialError):
    """The credential may add restore points but not read blocks."""


class KeyFileError(CredentialError):
    """A key or passphrase file is missing, damaged or not one."""


class RepositoryVersionError(ConfigurationError):
    """The repository has a format this version doesn't know."""


class RepositoryNotFoundError(NotFoundError):
    """There is no repository at this place; it may be back when its file system is."""

    retryable: ClassVar[bool] = True


class RepositoryExistsError(ConflictError):
    """There is a repository at this place already."""


class PointNotFoundError(NotFoundError):
    """No such restore point, VM or disk in the repository."""


class RunEndedError(ConflictError):
    """The VM run has ended: it was abandoned, or committed with other content."""

    retryable: ClassVar[bool] = False


class KeyNotFoundError(NotFoundError):
    """The repository has no key of that id."""


class KeyFileExistsError(ConflictError):
    """There is a file already where a key was to be written."""


class KeyInUseError(ConflictError):
    """The key can't be removed, or would be left behind."""


class RevokedKeyError(CredentialError):
    """The key was revoked: what it writes no longer counts."""


class ConfigurationChangedError(ConflictError):
    """Somebody else has changed the repository's configuration at the same time."""


class NotEncryptedError(ConfigurationError):
    """The repository isn't encrypted, so it has no keys to rotate, revoke or print."""


class RecoverySheetError(CredentialError):
    """What was typed in isn't the text of a recovery sheet, or has a slip in it."""
