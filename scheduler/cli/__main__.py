"""`python -m scheduler.cli` is `scheduler`."""

from scheduler.cli import main

main()
