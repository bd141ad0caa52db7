"""Connect to an NBD server and agree on what is spoken."""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proxy_worker.contract.errors import SourceError
from proxy_worker.transport.nbd.uri import NbdUri

CONNECT_TIMEOUT_S: Final = 15.0
_GREETING: Final = b"NBDMAGICIHAVEOPT"
_OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
_ACK: Final = 1
_INFO: Final = 3
_INFO_EXPORT: Final = 0
_INFO_BLOCK_SIZE: Final = 3
_META_CONTEXT: Final = 4
_LONGEST_REPLY: Final = 1 << 16
_DEFAULT_LONGEST_READ: Final = 32 << 20
_LARGEST_DISK: Final = 1 << 62
ALLOCATION: Final = b"base:allocation"


class Option(IntEnum):
    """What a client may ask before transmission."""

    ABORT = 2
    STARTTLS = 5
    GO = 7
    STRUCTURED_REPLY = 8
    SET_META_CONTEXT = 10


_REFUSALS: Final = {
    1: "it doesn't support that",
    2: "its policy forbids it",
    3: "it calls the request invalid",
    4: "its platform doesn't support that",
    5: "it wants TLS: use nbds",
    6: "it has no such export",
    7: "it is shutting down",
    8: "it wants to tell its block size",
    9: "it calls the request too big",
}


class NbdConnectError(SourceError):
    """No connection to an NBD server, or none that this client can use."""


class NbdRefusedError(NbdConnectError):
    """The server refuses what was asked, e.g. because it has no such export."""

    retryable = False


@dataclass(frozen=True)
class Export:
    """What server and client agreed on."""

    size_bytes: int
    flags: int
    structured: bool
    allocation_id: int | None
    """The number of the context `base:allocation`, if the server tells what is allocated."""
    smallest_read: int
    """Reads begin and end at multiples of this."""
    longest_read: int

    @property
    def read_only(self) -> bool:
        """Whether the server refuses to write."""
        return bool(self.flags & 1 << 1)

    @property
    def flushes(self) -> bool:
        """Whether the server makes durable what was written when it is asked to."""
        return bool(self.flags & 1 << 2)

    @property
    def zeroes(self) -> bool:
        """Whether the server zeroes ranges without being sent the zeros."""
        return bool(self.flags & 1 << 6)

    @property
    def many_connections(self) -> bool:
        """Whether the server says that several connections see one disk."""
        return bool(self.flags & 1 << 8)


def connect(uri: NbdUri, *, timeout_s: float, to_write: bool = False) -> tuple[socket.socket, Export]:
    """Connect to a server and select the export; every step of it may take `timeout_s`.

    A connection `to_write` gets simple replies only, as servers may mix them with others otherwise. Raises
    NbdConnectError.
    """
    try:
        link = _dial(uri, timeout_s)
    except OSError as error:
        raise NbdConnectError(
            f"can't connect to {uri}", why=_reason(error, timeout_s), remedy="Is the NBD server up?"
        ) from error
    try:
        return _Handshake(uri, link).run(structured=not to_write)
    except BaseException as error:
        link.close()
        if isinstance(error, OSError | EOFError | ValueError | struct.error):
            why = str(error) or "the server closed the connection"
            raise NbdConnectError(f"{uri} doesn't answer as an NBD server does", why=why) from error
        raise


def _dial(uri: NbdUri, timeout_s: float) -> socket.socket:
    if uri.socket_path:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(timeout_s)
        try:
            link.connect(uri.socket_path)
        except BaseException:
            link.close()
            raise
        return link
    link = socket.create_connection((uri.host, uri.port), timeout_s)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return link


def _reason(error: OSError, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:.0f} s"
    return error.strerror or str(error)


