"""The proxy's log, on stderr: one line an event, no traceback for a broker that is away."""

from __future__ import annotations

import logging
import warnings
from typing import Final

from celery.platforms import SecurityWarning
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from proxy_worker.program.logs import LogFormat, handler

FORMAT: Final = "%(asctime)s %(levelname)-7s %(processName)s %(name)s: %(message)s"
AWAY: Final = (OperationalError, RedisError, OSError)


class _OneLine(logging.Filter):
    """Celery logs a lost connection with its traceback; the error's own words are enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, the foreseeable ones shortened."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, AWAY):
            record.msg, record.args = f"{record.getMessage().strip()} ({error})", None
            record.exc_info = record.exc_text = None
        return True


def log_to_stderr(level: str, form: LogFormat = LogFormat.TEXT) -> None:
    """Set logging up, or up anew, for this process and those it forks."""
    to_stderr = handler(form, FORMAT)
    to_stderr.addFilter(_OneLine())
    logging.basicConfig(level=level.upper(), handlers=[to_stderr], force=True)
    # Root is refused by Celery for the sake of pickle, which nothing here accepts.
    warnings.simplefilter("ignore", SecurityWarning)
    # Celery repeats every message and result at this level, and our own line says more.
    for noisy in ("celery.worker.strategy", "celery.app.trace", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
