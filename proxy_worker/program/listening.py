"""What can go wrong for whatever listens: metrics, NBD, NFS, gateways, replicas."""

from __future__ import annotations

from proxy_worker.contract.errors import ConfigurationError


class ListenError(ConfigurationError):
    """A server can't listen where it was told to, or not with the certificate that it was told to show."""
