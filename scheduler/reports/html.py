"""A run's report as one HTML page that needs nothing from anywhere, and as a mail."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

import jinja2

from scheduler.reports import drawing, figures
from scheduler.reports.run_report import RunReport
from scheduler.reports.timeline import time_shares

MAIL_VMS = 100
"""A mail lists so many VMs at most, those with problems first; its attachment has all."""


def page(report: RunReport) -> str:
    """The whole page, picture included; follows the reader's preference for light or dark."""
    return _template("report.html").render(
        report=report,
        drawing=drawing.draw(report),
        geometry=drawing,
        shares=[share for share in time_shares(report.disks) if share.seconds > 0],
        made=datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
    )


def mail(report: RunReport) -> str:
    """What fits a mail: no picture, and no style that mail programs take away."""
    troubled = sorted(report.vms, key=lambda vm: (vm.state == "succeeded", vm.warning is None, vm.vm))
    return _template("mail.html").render(report=report, vms=troubled[:MAIL_VMS], more=len(troubled[MAIL_VMS:]))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scheduler.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    written = ("duration", "moment", "plural", "rate", "ratio", "share", "size")
    environment.filters.update({name: getattr(figures, name) for name in written})
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)
