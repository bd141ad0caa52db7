"""Taking a step again while an object store, or the way to it, fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from obstore.exceptions import GenericError

T = TypeVar("T")

_ATTEMPTS: Final = 6
FIRST_PAUSE_S: Final = 0.2


def persistently(step: Callable[[], T]) -> T:
    """Take a step, again after `GenericError`s; raises the last of them, and all others at once."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return step()
        except GenericError:
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    return step()
