"""`make demo`: the whole story of a fleet, on one machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ops.demo.layout import Layout
from ops.demo.processes import Supervisor
from ops.demo.story import Story
from ops.demo.telling import main


def _begin(state: Path, redis_port: int, flower_port: int, supervisor: Supervisor) -> Story:
    return Story(Layout(state, redis_port=redis_port, flower_port=flower_port), supervisor)


if __name__ == "__main__":
    sys.exit(main("demo", __doc__, Path(".demo"), _begin))
