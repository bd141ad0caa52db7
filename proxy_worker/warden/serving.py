"""The warden as a process: it gives up all rights but one, then answers whoever runs as the folder's owner."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.link.messages import Refusal, decoded, encoded
from proxy_worker.repository.store import ObjectLockedError
from proxy_worker.warden.fitness import require_immutability, require_kept_in_place, require_out_of_reach
from proxy_worker.warden.messages import LARGEST_BYTES, Answer, Ask
from proxy_worker.warden.register import Register
from proxy_worker.warden.rights import HardeningRefusedError, keep_immutability_alone
from proxy_worker.warden.terms import Terms
from proxy_worker.warden.warden import Warden

log = logging.getLogger(__name__)

_REGISTER: Final = "register.db"
_SAVED_EVERY_S: Final = 60.0
_ANSWER_S: Final = 10.0
_WAITING: Final = 8


@dataclass(frozen=True)
class Charge:
    """The one repository that a warden looks after."""

    root: Path
    period_s: float
    socket: Path
    state_dir: Path
    """Where the register is; nobody but the warden and root may look into it."""
    configuration: Path
    """The file that says all this."""


def serve(charge: Charge, *, ready: Callable[[], None]) -> None:
    """Look after a repository until SIGTERM or SIGINT.

    Raises `HardeningRefusedError` where the promise can't be kept, `RegisterError`.
    """
    owner = _owner_of(charge.root)
    require_out_of_reach(charge.configuration, owner)
    require_kept_in_place(charge.root, owner)
    if os.geteuid() == 0:
        charge.state_dir.parent.mkdir(parents=True, exist_ok=True)
        require_out_of_reach(charge.state_dir.parent, owner)
        charge.state_dir.mkdir(exist_ok=True)
        charge.state_dir.chmod(0o770)
    require_out_of_reach(charge.state_dir, owner, hidden=True)
    os.umask(0o077)
    with _listening(charge.socket, owner) as listener:
        keep_immutability_alone(owner, charge.state_dir.stat().st_gid)
        require_immutability(charge.root)
        with (
            closing(Register(charge.state_dir / _REGISTER)) as register,
            closing(Warden(charge.root, register, Terms(charge.period_s))) as warden,
        ):
            _answer_all(listener, warden, register, ready)


def _owner_of(root: Path) -> os.stat_result:
    try:
        owner = root.stat()
    except OSError as error:
        raise HardeningRefusedError(f"repository in {root}", why=error.strerror or str(error)) from error
    if owner.st_uid == 0:
        raise HardeningRefusedError(
            f"repository in {root} can't be hardened",
            why="the folder belongs to root, whom nothing that is immutable binds",
            remedy="Give it, and what is in it, to a user of its own, whom the gateway runs as.",
        )
    return owner


@contextmanager
def _listening(place: Path, owner: os.stat_result) -> Iterator[socket.socket]:
    """A socket that only the folder's owner, and root, can connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        try:
            require_out_of_reach(place.parent, owner)
            _require_none_there(place)
            listener.bind(str(place))
            if os.geteuid() == 0:
                os.chown(place, owner.st_uid, owner.st_gid, follow_symlinks=False)
            listener.listen(_WAITING)
        except OSError as error:
            raise HardeningRefusedError(
                f"warden's socket {place}",
                why=error.strerror or str(error),
                remedy="Does another warden run, and does its folder exist?",
            ) from error
        yield listener


def _require_none_there(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        try:
            other.connect(str(place))
        except OSError:
            place.unlink(missing_ok=True)
        else:
            raise FileExistsError("another warden answers there")


def _answer_all(listener: socket.socket, warden: Warden, register: Register, ready: Callable[[], None]) -> None:
    going_on = True

    def end(*_: object) -> None:
        nonlocal going_on
        going_on = False

    woken, waker = socket.socketpair()
    waker.setblocking(False)
    with selectors.DefaultSelector() as watched, woken, waker:
        signal.set_wakeup_fd(waker.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        watched.register(woken, selectors.EVENT_READ)
        watched.register(listener, selectors.EVENT_READ)
        ready()
        saved_at = time.monotonic()
        while going_on:
            for key, _ in watched.select(_SAVED_EVERY_S):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.settimeout(_ANSWER_S)
                    watched.register(connection, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and not (
                    key.fileobj is woken or _answer_one(key.fileobj, warden)
                ):
                    watched.unregister(key.fileobj)
                    key.fileobj.close()
            if time.monotonic() - saved_at >= _SAVED_EVERY_S:
                register.save()
                saved_at = time.monotonic()
        signal.set_wakeup_fd(-1)


def _answer_one(connection: socket.socket, warden: Warden) -> bool:
    """Answer a request; False when there was none, or nobody waits for the answer."""
    with suppress(OSError):
        asked = connection.recv(LARGEST_BYTES)
        if asked:
            connection.sendall(encoded(answer_to(asked, warden)))
            return True
    return False


def answer_to(asked: bytes, warden: Warden) -> Answer:
    """What is answered to a datagram, whatever that is."""
    try:
        return _done(decoded(asked, Ask), warden)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        return Answer(refusal=Refusal(StoreError.code(), "warden", f"no request of this version: {error}", ""))
    except ProxyfleetError as error:
        if not isinstance(error, ObjectLockedError):
            log.warning("%s", error)
        return Answer(refusal=Refusal.of(error))
    except OSError as error:
        log.warning("the repository's folder can't be read: %s", error)
        return Answer(refusal=Refusal(StoreError.code(), "warden", error.strerror or str(error), ""))


def _done(ask: Ask, warden: Warden) -> Answer:
    count = 0
    left_s: tuple[float, ...] = ()
    match ask.verb:
        case "sweep":
            count = warden.sweep()
            log.info("all is locked; objects that were not until now: %d", count)
        case "lock" | "renew":
            count = warden.lock(ask.names, renew=ask.verb == "renew")
        case "keep":
            warden.keep()
        case "release":
            for name in ask.names:
                warden.release(name)
        case "left":
            left_s = tuple(map(warden.left_s, ask.names))
    return Answer(count=count, left_s=left_s, overdue=warden.overdue, folder=warden.folder)
