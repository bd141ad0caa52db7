"""The root of every error a user can see.

An error says what failed and on what, why, and what to do about it; its class gives the exit code and a
stable identifier that scripts and the documentation use. Packages derive their own errors from the
categories below, next to the code that raises them.
"""

from __future__ import annotations

import re
from typing import ClassVar


class ProxyfleetError(Exception):
    """Base of all foreseeable errors.

    `what` names the thing that failed and what it failed on, `why` the cause, `remedy` what the reader can do.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    """Whether the same task may succeed later without anybody changing anything."""

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        if self.remedy:
            text = f"{text.rstrip('.')}. {self.remedy}"
        return text

    @classmethod
    def code(cls) -> str:
        """The stable identifier, e.g. `wrong-passphrase` for `WrongPassphraseError`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()


class ConfigurationError(ProxyfleetError):
    """A configuration or fleet file, an option, or a combination of them, is not valid."""

    exit_code = 3


class NotFoundError(ProxyfleetError):
    """A named job, VM, disk, restore point, repository, proxy or path does not exist."""

    exit_code = 4


class DamageError(ProxyfleetError):
    """Stored data is missing, damaged, or not what it claims to be."""

    exit_code = 5


class CredentialError(ProxyfleetError):
    """A passphrase, key, password or signature is missing, wrong, or doesn't allow this."""

    exit_code = 6


class StoreError(ProxyfleetError):
    """A repository can't be reached, read or written: full, read-only, broken, or whoever keeps it forbids it."""

    exit_code = 7
    retryable = True


class SourceError(ProxyfleetError):
    """A VM's disk can't be read."""

    exit_code = 8
    retryable = True


class ConflictError(ProxyfleetError):
    """Something of that name exists, or is held by somebody else."""

    exit_code = 9


class LedgerError(ProxyfleetError):
    """Redis, which holds what runs now, can't be used."""

    exit_code = 10
    retryable = True


class CancelledError(ProxyfleetError):
    """The work was cancelled by somebody who may."""

    exit_code = 11


class TargetError(ProxyfleetError):
    """A disk or file that is restored to can't be written."""

    exit_code = 12
