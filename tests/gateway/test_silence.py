"""Calls without a time limit end when nothing crosses any more, and only then; handshakes, too."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import grpc
import pytest

from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.link.client import Link, Patience
from proxy_worker.link.server import Limits
from proxy_worker.link.silence import Crossing, SilenceWatch
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from tests.gateway.serving import HERE, QUICK, Fleet, Served, serving
from tests.gateway.test_cut_links import Watched

POINT = "points/vm/run"


def test_a_silent_call_is_ended_and_one_that_moves_is_not() -> None:
    watch, ended = SilenceWatch(0.2), threading.Event()
    moves = Crossing()
    moves.heard_at_s = time.monotonic() + 3600
    with watch.over(moves, pytest.fail), watch.over(Crossing(), ended.set):
        assert ended.wait(120)


def test_a_message_is_heard_when_the_next_is_asked_for() -> None:
    crossing = Crossing()
    messages = crossing.each(iter([b"one", b"two"]))
    crossing.heard_at_s = 0.0
    assert next(messages) == b"one"
    assert crossing.heard_at_s == 0
    assert next(messages) == b"two"
    assert crossing.heard_at_s > 0


def test_a_gateway_that_says_nothing_is_asked_again(tmp_path: Path) -> None:
    folder, silent = Watched(tmp_path / "store"), threading.Event()
    folder.prepare()
    asked: list[str] = []

    def silent_at_first(name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            assert silent.wait(120)

    folder.in_the_middle, folder.afterwards = silent_at_first, lambda _: silent.set()
    patience = Patience(first_pause_s=0.05, longest_pause_s=0.2, in_all_s=120, longest_silence_s=0.5)
    with serving(Fleet.made(tmp_path / "fleet"), {"main": folder}) as served:
        store = RemoteStore(f"proxyfleet://{HERE}:{served.port}/main", served.proxy, patience=patience)
        assert not store.exists(POINT)
        assert store.put_if_absent(POINT, [b"a point"])
    assert len(asked) > 1


def test_an_error_of_ones_own_is_not_taken_for_a_cut(served: Served) -> None:
    link = Link(GatewayAddress(HERE, served.port, "main"), served.proxy, errors={}, patience=QUICK)

    def mistaken(_: grpc.Channel) -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        link.persist(mistaken)
    link.close()


def test_who_never_finishes_a_handshake_loses_the_place_and_the_others_go_on(tmp_path: Path) -> None:
    limits = Limits(connections=2, handshake_s=1)
    with (
        serving(Fleet.made(tmp_path / "fleet"), {"main": LocalStore(tmp_path)}, limits=limits) as served,
        socket.create_connection((HERE, served.port)) as silent,
        socket.create_connection((HERE, served.port)) as slow,
    ):
        slow.sendall(b"\x16\x03\x01\x02\x00")  # as TLS begins: the rest is announced and never comes
        for one in (silent, slow):
            one.settimeout(120)
            assert one.recv(1024) == b""
        assert not served.store().exists("config/1")
