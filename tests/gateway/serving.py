"""A gateway in this process, and certificates of a fleet's authority for whoever calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from proxy_worker.gateway.service import Gateway, Offer
from proxy_worker.link.client import Patience
from proxy_worker.link.identity import Identity
from proxy_worker.link.messages import SERVICE
from proxy_worker.link.server import Limits, LinkServer
from proxy_worker.repository.store import Store
from proxy_worker.repository.store.remote import RemoteStore
from scheduler.pki.authority import Authority
from scheduler.pki.certificates import Peer, Role, certify, key_pem, now_utc

HERE = "127.0.0.1"
QUICK = Patience(first_pause_s=0.05, longest_pause_s=0.2, in_all_s=120, first_contact_s=0.2)
"""As patient as a machine under load may need, without pauses that a test would wait for."""


@dataclass(frozen=True)
class Fleet:
    """An authority, and a folder for what it issues."""

    folder: Path
    authority: Authority

    @classmethod
    def made(cls, folder: Path) -> Fleet:
        folder.mkdir(exist_ok=True)
        return cls(folder, Authority.make(folder / "pki", name="a fleet"))

    def identity(self, name: str, role: Role = Role.PROXY) -> Identity:
        """A new certificate, valid for a year."""
        bundle = self.authority.issue(Peer(name, role, None, (HERE,)))
        return self.kept(name, bundle.certificate, bundle.key)

    def expired(self, name: str, role: Role = Role.PROXY) -> Identity:
        """One that was valid until yesterday."""
        yesterday = now_utc() - timedelta(days=1)
        authority_key = load_pem_private_key((self.authority.folder / "ca.key").read_bytes(), password=None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        peer = Peer(name, role, None, (HERE,))
        key, certificate = certify(
            peer, self.authority.certificate, authority_key, yesterday, yesterday - timedelta(days=1)
        )
        return self.kept(name, certificate.public_bytes(Encoding.PEM), key_pem(key))

    def revoke(self, name: str) -> None:
        """Revoke one; everybody hears of it."""
        self.authority.revoke(name)
        (self.folder / "ca.pem").write_bytes(self.authority.trust)

    def kept(self, name: str, certificate: bytes, key: bytes) -> Identity:
        """A certificate as files."""
        (self.folder / f"{name}.pem").write_bytes(certificate)
        (self.folder / f"{name}-key.pem").write_bytes(key)
        (self.folder / "ca.pem").write_bytes(self.authority.trust)
        return Identity.beside(self.folder / f"{name}.pem")


@dataclass(frozen=True)
class Served:
    """A gateway that runs."""

    fleet: Fleet
    port: int
    proxy: Identity
    keeper: Identity
    """The gateway's own certificate, which may delete."""

    def store(
        self, identity: Identity | None = None, *, name: str = "main", port: int | None = None
    ) -> RemoteStore:
        """The repository as a client has it, a proxy by default."""
        location = f"proxyfleet://{HERE}:{port or self.port}/{name}"
        return RemoteStore(location, identity or self.proxy, patience=QUICK)


@contextmanager
def serving(fleet: Fleet, offers: dict[str, Store], *, limits: Limits | None = None) -> Iterator[Served]:
    """Offer stores to all proxies until the end."""
    keeper = fleet.identity("vault", Role.GATEWAY)
    gateway = Gateway({name: Offer(store, ("proxy-*",)) for name, store in offers.items()})
    server = LinkServer(gateway.methods, keeper, host=HERE, port=0, limits=limits or Limits())
    server.start()
    try:
        yield Served(fleet, server.port, fleet.identity("proxy-1"), keeper)
    finally:
        server.stop(0)


def bare_channel(served: Served, identity: Identity | None) -> grpc.Channel:
    """A connection of somebody who speaks gRPC and is bound by nothing else."""
    key, certificate = (identity.key.read_bytes(), identity.certificate.read_bytes()) if identity else (None, None)
    authority = (served.fleet.folder / "ca.pem").read_bytes()
    return grpc.secure_channel(f"{HERE}:{served.port}", grpc.ssl_channel_credentials(authority, key, certificate))


def bare_put(channel: grpc.Channel, *messages: bytes, timeout_s: float | None = 60) -> bytes:
    """A put of exactly these messages."""
    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Put")
    return call(iter(messages), timeout=timeout_s)


def bare_ask(channel: grpc.Channel, method: str, message: bytes, *, timeout_s: float | None = 60) -> bytes:
    """A call with one message."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{method}")
    return call(message, timeout=timeout_s)
