"""What a server shows and whom it trusts, as its files have it at each connection.

gRPC frees what it was given before as soon as it is given something else, also when a connection that came at the
same time is about to use it (https://github.com/grpc/grpc/issues/36693), and crashes. So it gets nothing but what
has changed, and that after a pause in which earlier connections have taken up what they need.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import grpc

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.link.identity import Identity

log = logging.getLogger(__name__)

_PAUSE_S: Final = 1.0
"""They do so within microseconds. New ones wait meanwhile, and files that are being replaced get whole."""


class ShownCertificates:
    """An identity's files, as a server has last read them."""

    def __init__(self, identity: Identity) -> None:
        """Raises `LinkCertificateError`."""
        self._identity = identity
        self._files = identity.read()

    @property
    def credentials(self) -> grpc.ServerCredentials:
        """For a server whose peers have to have a certificate."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self.renewed,  # type: ignore[arg-type] # None is "no change", as documented, but not in the stubs
            require_client_authentication=True,
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the server has to take instead, None when nothing has changed. gRPC asks for every connection, one
        after the other."""
        try:
            if self._identity.read() == self._files:
                return None
            time.sleep(_PAUSE_S)
            self._files = self._identity.read()
        except ProxyfleetError as error:
            log.warning("certificates stay as they were: %s", error)
            return None
        return self._configuration()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        key, certificate, authority = self._files
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)
