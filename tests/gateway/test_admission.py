"""Who gets in: certified peers of the right role whose certificates still count, at both ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from proxy_worker.link.errors import LinkCertificateError, LinkRefusedError, LinkUnavailableError
from proxy_worker.link.identity import Identity
from proxy_worker.link.messages import SERVICE, Put, Stat, encoded
from proxy_worker.link.server import Limits
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.unlocking import open_store
from scheduler.pki.certificates import Role
from tests.gateway.serving import Fleet, Served, bare_ask, bare_channel, serving
from tests.system.live_fleet import wait_until

STAT = encoded(Stat("main", "config/1"))


def test_a_peer_without_a_certificate_is_refused_before_it_says_a_word(served: Served) -> None:
    with bare_channel(served, None) as channel, pytest.raises(grpc.RpcError) as refused:
        bare_ask(channel, "Stat", STAT)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined] # also a `grpc.Call`


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda fleet: fleet.expired("proxy-2"), "expired"),
        (lambda fleet: fleet.identity("flower-1", Role.FLOWER), "role flower"),
        (lambda fleet: Fleet.made(fleet.folder / "another").identity("proxy-1"), "certificate"),
    ],
    ids=["expired", "another role", "another fleet"],
)
def test_certificates_that_do_not_count_are_refused_by_name(
    served: Served, made: Callable[[Fleet], Identity], why: str
) -> None:
    with pytest.raises(LinkCertificateError, match=why):
        served.store(made(served.fleet)).exists("config/1")


def test_a_revoked_certificate_is_refused_also_on_a_connection_that_it_had(served: Served) -> None:
    store = served.store()
    assert not store.exists("config/1")

    served.fleet.revoke("proxy-1")

    with pytest.raises(LinkCertificateError, match=r"proxy-1 was revoked.*scheduler pki"):
        store.exists("config/1")
    with pytest.raises(LinkCertificateError, match="proxy-1 was revoked"):
        served.store().exists("config/1")


def test_a_proxy_finds_out_that_the_gateway_is_none_or_was_revoked(tmp_path: Path) -> None:
    fleet = Fleet.made(tmp_path / "fleet")
    with serving(fleet, {"main": LocalStore(tmp_path)}) as served:
        fleet.revoke("vault")
        with pytest.raises(LinkCertificateError, match="revoked"):
            served.store().exists("config/1")
        # What runs there shows what its file holds now: of a proxy, which is no gateway.
        for suffix in (".pem", "-key.pem"):
            (fleet.folder / f"vault{suffix}").write_bytes((fleet.folder / f"proxy-1{suffix}").read_bytes())
        with pytest.raises(LinkCertificateError, match="role proxy, not a gateway's"):
            served.store().exists("config/1")


def test_a_repository_is_for_the_proxies_that_it_is_offered_to(served: Served) -> None:
    with pytest.raises(LinkRefusedError, match="replica-1 may not use repository 'main'"):
        served.store(served.fleet.identity("replica-1")).exists("config/1")
    with pytest.raises(LinkRefusedError, match="may not use repository 'other'"):
        served.store(name="other").exists("config/1")


def test_more_connections_than_allowed_are_closed_and_the_others_go_on(tmp_path: Path) -> None:
    fleet = Fleet.made(tmp_path / "fleet")
    with serving(fleet, {"main": LocalStore(tmp_path)}, limits=Limits(connections=2)) as served:
        channels = [bare_channel(served, served.proxy) for _ in range(2)]
        for channel in channels:
            bare_ask(channel, "Stat", STAT)
        with pytest.raises(LinkUnavailableError):
            served.store().exists("config/1")
        bare_ask(channels[0], "Stat", STAT)
        for channel in channels:
            channel.close()


def test_peers_that_take_all_they_may_leave_room_for_another(tmp_path: Path) -> None:
    fleet = Fleet.made(tmp_path / "fleet")
    peers = [fleet.identity(f"proxy-{number}") for number in (2, 3, 4)]
    with serving(fleet, {"main": LocalStore(tmp_path)}, limits=Limits(calls=6)) as served, ExitStack() as opened:
        channels = [opened.enter_context(bare_channel(served, peer)) for peer in peers]
        for channel, share in zip(channels[:2], (3, 2), strict=True):
            for _ in range(share):
                opened.enter_context(_call_under_way(channel, tmp_path / "tmp"))
            with pytest.raises(grpc.RpcError, match="too many calls under way"):
                bare_ask(channel, "Stat", STAT)
        assert bare_ask(channels[2], "Stat", STAT)


@contextmanager
def _call_under_way(channel: grpc.Channel, unnamed: Path) -> Iterator[None]:
    """A put that has begun and goes on until the end of the block."""
    ended = threading.Event()

    def half() -> Iterator[bytes]:
        yield encoded(Put("main", "packs/ab/one", 5))
        ended.wait()

    before = set(unnamed.glob("*"))
    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Put")
    under_way = call.future(half(), timeout=600)
    wait_until(lambda: set(unnamed.glob("*")) - before, "the gateway to write to a file")
    try:
        yield
    finally:
        ended.set()
        under_way.cancel()


@pytest.mark.parametrize("timeout_s", [None, 100_000])
def test_nobody_holds_a_place_for_ever(served: Served, timeout_s: float | None) -> None:
    with bare_channel(served, served.proxy) as channel, pytest.raises(grpc.RpcError, match="at most"):
        bare_ask(channel, "Stat", STAT, timeout_s=timeout_s)


def test_commands_without_a_certificate_are_told_where_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXYFLEET_CERTIFICATE", raising=False)

    with pytest.raises(LinkCertificateError, match=r"PROXYFLEET_CERTIFICATE.*scheduler pki issue"):
        open_store("proxyfleet://127.0.0.1/main")


def test_a_gateway_that_never_answered_is_not_waited_for_long(served: Served) -> None:
    with pytest.raises(LinkUnavailableError, match=r"refused.*proxy-worker serve"):
        served.store(port=1).exists("config/1")
