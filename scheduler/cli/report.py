"""A run's report as a page in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy_worker.contract.errors import TargetError
from scheduler.cli.printing import note
from scheduler.reports.run_report import RunReport

STANDARD_OUTPUT = Path("-")


class ReportFileError(TargetError):
    """The file that a report was to go to can't be written."""


def write_page(path: Path, report: RunReport) -> None:
    """Write the page to `path`, or to standard output for `-`; raises `ReportFileError`."""
    from scheduler.reports.html import page  # noqa: PLC0415 - Jinja2 is a twentieth of a second, for this alone

    text = page(report)
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportFileError(
            f"report {path}",
            why=error.strerror or str(error),
            remedy="Name a file in a folder that you may write to.",
        ) from error
    note(f"Wrote {path}.")
