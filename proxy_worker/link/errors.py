"""What can go wrong on the way to another data mover."""

from __future__ import annotations

from typing import ClassVar

from proxy_worker.contract.errors import CredentialError, StoreError


class LinkCertificateError(CredentialError):
    """One end of a link doesn't accept the other's certificate, or its own can't be used."""


class LinkRefusedError(StoreError):
    """The other end knows who asks and doesn't allow it."""

    retryable: ClassVar[bool] = False


class LinkUnavailableError(StoreError):
    """The other end can't be reached, doesn't answer, or went away."""


class LinkProtocolError(StoreError):
    """The other end says something that this version doesn't understand, or refuses as malformed."""

    retryable: ClassVar[bool] = False
