"""The NBD client against nbdkit and qemu-nbd."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import Extent
from proxy_worker.transport.nbd import connection as nbd_connection
from proxy_worker.transport.nbd.connection import NbdConnection
from proxy_worker.transport.nbd.handshake import Export, NbdConnectError, NbdRefusedError
from proxy_worker.transport.nbd.source import NbdSource
from proxy_worker.transport.nbd.uri import NbdUriError, parse_uri
from proxy_worker.transport.source import ConnectionLostError, DiskSource, DiskUnreadableError

from .certificates import make_certificates
from .conftest import DEADLINE_S, KIB, MIB, NbdKit, free_port, read_all, wait_for

Start = Callable[..., NbdKit]
NEVER_S = 300
"""Longer than any of these tests waits: what ends before isn't ended by a time that has passed."""


def open_uri(uri: str) -> NbdSource:
    return NbdSource(parse_uri(uri), reason="test")


def read(source: DiskSource, offset: int, length: int) -> bytes:
    data = bytearray(length)
    source.read_into(offset, memoryview(data))
    return bytes(data)


def test_reads_the_bytes_of_an_export(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    with open_uri(nbdkit("file", str(raw_image)).uri) as source:
        assert isinstance(source, DiskSource)
        assert source.size_bytes == len(content)
        assert read(source, 0, len(content)) == content
        assert read_all(source) == content


def test_lists_what_is_allocated_within_the_range_asked_for(nbdkit: Start) -> None:
    server = nbdkit("data", "size=8M", f"data=@{2 * MIB} 1 @{3 * MIB} 2")
    with open_uri(server.uri) as source:
        found = list(source.allocated(0, source.size_bytes))
        assert 0 < sum(extent.length for extent in found) < source.size_bytes
        assert all(any(e.offset <= at < e.offset + e.length for e in found) for at in (2 * MIB, 3 * MIB))
        assert list(source.allocated(2 * MIB + 5, 10)) == []
        assert list(source.allocated(2 * MIB - 5, 10)) == [Extent(offset=2 * MIB, length=5)]
        assert list(source.allocated(6 * MIB, MIB)) == []
        assert list(source.allocated(0, 0)) == []


def test_a_server_without_block_status_may_have_data_everywhere(nbdkit: Start) -> None:
    with open_uri(nbdkit("--no-sr", "memory", "3M").uri) as source:
        assert list(source.allocated(MIB, MIB)) == [Extent(offset=MIB, length=MIB)]
        assert read(source, 0, 3 * MIB) == bytes(3 * MIB)


def test_simple_replies_serve_as_well(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    with open_uri(nbdkit("--no-sr", "file", str(raw_image)).uri) as source:
        assert read_all(source) == content


def test_ranges_that_are_not_multiples_of_the_servers_block_are_read(
    nbdkit: Start, raw_image: Path, content: bytes
) -> None:
    policy = (
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=1M",
        "blocksize-error-policy=error",
    )
    server = nbdkit("--filter=blocksize-policy", "file", str(raw_image), *policy)
    with open_uri(server.uri) as source:
        assert read(source, 511, 3 * MIB) == content[511 : 511 + 3 * MIB]
        assert read(source, len(content) - 3, 3) == content[-3:]


@pytest.mark.parametrize(
    "filters", [(), ("--filter=noparallel",), ("--filter=multi-conn", "multi-conn-mode=disable")]
)
def test_many_threads_read_at_once(
    nbdkit: Start, raw_image: Path, content: bytes, filters: tuple[str, ...]
) -> None:
    names = [word for word in filters if word.startswith("--")]
    settings = [word for word in filters if not word.startswith("--")]
    with open_uri(nbdkit(*names, "file", str(raw_image), *settings).uri) as source:
        assert source.parallel_reads >= 2

        def check(start: int) -> bool:
            end = min(start + 300_000, len(content))
            return read(source, start, end - start) == content[start:end]

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(check, range(0, len(content), 100_000)))


def test_several_connections_where_the_server_allows(nbdkit: Start) -> None:
    with open_uri(nbdkit("memory", "1M").uri) as source:
        assert source.parallel_reads == 4
    with open_uri(nbdkit("--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable").uri) as source:
        assert source.parallel_reads == 2


def test_a_read_error_names_the_place_and_leaves_the_connection_usable(nbdkit: Start, tmp_path: Path) -> None:
    trigger = tmp_path / "fail"
    server = nbdkit(
        "--filter=error", "memory", "4M", "error-pread=EIO", "error-pread-rate=1", f"error-file={trigger}"
    )
    with open_uri(server.uri) as source:
        trigger.touch()
        with pytest.raises(DiskUnreadableError) as failure:
            read(source, 2 * MIB, MIB)
        trigger.unlink()
        assert failure.value.offset == 2 * MIB
        assert not isinstance(failure.value, ConnectionLostError)
        assert read(source, 0, 4 * MIB) == bytes(4 * MIB)


def test_a_server_that_dies_in_mid_read_is_an_error_at_once(nbdkit: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd_connection, "REPLY_TIMEOUT_S", NEVER_S)
    server = nbdkit("--filter=delay", "memory", "64M", f"delay-read={NEVER_S}")
    with open_uri(server.uri) as source, ThreadPoolExecutor(3) as threads:
        reads = [threads.submit(read, source, start * MIB, MIB) for start in range(3)]
        wait_for(lambda: sum(source._callers) == 3, "all three are waiting")
        server.kill()
        for future in reads:
            with pytest.raises(ConnectionLostError, match="lost nbd"):
                future.result(DEADLINE_S)
        with pytest.raises(ConnectionLostError):
            read(source, 0, 1)


def test_a_server_that_stops_answering_is_an_error_in_time(nbdkit: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd_connection, "REPLY_TIMEOUT_S", 1.0)
    server = nbdkit("--filter=delay", "memory", "1M", "delay-read=30")
    with open_uri(server.uri) as source, pytest.raises(ConnectionLostError, match="didn't answer"):
        read(source, 0, 4096)


def test_closing_ends_reads_that_hang(nbdkit: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd_connection, "REPLY_TIMEOUT_S", NEVER_S)
    server = nbdkit("--filter=delay", "memory", "1M", f"delay-read={NEVER_S}")
    source = open_uri(server.uri)
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(read, source, 0, 4096)
        wait_for(lambda: sum(source._callers) == 1, "it waits")
        source.close()
        source.close()
        with pytest.raises(DiskUnreadableError):
            hanging.result(DEADLINE_S)


def test_no_server_and_no_export_are_named(nbdkit: Start, tmp_path: Path) -> None:
    with pytest.raises(NbdConnectError, match="can't connect to nbd\\+unix"):
        open_uri(f"nbd+unix:///?socket={tmp_path}/none.sock")
    server = nbdkit("--filter=exportname", "memory", "1M", "exportname=web01", "exportname-strict=true")
    with open_uri(f"nbd+unix:///web01?socket={server.socket}") as source:
        assert source.size_bytes == MIB
    with pytest.raises(NbdRefusedError, match="no such export"):
        open_uri(f"nbd+unix:///web02?socket={server.socket}")


def test_tcp_works_as_a_unix_socket_does(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    with open_uri(nbdkit("file", str(raw_image), port=free_port()).uri) as source:
        assert read_all(source) == content


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder as nbdkit wants it: a CA and a server certificate for localhost."""
    folder = tmp_path / "pki"
    folder.mkdir()
    make_certificates(folder)
    return folder


def test_tls_with_a_given_ca(nbdkit: Start, raw_image: Path, content: bytes, certificates: Path) -> None:
    port = free_port()
    nbdkit("--tls=require", f"--tls-certificates={certificates}", "file", str(raw_image), port=port)
    uri = f"nbds://localhost:{port}?tls-certificates={certificates}"
    with open_uri(uri) as source, ThreadPoolExecutor(4) as threads:
        assert read_all(source) == content
        pieces = threads.map(lambda at: read(source, at, min(MIB, len(content) - at)), range(0, len(content), MIB))
        assert b"".join(pieces) == content


def test_tls_refuses_what_it_can_not_verify(nbdkit: Start, certificates: Path) -> None:
    port = free_port()
    nbdkit("--tls=require", f"--tls-certificates={certificates}", "memory", "1M", port=port)
    with pytest.raises(NbdRefusedError, match="by TLS"):
        open_uri(f"nbds://localhost:{port}")
    with pytest.raises(NbdRefusedError, match="by TLS"):
        open_uri(f"nbds://127.0.0.1:{port}?tls-certificates={certificates}&tls-hostname=other.example")
    with pytest.raises(NbdRefusedError, match="use nbds"):
        open_uri(f"nbd://localhost:{port}")
    plain = nbdkit("memory", "1M")
    with pytest.raises(NbdRefusedError, match="doesn't offer TLS"):
        open_uri(f"nbds+unix:///?socket={plain.socket}&tls-certificates={certificates}")
    with pytest.raises(NbdConnectError, match="certificates"):
        open_uri(f"nbds://localhost:{port}?tls-certificates=/nowhere")


class _Liar:
    """A server that says whatever it is given after the greeting."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                with link:
                    link.sendall(self._answer)

    def close(self) -> None:
        self._listener.close()


GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        GREETING[:-1],
        b"NBDMAGICIHAVEOPT\0\0",
        GREETING + bytes(20),
        GREETING + struct.pack(">QIII", 0x3E889045565A9, 8, 1, 1 << 31),
        GREETING
        + struct.pack(">QIII", 0x3E889045565A9, 8, 0x80000001, 0)
        + struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0),
    ],
)
def test_a_server_that_talks_nonsense_is_a_named_error(tmp_path: Path, answer: bytes) -> None:
    liar = _Liar(tmp_path / "liar.sock", answer)
    with pytest.raises(NbdConnectError, match="as an NBD server does"):
        open_uri(f"nbd+unix:///?socket={tmp_path}/liar.sock")
    liar.close()


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[NbdConnection]:
    """A connection to a server that says just this, and nothing more."""
    ours, theirs = socket.socketpair()
    export = Export(
        size_bytes=MIB, flags=0, structured=True, allocation_id=None, smallest_read=1, longest_read=32 * MIB
    )
    connection = NbdConnection(parse_uri("nbd://test"), ours, export)
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    yield connection
    connection.close()
    theirs.close()


