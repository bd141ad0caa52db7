"""Which of this machine's addresses others see it by."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

_ELSEWHERE: Final = ("192.0.2.1", "2001:db8::1")
"""Addresses of no machine (RFC 5737, RFC 3849), which the default route leads to."""
_DISCARD_PORT: Final = 9


def address_towards(url: str) -> str | None:
    """The address that connections to the host in `url` come from.

    Where that is this machine itself, the one on its default route; None where it has none. Nothing is sent.
    """
    hosts = (urlsplit(url).hostname, *_ELSEWHERE)
    for host in filter(None, hosts):
        found = _source_address(host)
        if found is not None and not ipaddress.ip_address(found).is_loopback:
            return found
    return None


def _source_address(host: str) -> str | None:
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, _DISCARD_PORT, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                probe.connect(place)
                return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return None  # no route there, or no such name: joining the fleet says so better
    return None
