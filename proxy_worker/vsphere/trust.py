"""Whom a session talks to: a certificate that is verified, or pinned by its thumbprint.

A pinned certificate is compared on every connection, before a byte of the password is sent. (pyvmomi's own
`thumbprint` argument compares on the first connection of a context only, so it isn't used.)
"""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError, CredentialError

_HASHES: Final = {40: hashlib.sha1, 64: hashlib.sha256}  # vSphere and VDDK show SHA-1, newer vCenters SHA-256
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_NOT_YET: Final = 9


class ThumbprintError(ConfigurationError):
    """A thumbprint isn't the SHA-1 or SHA-256 of a certificate in hexadecimal."""


class CertificateFileError(ConfigurationError):
    """The file of certificates that a vCenter is to be verified with can't be used."""


class CertificateExpiredError(CredentialError):
    """A vCenter's certificate has expired, or isn't valid yet."""


class CertificateUntrustedError(CredentialError):
    """A vCenter's certificate is signed by nobody this machine trusts, or is for another host name."""


class ThumbprintChangedError(CredentialError):
    """A vCenter shows another certificate than the one that was pinned."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How a server proves who it is: by this thumbprint if there is one, else by its certificate's signature."""

    thumbprint: str | None = None
    """SHA-1 or SHA-256 of the DER certificate in hexadecimal, with or without colons."""
    ca_file: Path | None = None
    """Certificate authorities in PEM; with neither these nor `authorities`, the system's own."""
    authorities: str | None = None
    """More of them, in PEM."""

    def context(self) -> ssl.SSLContext:
        """The TLS settings; a pinned certificate is checked by `check`, not by them."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file, cadata=self.authorities)
        except (OSError, ValueError) as error:
            raise CertificateFileError(
                f"certificates in {self.ca_file or 'the fleet file'}", why=str(error), remedy="Correct `ca_file`."
            ) from error
        if self.thumbprint is not None:
            normalised(self.thumbprint)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def check(self, server: str, certificate: bytes) -> None:
        """Raise `ThumbprintChangedError` unless the DER `certificate` is the pinned one, where one is pinned."""
        if self.thumbprint is None:
            return
        pinned = normalised(self.thumbprint)
        shown = _HASHES[len(pinned)](certificate).hexdigest()
        if shown != pinned:
            raise ThumbprintChangedError(
                f"vCenter {server}",
                why=f"its certificate's thumbprint is {with_colons(shown)}, pinned is {with_colons(pinned)}",
                remedy="If it was replaced, `scheduler vcenter trust` pins the new one; else look who answers.",
            )

    def refused(self, server: str, error: ssl.SSLCertVerificationError) -> CredentialError:
        """The named error for a certificate that didn't verify."""
        if error.verify_code in {_EXPIRED, _NOT_YET}:
            return CertificateExpiredError(
                f"vCenter {server}",
                why=f"its certificate does not hold now: {error.verify_message}",
                remedy="Renew it on the vCenter, or check this machine's clock.",
            )
        return CertificateUntrustedError(
            f"vCenter {server}",
            why=f"its certificate can't be verified: {error.verify_message}",
            remedy="Set `ca_file` to vCenter's certificate authority, or pin its `thumbprint`.",
        )


def normalised(thumbprint: str) -> str:
    """Lower-case hexadecimal without colons; raises `ThumbprintError` if it is no thumbprint."""
    text = thumbprint.replace(":", "").strip().lower()
    if len(text) not in _HASHES or not re.fullmatch("[0-9a-f]+", text):
        raise ThumbprintError(
            f"thumbprint {thumbprint[:80]!r}",
            why="it is neither a SHA-1 nor a SHA-256 in hexadecimal",
            remedy="`openssl x509 -noout -fingerprint -sha256` prints one.",
        )
    return text


def with_colons(thumbprint: str) -> str:
    """As vSphere shows thumbprints, e.g. `AB:CD:…`."""
    return ":".join(thumbprint[at : at + 2] for at in range(0, len(thumbprint), 2)).upper()


def checked_connection(server: str, trust: Trust) -> type[HTTPSConnection]:
    """A connection class that trusts as `trust` says, each time it connects."""

    class CheckedConnection(HTTPSConnection):
        def connect(self) -> None:
            try:
                super().connect()
            except ssl.SSLCertVerificationError as error:
                raise trust.refused(server, error) from error
            try:
                trust.check(server, self.sock.getpeercert(binary_form=True) or b"")
            except ThumbprintChangedError:
                self.close()
                raise

    return CheckedConnection


def verify(server: str, host: str, port: int, trust: Trust, timeout_s: float) -> str:
    """Connect as `trust` says, send nothing, and return the thumbprint that was shown, in SHA-256.

    Raises the errors of this module, and OSError if nobody answers.
    """
    connection = checked_connection(server, trust)(host, port, timeout=timeout_s, context=trust.context())
    try:
        connection.connect()
        return sha256_of(connection.sock.getpeercert(binary_form=True) or b"")
    finally:
        connection.close()


def shown_thumbprint(host: str, port: int, timeout_s: float) -> str:
    """The SHA-256 of whatever certificate is shown, for somebody to compare. Raises OSError if nobody answers."""
    pem = ssl.get_server_certificate((host, port), timeout=timeout_s)
    return sha256_of(ssl.PEM_cert_to_DER_cert(pem))


def sha256_of(certificate: bytes) -> str:
    """The thumbprint of a DER certificate, as vSphere shows it."""
    return with_colons(hashlib.sha256(certificate).hexdigest())
