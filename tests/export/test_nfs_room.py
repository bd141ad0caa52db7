"""How much of the server's memory its clients may take, and what is left to each of them whatever the others do."""

from __future__ import annotations

import ipaddress
import struct
import threading

from proxy_worker.export.nfs.protocol import NFS
from proxy_worker.export.nfs.room import IN_COMMON, Place, Room
from proxy_worker.export.nfs.server import MOST_CLIENTS, NfsServer, listen
from proxy_worker.export.nfs.xdr import Writing
from tests.export.nfs_client import Client

LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)
_DEADLINE_S = 120.0


def taken(place: Place) -> int:
    """How many requests of a client there is room for."""
    count = 0
    while place.enter(timeout_s=0):
        count += 1
    return count


def test_all_clients_together_have_little_more_room_than_one_each() -> None:
    room = Room()
    places = [Place(room) for _ in range(MOST_CLIENTS)]

    assert [taken(place) for place in places] == [32, 32, 3] + [1] * (MOST_CLIENTS - 3)
    assert IN_COMMON + MOST_CLIENTS == 128, "of a mebibyte each, and their answers"


def test_what_one_is_done_with_is_there_for_who_waits() -> None:
    room = Room(in_common=1)
    greedy, waiting = Place(room), Place(room)
    assert (taken(greedy), taken(waiting)) == (2, 1)
    entered = threading.Event()
    thread = threading.Thread(target=lambda: waiting.enter(_DEADLINE_S) and entered.set())
    thread.start()
    greedy.leave()
    assert entered.wait(_DEADLINE_S)
    thread.join()
    assert taken(greedy) == 0, "it has its own, and what is common is the other's"
    greedy.leave()
    waiting.leave()
    assert taken(greedy) == 2


def test_clients_whose_requests_take_long_hold_up_nobody_and_are_answered_each() -> None:
    goes_on = threading.Event()

    def shares(_: bytes) -> None:
        assert goes_on.wait(_DEADLINE_S)

    server = NfsServer(shares, listen("127.0.0.1", 0), LOCAL)
    server.start()
    slow = [Client(server.port) for _ in range(4)]
    try:
        for client in slow:
            for _ in range(40):
                client.send(request(1, Writing().opaque(bytes(24))))
        with Client(server.port) as other:
            for _ in range(100):
                other.ask(NFS, 0, Writing())
        with Client(server.port) as gone:
            gone.link.sendall(struct.pack(">I", 1000) + b"half")
        goes_on.set()
        for client in slow:
            client.link.settimeout(_DEADLINE_S)
            received = b""
            while len(received) < 40 * ANSWER:
                piece = client.link.recv(1 << 16)
                assert piece
                received += piece
            assert len(received) == 40 * ANSWER
    finally:
        goes_on.set()
        for client in slow:
            client.link.close()
        server.close()


ANSWER = 4 + 6 * 4 + 4
"""Bytes of the answer that a file isn't there any more."""


def request(procedure: int, arguments: Writing) -> bytes:
    return Writing().u32(1, 0, 2, NFS, 3, procedure, 0, 0, 0, 0).done() + arguments.done()
