"""Where `proxy-worker` begins, before any of it is loaded."""

import gc

from proxy_worker.program.allocation import keep_freed_memory
from proxy_worker.program.interrupts import end_at_interrupts


def main() -> None:
    """Load the command line and run it."""
    end_at_interrupts()
    keep_freed_memory()
    gc.set_threshold(50_000)  # most of what loading makes stays: seeking cycles in it takes a seventh of the time
    from proxy_worker.cli import main as run  # noqa: PLC0415 - after the line above

    run()


if __name__ == "__main__":
    main()
