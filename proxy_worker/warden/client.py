"""The gateway's end of the warden's socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ProxyfleetError, StoreError
from proxy_worker.link.messages import Refusal, decoded, encoded
from proxy_worker.repository.store import ObjectLockedError, ObjectNameError, ObjectNotFoundError
from proxy_worker.warden.messages import LARGEST_BYTES, NAMES_AT_ONCE, Answer, Ask, Verb
from proxy_worker.warden.rights import HardeningRefusedError

_ANSWER_S: Final = 60.0
_SWEPT_S: Final = 3600.0
"""A first sweep takes about a minute for each 100,000 objects; one that was given up goes on with what is left."""
_SWEEPING: Final = "it is going through the whole repository, to lock what isn't: its log says when it has"
_ERRORS: Final[dict[str, type[ProxyfleetError]]] = {
    kind.code(): kind for kind in (ObjectLockedError, ObjectNameError, ObjectNotFoundError)
}
"""What else it refuses with concerns nobody but who looks after it, and is a store's error to others."""


class WardenClient:
    """Asks the warden of one folder. Thread-safe; one question at a time.

    Every method raises `ConnectionError` while the warden is away, and what the warden refuses with. Whenever it is
    back, it is asked first to lock whatever isn't; that may take long, and who asks meanwhile is told so.
    """

    def __init__(self, place: Path, root: Path) -> None:
        """`place` is the warden's socket, `root` the folder that it must be looking after."""
        self._place = place
        self._root = root
        self._mutex = threading.Lock()
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        """Find out whether it is there; raises also `HardeningRefusedError` when it looks after another folder."""
        self._ask("left", ())

    def lock(self, name: str) -> None:
        """Lock an object, unless it is locked, or isn't there. What is refused is tried again before all else."""
        self._ask("lock", (name,))

    def renew(self, names: Iterable[str]) -> int:
        """Begin the terms of packs anew that are due; how many were. What isn't there is left out."""
        return sum(self._ask("renew", some).count for some in _some(names))

    def keep(self) -> None:
        """Tell it that the upkeep has renewed all packs that restore points need."""
        self._ask("keep", ())

    @property
    def overdue(self) -> bool:
        """Whether the upkeep should have by now."""
        return self._ask("left", ()).overdue

    def release(self, name: str) -> None:
        """Let go of an object; raises `ObjectLockedError` while its term lasts."""
        self._ask("release", (name,))

    def left_s(self, names: Iterable[str]) -> Iterator[float]:
        """What is left of objects' terms, in seconds; 0 for those that aren't locked or aren't there."""
        for some in _some(names):
            yield from self._ask("left", some).left_s

    def _ask(self, verb: Verb, names: tuple[str, ...]) -> Answer:
        question = encoded(Ask(verb, names))
        if not self._mutex.acquire(timeout=_ANSWER_S):
            raise self._away(_SWEEPING)
        try:
            was_connected = self._wire is not None
            try:
                answer = self._exchanged(question)
            except OSError:
                if not was_connected:
                    raise
                answer = self._exchanged(question)  # it was started anew meanwhile
            if verb == "lock" and answer.refusal:
                self._drop()  # the next question comes after a sweep
        finally:
            self._mutex.release()
        _raise(answer.refusal)
        return answer

    def _exchanged(self, question: bytes) -> Answer:
        try:
            if self._wire is None:
                self._wire = self._connected()
            return _exchange(self._wire, question)
        except OSError as error:
            self._drop()
            raise self._away(error.strerror or str(error)) from error

    def _away(self, why: str) -> ConnectionError:
        return ConnectionError(f"the warden doesn't answer at {self._place}: {why}")

    def _connected(self) -> socket.socket:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.settimeout(_SWEPT_S)
        try:
            try:
                wire.connect(str(self._place))
                found = _exchange(wire, encoded(Ask("sweep")))
            except TimeoutError as error:
                raise TimeoutError(_SWEEPING) from error
            _raise(found.refusal)
            self._require_same(found.folder)
            wire.settimeout(_ANSWER_S)
        except BaseException:
            wire.close()
            raise
        return wire

    def _require_same(self, folder: tuple[int, int]) -> None:
        own = self._root.stat()
        if folder != (own.st_dev, own.st_ino):
            raise HardeningRefusedError(
                f"warden at {self._place}", why=f"it looks after another folder than {self._root}"
            )

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def _exchange(wire: socket.socket, question: bytes) -> Answer:
    wire.sendall(question)
    answer = wire.recv(LARGEST_BYTES)
    if not answer:
        raise ConnectionResetError("it went away")
    return decoded(answer, Answer)


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        kind = _ERRORS.get(refusal.code, StoreError)
        raise kind(refusal.what, why=refusal.why, remedy=refusal.remedy)


def _some(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(names)
    while some := tuple(islice(left, NAMES_AT_ONCE)):
        yield some
