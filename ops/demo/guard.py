"""Ends the demo's processes when the demo itself is killed.

Runs beside the demo, reading its standard input: the end of it without a word means that the demo is gone.
    python -m ops.demo.guard STATE
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ops.demo.processes import KEEP, end_marked


def main() -> None:
    """Wait for the demo's last word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.stdin.buffer.read() != KEEP:
        end_marked(Path(sys.argv[1]), term_timeout_s=10)


if __name__ == "__main__":
    main()
