"""Which of a machine's addresses is taken: one in a preferred network, and the others where that isn't reached."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Final

_CONNECT_S: Final = 10.0
_TRY_S: Final = 3.0
"""For each address while there are others."""


def in_order(addresses: Sequence[str], networks: Sequence[str]) -> list[str]:
    """Addresses in the networks first, in the order of these; then the others, as they come."""
    preferred = [ip_network(network) for network in networks]

    def place(address: str) -> int:
        found = ip_address(address)
        return next((place for place, network in enumerate(preferred) if found in network), len(preferred))

    return sorted(dict.fromkeys(addresses), key=place)


def connect(host: str, port: int, networks: Sequence[str]) -> tuple[socket.socket, str]:
    """A connection to `host`, and the address it goes to. Raises `OSError` when none of its addresses answers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = in_order([str(place[0]).partition("%")[0] for *_, place in found], networks)
    for address in places[:-1]:
        try:
            connection = socket.create_connection((address, port), timeout=_TRY_S)
        except OSError:
            continue
        connection.settimeout(_CONNECT_S)
        return connection, address
    return socket.create_connection((places[-1], port), timeout=_CONNECT_S), places[-1]
