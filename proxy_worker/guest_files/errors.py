"""Why files can't be had out of a disk."""

from __future__ import annotations

from proxy_worker.contract.errors import ConfigurationError, ConflictError, NotFoundError, SourceError, TargetError


class ApplianceMissingError(ConfigurationError):
    """libguestfs isn't installed on this machine."""


class ApplianceError(SourceError):
    """libguestfs' appliance doesn't start, or has ended before its time."""

    retryable = False


class GuestReadError(SourceError):
    """Something inside a guest's filesystem can't be read."""

    retryable = False


class UnreadableVolumeError(SourceError):
    """A volume is encrypted, its filesystem unknown or too damaged, or it is only a part of something."""

    retryable = False


class NoSuchVolumeError(NotFoundError):
    """The disks hold no volume of that name."""


class NoSuchFileError(NotFoundError):
    """Nothing of that path is in the guest."""


class WhichVolumeError(ConfigurationError):
    """Several volumes hold that path."""


class GuestPathError(ConfigurationError):
    """A path inside a guest isn't one."""


class TargetFileExistsError(ConflictError):
    """What would be restored exists at the target."""


class FileTargetError(TargetError):
    """Restored files can't be written."""
