"""What can go wrong while proxies are put on machines."""

from __future__ import annotations

from proxy_worker.contract.errors import (
    ConfigurationError,
    ConflictError,
    CredentialError,
    NotFoundError,
    ProxyfleetError,
)


class ServerUnreachableError(ProxyfleetError):
    """A machine doesn't answer over SSH."""

    retryable = True


class HostKeyChangedError(CredentialError):
    """A machine shows another SSH host key than the one it is pinned by: it may not be the same machine."""


class HostKeyNotPinnedError(CredentialError):
    """Nobody has said yet that the SSH host key which a machine shows is the right one."""


class SshLoginError(CredentialError):
    """A machine doesn't let the given user log in."""


class SshSecretError(CredentialError):
    """The key or password that is to log in can't be read."""


class UnfitServerError(ConfigurationError):
    """A machine can't be a proxy: another system or architecture, no Python 3.11, too little room."""


class NotRootError(CredentialError):
    """The login may not become root, and nothing was said of doing without."""


class MissingSecretError(CredentialError):
    """A secret that a proxy is to get isn't there."""


class WheelhouseError(ProxyfleetError):
    """The packages for a machine can't be put together on the backup server."""


class DeploymentStepError(ProxyfleetError):
    """A step of a deployment failed on the machine; it can be done again."""


class NotRegisteredError(ProxyfleetError):
    """A proxy was started and didn't register in time."""


class ServerTakenError(ConflictError):
    """The machine has another proxy already, or another machine has this one."""


class UndeclaredRunsError(ConflictError):
    """A proxy that was put on its machine by somebody else runs, and so can't be forgotten."""


class TooFewRunningError(ConflictError):
    """With this proxy away, fewer would run than were to be kept running."""


class NoServerError(NotFoundError):
    """Nothing is declared of the machine that a proxy is to be put on."""
