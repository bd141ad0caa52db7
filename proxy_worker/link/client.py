"""Calls of another data mover: over several connections, again after a cut, with errors that say what to do."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are told where they are handled, not by the library

import grpc
import msgspec

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.gateway_address import GatewayAddress
from proxy_worker.link.errors import (
    LinkCertificateError,
    LinkProtocolError,
    LinkRefusedError,
    LinkUnavailableError,
)
from proxy_worker.link.frames import OPTIONS, FrameError, opened
from proxy_worker.link.identity import Identity
from proxy_worker.link.messages import SERVICE, M, Refusal, decoded, encoded
from proxy_worker.link.other_end import OtherEnd
from proxy_worker.link.silence import LONGEST_SILENCE_S, Crossing, SilenceWatch

T = TypeVar("T")

log = logging.getLogger(__name__)

_KEEPALIVE_MS: Final = 20_000
_LOOK_S: Final = 0.5
_LAST_S: Final = 5.0
"""How long a call may last yet when its link is given up."""
_ENDED: Final = "nothing has crossed for too long, or it was given up"
_TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.INTERNAL,
    }
)


@dataclass(frozen=True)
class Patience:
    """How long a call that a cut has ended is tried again: after pauses that double up to the longest."""

    first_pause_s: float = 0.5
    longest_pause_s: float = 15.0
    in_all_s: float = 1800.0
    first_contact_s: float = 3.0
    """For a mover that never has answered: somebody may be waiting at a terminal, with a wrong address."""
    longest_silence_s: float = LONGEST_SILENCE_S
    """For bulk data, which may take as long as it needs otherwise."""


class Link:
    """Connections to one data mover, opened when first used. Thread-safe."""

    def __init__(
        self,
        address: GatewayAddress,
        identity: Identity,
        *,
        errors: Mapping[str, type[ProxyfleetError]],
        streams: int = 5,
        patience: Patience | None = None,
        peer: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        """`errors`: what the other end's refusals become, by their codes. Connections: one for each stream.

        Where the host has several addresses, those in `networks` are tried first.

        `peer`: the name of the only proxy that may answer there, in the place of a gateway that has the address.
        """
        self.address = address
        self._networks = networks
        self._other = OtherEnd(address, peer)
        self._identity = identity
        self._errors = errors
        self._streams = streams
        self._patience = patience or Patience()
        self._silence = SilenceWatch(self._patience.longest_silence_s)
        self._lock = threading.Lock()
        self._channels: dict[grpc.Channel, int] = {}
        """With how many calls are under way on each."""
        self._met = False
        self._heard_s = 0.0
        self._given_up = False

    def ask(self, method: str, message: msgspec.Struct, answer: type[M], *, timeout_s: float) -> M:
        """A call with one message each way; raises what `persist` raises."""
        return self.persist(self.asked(method, message, answer, timeout_s=timeout_s))

    def asked(
        self, method: str, message: msgspec.Struct, answer: type[M], *, timeout_s: float
    ) -> Callable[[grpc.Channel], M]:
        """One attempt at such a call, for `persist`."""

        def step(channel: grpc.Channel) -> M:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_path(method))
            under_way = call.future(encoded(message), timeout=timeout_s)
            return decoded(self._awaited(under_way), answer)

        return step

    def send(
        self,
        method: str,
        message: msgspec.Struct,
        frames: Callable[[], Iterator[bytes]],
        answer: type[M],
        given_up: threading.Event | None = None,
    ) -> Callable[[grpc.Channel], M]:
        """One attempt to send a message and frames after it, for `persist`. It lasts as long as frames cross, and
        ends soon after it was given up."""

        def step(channel: grpc.Channel) -> M:
            call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_path(method))
            crossing = Crossing()
            under_way = call.future(crossing.each(itertools.chain([encoded(message)], frames())))
            with self._silence.over(crossing, under_way.cancel):
                return decoded(self._awaited(under_way, given_up), answer)

        return step

    def receive(self, method: str, message: msgspec.Struct) -> Callable[[grpc.Channel], Iterator[bytes]]:
        """One attempt at a call that is answered with many messages, for `persist`. It lasts while they come."""

        def step(channel: grpc.Channel) -> Iterator[bytes]:
            call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_path(method))
            answer = call(encoded(message))
            try:
                with self._silence.over(Crossing(), answer.cancel) as crossing:
                    yield from crossing.each(answer)
            finally:
                answer.cancel()  # one that isn't wanted to its end

        return step

    def persist(self, step: Callable[[grpc.Channel], T], given_up: threading.Event | None = None) -> T:
        """Take a step, again after whatever a cut may have caused, for as long as patience lasts or until given up.
        Patience begins with the first cut, and anew with each call that succeeds, also another thread's.

        Raises `LinkUnavailableError`, `LinkCertificateError`, `LinkRefusedError`, `LinkProtocolError`, and what the
        other end refuses with.
        """
        patience = self._patience
        began_s, cut_s = time.monotonic(), 0.0
        pause_s = patience.first_pause_s
        while True:
            try:
                done = self._take(step)
            except LinkUnavailableError as error:
                lasts_s = patience.in_all_s if self._met else patience.first_contact_s
                if not cut_s:
                    log.warning("%s; trying again for %.0f s", error, lasts_s)
                cut_s = cut_s or (time.monotonic() if self._met else began_s)
                if time.monotonic() + pause_s > max(cut_s, self._heard_s) + lasts_s:
                    raise
                if self._is_given_up(given_up, pause_s):
                    raise
            else:
                self._met = True
                self.heard()
                return done
            pause_s = min(pause_s * 2, patience.longest_pause_s)

    def heard(self) -> None:
        """A call has succeeded, or might have if it hadn't to keep still: patience begins anew."""
        self._heard_s = time.monotonic()

    def give_up(self) -> None:
        """Nothing is tried again from now on, and what is under way may last, or be silent, for some seconds yet.

        No lock is taken, for it may come from a signal's handler while the same thread waits here.
        """
        self._given_up = True
        self._silence.shorten(_LAST_S)

    def close(self) -> None:
        """End its connections; they are opened anew when it is used again."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels:
            channel.close()

    def _awaited(self, under_way: grpc.Future[bytes], given_up: threading.Event | None = None) -> bytes:
        """The answer to a call, which ends at once when it alone is given up, and soon when the link is."""
        ends_s = math.inf
        while True:
            with contextlib.suppress(grpc.FutureTimeoutError):
                return under_way.result(_LOOK_S)
            if self._given_up and ends_s == math.inf:
                ends_s = time.monotonic() + _LAST_S
            if time.monotonic() > ends_s or (given_up is not None and given_up.is_set()):
                under_way.cancel()

    def _is_given_up(self, given_up: threading.Event | None, pause_s: float) -> bool:
        """Wait for so long; True as soon as it needn't be tried again."""
        until_s = time.monotonic() + pause_s
        while not self._given_up and (left_s := until_s - time.monotonic()) > 0:
            if given_up is None:
                time.sleep(min(left_s, _LOOK_S))
            elif given_up.wait(min(left_s, _LOOK_S)):
                return True
        return self._given_up

    def _take(self, step: Callable[[grpc.Channel], T]) -> T:
        channel = self._channel()
        try:
            return step(channel)
        except FrameError as error:
            raise self._other.unavailable(str(error)) from error
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise LinkProtocolError(f"answer of {self.address.target}", why=str(error)) from error
        except grpc.FutureCancelledError as error:
            raise self._other.unavailable(_ENDED) from error
        except ValueError as error:
            if self._is_open(channel):
                raise
            # gRPC's word for a channel that another thread found broken, and closed.
            raise self._other.unavailable(str(error)) from error
        except grpc.RpcError as error:
            code, details = _status(error)
            if code is grpc.StatusCode.UNAVAILABLE:
                self._drop(channel)
            self._explain(code, details, error)
        finally:
            self._ended(channel)

    def _explain(self, code: grpc.StatusCode, details: str, error: grpc.RpcError) -> NoReturn:
        if code in _TRANSIENT:
            raise self._other.unavailable(_ENDED if code is grpc.StatusCode.CANCELLED else details) from error
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise LinkCertificateError(
                f"{self._other} refuses {self._identity.certificate}",
                why=details,
                remedy="Put a good one there: `scheduler pki renew` or `issue` makes it.",
            ) from error
        if code not in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED}:
            raise LinkProtocolError(
                str(self._other), why=details, remedy="Do both ends run the same version?"
            ) from error
        try:
            told = msgspec.json.decode(details, type=Refusal)
        except msgspec.DecodeError:
            raise LinkProtocolError(str(self._other), why=details) from error
        kind = LinkRefusedError if code is grpc.StatusCode.PERMISSION_DENIED else self._errors.get(told.code)
        raise (kind or LinkProtocolError)(told.what, why=told.why, remedy=told.remedy) from error

    def _channel(self) -> grpc.Channel:
        with self._lock:
            if not self._channels:
                found, place = self._other.met(self._identity, self._networks)
                self._channels = {self._opened(found, place): 0 for _ in range(self._streams)}
            # The first that is free: calls one after the other needn't wait for more connections to be made.
            channel = min(self._channels, key=self._channels.__getitem__)
            self._channels[channel] += 1
            return channel

    def _ended(self, channel: grpc.Channel) -> None:
        with self._lock:
            if channel in self._channels:
                self._channels[channel] -= 1

    def _is_open(self, channel: grpc.Channel) -> bool:
        with self._lock:
            return channel in self._channels

    def _drop(self, channel: grpc.Channel) -> None:
        with self._lock:
            if channel not in self._channels:
                return
            channels, self._channels = self._channels, {}
        for one in channels:
            one.close()

    def _opened(self, server_certificate: bytes, place: str) -> grpc.Channel:
        key, certificate, _ = self._identity.read()
        credentials = grpc.ssl_channel_credentials(server_certificate, key, certificate)
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
            *OPTIONS,
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.enable_retries", 0),
            ("grpc.ssl_target_name_override", self._other.server_name),
        ]
        return grpc.secure_channel(replace(self.address, host=place).target, credentials, options)


def payloads(frames: Iterable[bytes]) -> Iterator[memoryview]:
    """What frames carry; raises `FrameError`."""
    return map(opened, frames)


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"


def _status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or ""
    return grpc.StatusCode.UNAVAILABLE, str(error)
