"""What the gateway's end of the socket says of a warden that takes long."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_worker.link.messages import decoded, encoded
from proxy_worker.warden import client as module
from proxy_worker.warden.client import WardenClient
from proxy_worker.warden.messages import LARGEST_BYTES, Answer, Ask

_GOING_ON = "it is going through the whole repository"


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(place / "socket"))
        made.listen()
        yield made


@pytest.fixture
def client(listener: socket.socket, root: Path) -> WardenClient:
    return WardenClient(Path(listener.getsockname()), root)


def test_one_that_does_not_come_to_an_end_is_not_waited_for_for_ever(
    client: WardenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SWEPT_S", 0.01)
    with pytest.raises(ConnectionError, match=_GOING_ON):
        client.connect()


def test_who_asks_while_it_goes_through_all_is_told_so(
    client: WardenClient, listener: socket.socket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.connect)
        wire, _ = listener.accept()
        with wire:
            assert decoded(wire.recv(LARGEST_BYTES), Ask).verb == "sweep"
            with monkeypatch.context() as impatient:
                impatient.setattr(module, "_ANSWER_S", 0.01)
                with pytest.raises(ConnectionError, match=_GOING_ON):
                    client.lock("points/vm/run")

            found = root.stat()
            answer = encoded(Answer(folder=(found.st_dev, found.st_ino)))
            for _ in range(2):
                wire.sendall(answer)
            first.result()