def chunk(kind: int, payload: bytes, *, flags: int = 1, handle: int = 1) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, handle, len(payload)) + payload


def data(offset: int, length: int, *, flags: int = 1) -> bytes:
    return chunk(1, struct.pack(">Q", offset) + b"d" * length, flags=flags)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (data(4096, 99), "99 of 100 bytes"),
        (data(4096, 101), "weren't asked for"),
        (data(4095, 100), "weren't asked for"),
        (data(4096, 50, flags=0) + data(4140, 56), "a gap or an overlap"),
        (data(4096, 40, flags=0) + data(4146, 50), "a gap or an overlap"),
        (chunk(0, b""), "0 of 100 bytes"),
        (chunk(2, struct.pack(">QI", 4096, 1 << 31)), "weren't asked for"),
        (chunk(0, b"", handle=7), "isn't an answer"),
        (chunk(9, b""), "a chunk of kind 9"),
        (chunk(5, bytes(4)), "a chunk of kind 5"),
        (chunk(2, b"")[:-4] + b"\xff\xff\xff\xff", "announced a message"),
        (b"\0" * 20, "isn't an answer"),
        (data(4096, 100)[:60], "closed the connection"),
    ],
)
def test_an_answer_that_does_not_fit_its_read_is_never_taken_for_data(answer: bytes, words: str) -> None:
    with answering(answer) as connection, pytest.raises(ConnectionLostError, match=words):
        connection.read_into(4096, memoryview(bytearray(100)))


