"""Which address of a gateway is taken where it has several."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.gateway.service import Gateway, Offer
from proxy_worker.link.networks import in_order
from proxy_worker.link.server import Limits, LinkServer
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from scheduler.pki.certificates import Peer, Role
from tests.gateway.serving import HERE, QUICK, Fleet

NAME = "gateway.example"
SILENT = "127.0.0.2"
"""An address of this machine where nobody listens."""


@given(
    st.lists(st.ip_addresses().map(str)),
    st.lists(st.sampled_from(["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "::/1", "fd00::/8"])),
)
def test_preferred_networks_come_first_and_nothing_is_lost(addresses: list[str], networks: list[str]) -> None:
    ordered = in_order(addresses, networks)

    assert set(ordered) == set(addresses)
    inside = [any(ip_address(one) in ip_network(network) for network in networks) for one in ordered]
    assert inside == sorted(inside, reverse=True)


def test_the_first_network_is_the_best_and_the_rest_stay_as_they_come() -> None:
    assert in_order(["172.16.0.9", "10.1.0.9", "10.9.0.5", "172.16.0.8"], ["10.9.0.0/16", "10.0.0.0/8"]) == [
        "10.9.0.5",
        "10.1.0.9",
        "172.16.0.9",
        "172.16.0.8",
    ]


@pytest.mark.parametrize("networks", [(), ("127.0.0.1/32",), ("127.0.0.2/32",)])
def test_a_gateway_is_reached_at_whichever_of_its_addresses_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: tuple[str, ...]
) -> None:
    store = LocalStore(tmp_path / "store")
    store.prepare()
    fleet = Fleet.made(tmp_path / "fleet")
    bundle = fleet.authority.issue(Peer("vault", Role.GATEWAY, None, (NAME,)))
    gateway = Gateway({"main": Offer(store, ("proxy-*",))})
    server = LinkServer(
        gateway.methods, fleet.kept("vault", bundle.certificate, bundle.key), host=HERE, port=0, limits=Limits()
    )
    server.start()
    tried: list[str] = []
    connect = socket.create_connection

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        addresses = (SILENT, HERE) if host == NAME else (host,)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def noted(place: tuple[str, int], **keys: Any) -> socket.socket:
        tried.append(place[0])
        return connect(place, **keys)

    with monkeypatch.context() as patched:
        patched.setattr("proxy_worker.link.networks.socket.getaddrinfo", resolve)
        patched.setattr("proxy_worker.link.networks.socket.create_connection", noted)
        try:
            far = RemoteStore(
                f"proxyfleet://{NAME}:{server.port}/main",
                fleet.identity("proxy-1"),
                patience=QUICK,
                networks=networks,
            )
            assert far.put_if_absent("readers/1", [b"content"])
        finally:
            server.stop(0)

    assert store.get("readers/1") == b"content"
    assert tried == ([HERE] if networks == ("127.0.0.1/32",) else [SILENT, HERE])
