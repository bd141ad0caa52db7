"""The postman: a thread of `scheduler serve` that empties the outbox. Who doesn't answer holds up nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.notifications import email, outbox, webhook
from scheduler.notifications.letter import Letter
from scheduler.notifications.outbox import Due
from scheduler.planning.addressees import EmailTarget, WebhookTarget
from scheduler.state.store import State

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
STOP_WITHIN_S = 5.0


class Postman:
    """Looks into the outbox every two seconds, and tells each addressee from a thread of its own.

    A context manager, for once. At the end, what is on its way gets a few seconds; after that it is told again at
    the next start.
    """

    def __init__(self, state: State, secrets_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._secrets_dir = secrets_dir
        self._clock = clock
        self._stopping = threading.Event()
        self._on_their_way: dict[str, threading.Thread] = {}
        """By notification."""
        self._thread = threading.Thread(target=self._work, name="postman", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        deadline = time.monotonic() + STOP_WITHIN_S
        for thread in (self._thread, *self._on_their_way.values()):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        told = False
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self.round()
                told = False
            except ProxyfleetError as error:
                if not told:
                    logger.warning("notifications wait: %s", error)
                told = True
            except Exception:
                # What one round stumbles over, the next may not; without this thread nobody is told of anything.
                if not told:
                    logger.exception("notifications wait")
                told = True

    def round(self) -> tuple[threading.Thread, ...]:
        """Write down what is news, and send what is due: one thread each, which returns once that is recorded."""
        with self._state.read() as session:
            news = outbox.has_news(session)
        if news:
            with self._state.write() as session:
                outbox.post_news(session, self._clock())
        self._on_their_way = {name: thread for name, thread in self._on_their_way.items() if thread.is_alive()}
        with self._state.read() as session:
            due = outbox.due(session, self._clock(), busy=self._on_their_way.keys())
        for one in due:
            thread = threading.Thread(target=self._tell, args=(one,), name="postman on the way", daemon=True)
            self._on_their_way[one.notification] = thread
            thread.start()
        return tuple(self._on_their_way.values())

    def _tell(self, due: Due) -> None:
        about = {"run": due.run, "job": due.job}
        error = None
        try:
            with self._state.read() as session:
                letter = outbox.letter_of(session, due)
            deliver(letter, due.webhook, due.email, self._secrets_dir)
            logger.info("notification %s told of run %s", due.notification, due.run, extra=about)
        except ProxyfleetError as foreseen:
            error = str(foreseen)
            logger.warning("notification %s, run %s: %s", due.notification, due.run, error, extra=about)
        except Exception as defect:
            # One letter that can't be written must not keep its addressee from getting others.
            error = f"unexpected {type(defect).__name__}: the scheduler's log says more"
            logger.exception("notification %s, run %s", due.notification, due.run, extra=about)
        try:
            with self._state.write() as session:
                outbox.record(session, due.delivery, error, self._clock())
        except ProxyfleetError as lost:
            logger.warning("notification %s may be told again of a run: %s", due.notification, lost, extra=about)


def deliver(
    letter: Letter, to_webhook: WebhookTarget | None, to_email: EmailTarget | None, secrets_dir: Path
) -> None:
    """Tell one addressee, once; raises `DeliveryError` or `SecretError`."""
    if to_webhook is not None:
        webhook.post(to_webhook, letter, secrets_dir)
    if to_email is not None:
        email.send(to_email, letter, secrets_dir)