class _Handshake:
    """One negotiation. Raises OSError, EOFError and ValueError, which `connect` puts into words."""

    def __init__(self, uri: NbdUri, link: socket.socket) -> None:
        self._uri = uri
        self._link = link

    def run(self, *, structured: bool) -> tuple[socket.socket, Export]:
        if self._receive(16) != _GREETING:
            raise ValueError("its greeting isn't that of a newstyle NBD server")
        (flags,) = struct.unpack(">H", self._receive(2))
        if not flags & 1:
            raise ValueError("it doesn't speak the fixed newstyle protocol")
        self._link.sendall(struct.pack(">I", flags & 3))
        if self._uri.tls:
            self._start_tls()
        structured = structured and self._simple_option(Option.STRUCTURED_REPLY)
        allocation_id = self._select_allocation() if structured else None
        return self._link, self._go(structured, allocation_id)

    def _start_tls(self) -> None:
        if not self._simple_option(Option.STARTTLS):
            raise NbdRefusedError(
                f"can't read {self._uri}", why="the server doesn't offer TLS", remedy="Use nbd://."
            )
        folder = self._uri.tls_certificates
        try:
            context = ssl.create_default_context(cafile=str(folder / "ca-cert.pem") if folder else None)
            if folder and (folder / "client-cert.pem").exists():
                context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
        except OSError as error:
            raise NbdConnectError(
                f"can't connect to {self._uri}", why=f"certificates in {folder}: {error}"
            ) from error
        try:
            self._link = context.wrap_socket(self._link, server_hostname=self._uri.tls_hostname)
        except ssl.SSLError as error:
            raise NbdRefusedError(
                f"can't connect to {self._uri} by TLS",
                why=getattr(error, "verify_message", "") or str(error),
                remedy="Give the folder of the CA's ca-cert.pem as ?tls-certificates=FOLDER.",
            ) from error

    def _simple_option(self, option: Option) -> bool:
        """Ask for something without parameters; whether the server agrees."""
        self._send_option(option, b"")
        kind, _ = self._receive_reply(option)
        return kind == _ACK

    def _select_allocation(self) -> int | None:
        """Ask to be told what is allocated; the number under which it will be told."""
        name = self._uri.export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(ALLOCATION)) + ALLOCATION
        self._send_option(Option.SET_META_CONTEXT, data)
        found: int | None = None
        while True:
            kind, reply = self._receive_reply(Option.SET_META_CONTEXT)
            if kind == _META_CONTEXT and reply[4:] == ALLOCATION:
                (found,) = struct.unpack_from(">I", reply)
            elif kind != _META_CONTEXT:
                return found if kind == _ACK else None

    def _go(self, structured: bool, allocation_id: int | None) -> Export:
        name = self._uri.export.encode()
        # One information request: block sizes. Size and flags of the export come unasked.
        self._send_option(Option.GO, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, _INFO_BLOCK_SIZE))
        size, flags, smallest, longest = -1, 0, 1, _DEFAULT_LONGEST_READ
        while True:
            kind, reply = self._receive_reply(Option.GO)
            if kind == _ACK:
                break
            if kind != _INFO:
                raise self._refused(kind, reply)
            (topic,) = struct.unpack_from(">H", reply)
            if topic == _INFO_EXPORT:
                size, flags = struct.unpack_from(">QH", reply, 2)
            elif topic == _INFO_BLOCK_SIZE:
                smallest, _, longest = struct.unpack_from(">III", reply, 2)
        if not 0 <= size <= _LARGEST_DISK:
            raise ValueError(f"it claims a disk of {size} bytes")
        if smallest == 0 or smallest & smallest - 1 or smallest > 1 << 16 or longest < smallest:
            raise ValueError(f"it claims blocks of {smallest} to {longest} bytes")
        return Export(size, flags, structured, allocation_id, smallest, longest - longest % smallest)

    def _refused(self, kind: int, reply: bytes) -> NbdRefusedError:
        reason = _REFUSALS.get(kind & 0x7FFFFFFF, f"refusal {kind:#x}")
        words = reply.decode("utf-8", "replace").strip()
        return NbdRefusedError(
            f"can't read {self._uri}", why=f"the server refuses: {reason}" + (f" ({words})" if words else "")
        )

    def _send_option(self, option: Option, data: bytes) -> None:
        self._link.sendall(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)

    def _receive_reply(self, option: Option) -> tuple[int, bytes]:
        magic, answered, kind, length = struct.unpack(">QIII", self._receive(20))
        if magic != _OPTION_REPLY_MAGIC or answered != option or length > _LONGEST_REPLY:
            raise ValueError(f"its reply to option {option.name} is malformed")
        return kind, self._receive(length)

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self._link.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)
