"""Writes the pages below docs/reference/ from the code, or says which are stale.

python docs/generate.py            write them
python docs/generate.py --check    exit 1 if one differs from what would be written
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from generator import commands, configuration, errors

REFERENCE = Path(__file__).parent / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "scheduler.md": commands.scheduler_page,
    "proxy-worker.md": commands.proxy_worker_page,
    "configuration.md": configuration.page,
    "errors.md": errors.page,
}


def main() -> int:
    """Write or check every page; the exit code."""
    os.environ.pop("SCHEDULER_CONFIG", None)
    pages = {REFERENCE / name: make() for name, make in PAGES.items()}
    if sys.argv[1:] == ["--check"]:
        stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
        for path in stale:
            print(f"{path.relative_to(REFERENCE.parent.parent)} is stale: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
