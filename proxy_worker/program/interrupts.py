"""Ctrl-C while a program loads: it ends the process without a word, as it ends a program in C.

Loading takes a fifth of a second, during which nothing has begun and nobody would catch an exception. This imports
nothing but `signal`, so that little of that time is left before it. A SIGINT that is ignored stays ignored.
"""

from __future__ import annotations

import signal


def end_at_interrupts() -> None:
    """From now on SIGINT ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_interrupts() -> None:
    """From now on SIGINT raises `KeyboardInterrupt`, so that what has begun is cleaned up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