def test_pieces_of_an_answer_in_any_order_make_the_whole() -> None:
    view = bytearray(b"x" * 100)
    with answering(data(4136, 60, flags=0) + chunk(2, struct.pack(">QI", 4096, 40))) as connection:
        connection.read_into(4096, memoryview(view))
    assert view == bytes(40) + b"d" * 60


def test_what_is_not_allocated_reads_as_zeros(nbdkit: Start) -> None:
    with open_uri(nbdkit("sparse-random", "48M", "seed=7", "percent=20").uri) as source:
        found = list(source.allocated(0, source.size_bytes))
        assert 0 < sum(extent.length for extent in found) < source.size_bytes
        assert read_all(source) == read(source, 0, source.size_bytes)


def test_a_slow_server_is_waited_for(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    server = nbdkit("--filter=rate", "--filter=delay", "file", str(raw_image), "rate=100M", "delay-read=5ms")
    with open_uri(server.uri) as source:
        assert read_all(source, block=MIB) == content


@pytest.mark.parametrize(
    ("text", "export", "place"),
    [
        ("nbd://host", "", ("host", 10809)),
        ("nbd://host:10810/ds1/web%2001.vmdk", "ds1/web 01.vmdk", ("host", 10810)),
        ("nbd://[::1]/x", "x", ("::1", 10809)),
        ("nbds://host/x?tls-certificates=/etc/pki/nbd", "x", ("host", 10809)),
    ],
)
def test_uris_name_host_and_export(text: str, export: str, place: tuple[str, int]) -> None:
    uri = parse_uri(text)
    assert (uri.export, (uri.host, uri.port)) == (export, place)


@pytest.mark.parametrize(
    "text",
    [
        "http://x",
        "nbd:///x",
        "nbd+unix:///x",
        "nbd+unix://host/x?socket=/s",
        "nbd://h?socket=/s",
        "nbd://h:99999/",
        "nbd://h/?a=b",
    ],
)
def test_what_is_no_nbd_uri_is_named(text: str) -> None:
    with pytest.raises(NbdUriError, match="isn't an NBD URI"):
        parse_uri(text)


def test_small_pieces_in_odd_places(nbdkit: Start, raw_image: Path, content: bytes) -> None:
    with open_uri(nbdkit("file", str(raw_image)).uri) as source:
        for offset, length in ((0, 1), (3 * MIB - 1, 2), (len(content) - 1, 1), (7 * KIB, 5 * MIB + 3)):
            assert read(source, offset, length) == content[offset : offset + length]
        read(source, len(content), 0)
        with pytest.raises(DiskUnreadableError, match="it ends at"):
            read(source, len(content) - 1, 2)
