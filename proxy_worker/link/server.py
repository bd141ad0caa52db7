"""A gRPC server that speaks to certified peers only, with bounds on all that it holds for them.

Certificates are verified by TLS; roles, expiry and revocation at every call, so that a connection doesn't outlive
what it was opened with. Memory: a message or two for each call under way, and HTTP/2's windows.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are told where they are handled, not by the library

import grpc
import msgspec

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.link.admission import Admission, Peer, PeerRefusedError
from proxy_worker.link.certificates import ShownCertificates
from proxy_worker.link.errors import LinkRefusedError
from proxy_worker.link.frames import OPTIONS, FrameError
from proxy_worker.link.identity import Identity
from proxy_worker.link.messages import LONGEST_CALL_S, SERVICE, Refusal
from proxy_worker.link.silence import LONGEST_SILENCE_S, Crossing, SilenceWatch
from proxy_worker.program.listening import ListenError

log = logging.getLogger(__name__)

_KEEPALIVE_MS: Final = 30_000
_LARGEST_HEADERS_BYTES: Final = 16 << 10

Answer = Callable[[Peer, bytes], bytes]
AnswerStream = Callable[[Peer, bytes], Iterator[bytes]]
Receive = Callable[[Peer, Iterator[bytes]], bytes]


@dataclass(frozen=True)
class Limits:
    """What a server holds at most."""

    connections: int = 256
    calls: int = 64
    """At the same time, by all peers."""
    calls_per_peer: int = 32
    handshake_s: float = 10.0
    idle_connection_s: float = 300.0
    silence_s: float = LONGEST_SILENCE_S
    """How long nothing may cross in a call that moves bulk data."""


@dataclass(frozen=True)
class Methods:
    """What a server does, by the methods' names."""

    answer: Mapping[str, Answer] = field(default_factory=dict)
    answer_stream: Mapping[str, AnswerStream] = field(default_factory=dict)
    receive: Mapping[str, Receive] = field(default_factory=dict)


class LinkServer:
    """Serves from `start` until `stop`."""

    def __init__(self, methods: Methods, identity: Identity, *, host: str, port: int, limits: Limits) -> None:
        """Raises `LinkCertificateError`, `ListenError`."""
        self._door = _Door(Admission(identity.ca_file), limits)
        self._threads = ThreadPoolExecutor(limits.calls, thread_name_prefix="link")
        self._server = grpc.server(
            self._threads,
            maximum_concurrent_rpcs=limits.calls,
            options=[
                ("grpc.so_reuseport", 0),
                *OPTIONS,
                ("grpc.max_metadata_size", _LARGEST_HEADERS_BYTES),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.max_concurrent_streams", limits.calls_per_peer),
                ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
                ("grpc.max_connection_idle_ms", int(limits.idle_connection_s * 1000)),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 3),
            ],
        )
        door = self._door
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            **{name: grpc.unary_unary_rpc_method_handler(door.answer(of)) for name, of in methods.answer.items()},
            **{
                name: grpc.unary_stream_rpc_method_handler(door.answer_stream(of))
                for name, of in methods.answer_stream.items()
            },
            **{
                name: grpc.stream_unary_rpc_method_handler(door.receive(of)) for name, of in methods.receive.items()
            },
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_secure_port(where, ShownCertificates(identity).credentials)
        except RuntimeError as error:
            raise ListenError(
                f"can't listen on {where}",
                why="the port is taken, or the address is none of this machine's",
                remedy="Set `host` and `port` to others.",
            ) from error

    def start(self) -> None:
        """Answer calls, in threads of its own."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those under way this long."""
        self._server.stop(grace_s).wait()
        self._threads.shutdown()


class _Door:
    """Lets calls in: of good peers, with a time limit, not too many of one; and tells errors."""

    def __init__(self, admission: Admission, limits: Limits) -> None:
        self._admission = admission
        self._limits = limits
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._silence = SilenceWatch(limits.silence_s)

    def answer(self, method: Answer) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            with self._call(context) as peer:
                remaining_s = context.time_remaining()
                if remaining_s is None or remaining_s > LONGEST_CALL_S + 1:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a call takes {LONGEST_CALL_S:.0f} s at most")
                return method(peer, request)

        return handle

    def answer_stream(self, method: AnswerStream) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def handle(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._call(context) as peer, self._silence.over(Crossing(), context.cancel) as crossing:
                yield from crossing.each(method(peer, request))

        return handle

    def receive(self, method: Receive) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with self._call(context) as peer, self._silence.over(Crossing(), context.cancel) as crossing:
                return method(peer, crossing.each(requests))

        return handle

    def _share_of(self, name: str) -> int:
        """How many calls a peer may have: as many as each other one at work, and as one that may yet come."""
        others = len(self._calls.keys() - {name})
        return max(1, min(self._limits.calls_per_peer, self._limits.calls // (others + 2)))

    @contextmanager
    def _call(self, context: grpc.ServicerContext) -> Iterator[Peer]:
        try:
            peer = self._admission.admitted(bytes(context.auth_context()["x509_pem_cert"][0]))
        except PeerRefusedError as error:
            log.warning("refused %s: %s", context.peer(), error)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except OSError as error:  # the authority's file, e.g. while it is replaced
            log.warning("can't tell who %s is: %s", context.peer(), error)
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        with self._lock:
            busy = self._calls[peer.name] >= self._share_of(peer.name)
            if not busy:
                self._calls[peer.name] += 1
        if busy:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{peer.name} has too many calls under way")
        try:
            yield peer
        except LinkRefusedError as error:
            log.warning("refused %s: %s", peer.name, error)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, _refusal(error))
        except ProxyfleetError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, _refusal(error))
        except FrameError as error:
            context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no message of this version: {error}")
        except OSError as error:
            log.warning("%s of %s failed: %s", context.peer(), peer.name, error)
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            with self._lock:
                self._calls[peer.name] -= 1
                self._calls += Counter()  # drops those at zero


def _refusal(error: ProxyfleetError) -> str:
    return msgspec.json.encode(Refusal.of(error)).decode()
