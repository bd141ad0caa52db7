"""What is told of a run's end, whatever the way it goes."""

from __future__ import annotations

from dataclasses import dataclass

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.reports.figures import duration, plural, size
from scheduler.reports.run_report import RunReport, Severity


class DeliveryError(ProxyfleetError):
    """Something could not be told; it is tried again."""

    retryable = True


@dataclass(frozen=True)
class Letter:
    """One run's end for one addressee."""

    delivery: str
    """Its id, the same in every repetition."""
    notification: str
    report: RunReport
    test: bool = False
    """Whether somebody only tries the way out."""

    @property
    def event(self) -> str:
        """What happened, for programs."""
        return "test" if self.test else "run.ended"

    @property
    def subject(self) -> str:
        """One line: `[proxyfleet] nightly failed: 1 of 3 VMs failed`."""
        report = self.report
        mark = "test: " if self.test else ""
        if report.severity is Severity.SUCCESS:
            took = f", {duration(report.duration_seconds)}" if report.duration_seconds is not None else ""
            what = plural(len(report.vms), report.kind.unit)
            rest = f"{what} {report.kind.done}, {size(report.stored_bytes)} {report.kind.delivered}{took}"
        else:
            rest = report.reason or next(iter((*report.errors, *report.warnings)), "see the report")
        state = "succeeded with warnings" if self._only_warned else report.state
        # A vCenter's words may be of several lines, and no header of a mail may.
        return " ".join(f"[proxyfleet] {mark}{report.job} {state}: {rest}".split())

    @property
    def _only_warned(self) -> bool:
        return self.report.severity is Severity.WARNING and self.report.state == "succeeded"
