"""What can go wrong in the demo in a way that its reader can do something about."""

from __future__ import annotations


class DemoError(Exception):
    """The demo can't go on; the message says why, without a traceback."""
