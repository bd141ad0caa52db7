"""Who is called, and the first connection to it: plain TLS, which checks both ends' certificates.

gRPC shows a client neither the server's certificate nor a list of revoked ones. So a connection is tried out first,
and gRPC then accepts exactly the certificate that was found good.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.link.admission import PeerRefusedError, Role, peer_of
from proxy_worker.link.errors import LinkCertificateError, LinkUnavailableError
from proxy_worker.link.identity import Identity
from proxy_worker.link.networks import connect

_CLOSED: Final = "it closes connections before a word is said, as one does that has too many"
_OTHER_NAME: Final = {62, 64}
"""`X509_V_ERR_HOSTNAME_MISMATCH` and `X509_V_ERR_IP_ADDRESS_MISMATCH` of OpenSSL's x509_vfy.h."""


@dataclass(frozen=True)
class OtherEnd:
    """A gateway, or with `peer` the only proxy that may answer there."""

    address: GatewayAddress
    peer: str | None = None

    def __str__(self) -> str:
        """As messages name it."""
        return f"proxy {self.peer} at {self.address.target}" if self.peer else f"gateway {self.address.target}"

    @property
    def server_name(self) -> str:
        """The name that its certificate has to have."""
        return self.peer or self.address.host

    def unavailable(self, why: str) -> LinkUnavailableError:
        """What is raised when it can't be reached."""
        return LinkUnavailableError(
            str(self),
            why=why,
            remedy=(
                "Does the network let this machine through to there?"
                if self.peer
                else "Does `proxy-worker serve` run there, and does the network let this machine through?"
            ),
        )

    def met(self, identity: Identity, networks: Sequence[str]) -> tuple[bytes, str]:
        """The certificate that it shows, PEM, once it is found good and this end's was accepted; and the address
        that it has been reached at, in one of the `networks` if it can. Raises `LinkUnavailableError`,
        `LinkCertificateError`."""
        context = _context(identity)
        try:
            connection, place = connect(self.address.host, self.address.port, networks)
            with (
                connection as plain,
                context.wrap_socket(plain, server_hostname=self.server_name) as wire,
            ):
                shown = wire.getpeercert(binary_form=True) or b""
                if not wire.recv(1):  # HTTP/2's first frame, or why this end's certificate isn't accepted
                    _require_own_to_count(self.address, identity)
                    raise self.unavailable(_CLOSED)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            _require_own_to_count(self.address, identity)  # a gateway doesn't say so
            raise self.unavailable(_CLOSED) from error
        except ssl.SSLError as error:
            raise self._not_accepted(error, identity) from error
        except OSError as error:
            raise self.unavailable(error.strerror or str(error)) from error
        certificate = x509.load_der_x509_certificate(shown)
        try:
            role = peer_of(certificate).role
        except PeerRefusedError as error:
            raise LinkCertificateError(f"link to {self.address.target}", why=str(error)) from error
        if role is not Role.GATEWAY and not self.peer:
            raise LinkCertificateError(
                f"link to {self.address.target}", why=f"its certificate is of role {role}, not a gateway's"
            )
        return ssl.DER_cert_to_PEM_cert(shown).encode(), place

    def _not_accepted(self, error: ssl.SSLError, identity: Identity) -> LinkCertificateError:
        why = (getattr(error, "verify_message", "") or error.reason or str(error)).lower().replace("_", " ")
        if getattr(error, "verify_code", None) in _OTHER_NAME:
            return LinkCertificateError(
                f"link to {self}",
                why=f"its certificate is for another name: {why}",
                remedy=(
                    f"A proxy's certificate has the proxy's name: `scheduler pki issue {self.peer} --role proxy`."
                    if self.peer
                    else f"Issue it one with `--address {self.server_name}`, or use a name that it has."
                ),
            )
        return LinkCertificateError(
            f"link to {self}",
            why=f"the certificate of one end isn't accepted: {why}",
            remedy=f"See {identity.certificate}, the other end's own, and both ends' ca.pem.",
        )


def _require_own_to_count(address: GatewayAddress, identity: Identity) -> None:
    own = x509.load_pem_x509_certificate(identity.read()[1])
    if own.not_valid_after_utc <= datetime.now(UTC):
        raise LinkCertificateError(
            f"link to {address.target}",
            why=f"{identity.certificate} has expired, on {own.not_valid_after_utc:%Y-%m-%d}",
            remedy="Make a new one with `scheduler pki renew`.",
        )


def _context(identity: Identity) -> ssl.SSLContext:
    """TLS that shows this certificate and accepts what the authority certified and hasn't revoked."""
    identity.read()
    try:
        context = ssl.create_default_context(cafile=identity.ca_file)
        if context.cert_store_stats()["crl"]:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.load_cert_chain(identity.certificate, identity.key)
    except ssl.SSLError as error:
        raise LinkCertificateError(
            f"certificate {identity.certificate}",
            why=f"it, its key or {identity.ca_file} can't be used: {error.reason}",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    return context
