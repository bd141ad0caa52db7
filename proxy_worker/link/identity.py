"""One end's certificate: the files that show who it is and verify the other.

This loads little: every command that opens a repository has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from proxy_worker.link.errors import LinkCertificateError

CERTIFICATE_VARIABLE: Final = "PROXYFLEET_CERTIFICATE"
"""Names the certificate that commands without a fleet show; its key and `ca.pem` lie beside it, as
`scheduler pki issue --out` leaves them."""


@dataclass(frozen=True)
class Identity:
    """The files of one end, PEM all of them, read anew for every connection."""

    certificate: Path
    key: Path
    ca_file: Path
    """The authority's certificate, with its list of revoked ones."""

    @classmethod
    def beside(cls, certificate: Path) -> Self:
        """`NAME.pem` with `NAME-key.pem` and `ca.pem` in its folder."""
        return cls(
            certificate, certificate.with_name(f"{certificate.stem}-key.pem"), certificate.with_name("ca.pem")
        )

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self | None:
        """What `PROXYFLEET_CERTIFICATE` names, if it is set."""
        named = environment.get(CERTIFICATE_VARIABLE)
        return cls.beside(Path(named)) if named else None

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Key, certificate and authority; raises `LinkCertificateError` when a file can't be read."""
        try:
            return self.key.read_bytes(), self.certificate.read_bytes(), self.ca_file.read_bytes()
        except OSError as error:
            raise LinkCertificateError(
                f"certificate {self.certificate}",
                why=f"{error.filename}: {error.strerror}",
                remedy="`scheduler pki issue` makes a certificate, its key and ca.pem: put all three there.",
            ) from error
