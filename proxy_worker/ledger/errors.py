"""How the ledger fails, each with its cause and a remedy."""

from __future__ import annotations

from proxy_worker.contract.errors import ConflictError, LedgerError


class LedgerUnavailableError(LedgerError):
    """Redis does not answer: absent, restarting, or cut off."""


class LedgerPasswordError(LedgerError):
    """Redis refuses the password, or the user may not do this."""

    retryable = False


class LedgerCertificateError(LedgerError):
    """Redis' certificate isn't one of the fleet's, or it refuses this program's; renewed ones are used at once."""


class LedgerFullError(LedgerError):
    """Redis is at its memory limit and evicts nothing, so that nothing can be written."""


class LedgerReadOnlyError(LedgerError):
    """Redis answers and takes no writes: it has become a replica, or lacks those it must have."""


class LedgerEmptyError(LedgerError):
    """Redis answers, and has lost what the ledger held."""


class LedgerProtocolError(LedgerError):
    """Redis answered something that this version doesn't understand."""

    retryable = False


class StaleEpochError(ConflictError):
    """Another scheduler, or a later start of this one, has taken over the ledger."""


class ProxyNameTakenError(ConflictError):
    """Another live proxy has registered this name."""

    heard_ago_s: float = 0.0
    """How long ago the ledger last heard of it."""
