"""Where `proxy-worker` begins, before any of it is loaded."""

from proxy_worker.program.interrupts import end_at_interrupts


def main() -> None:
    """Load the command line and run it."""
    end_at_interrupts()
    from proxy_worker.cli import main as run  # noqa: PLC0415 - after the line above

    run()


if __name__ == "__main__":
    main()
