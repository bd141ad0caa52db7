"""A run's report as plain text: for terminals, and for mail programs that show no HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from scheduler.reports.figures import duration, moment, plural, rate, ratio, share, size
from scheduler.reports.run_report import RunReport
from scheduler.reports.timeline import Lane, lanes, time_shares

TIMELINE_COLUMNS = 56
_EMPTY, _BUSY, _LOST = "·", "█", "░"


def plain(report: RunReport) -> str:
    """The whole report, lines short enough for a terminal of 80 columns as far as names allow."""
    parts = [list(_head(report)), list(_figures(report)), list(_timeline(report)), list(_time(report))]
    parts.append(list(_vms(report)))
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _head(report: RunReport) -> Iterator[str]:
    yield f"{report.job}: {report.state}" + (f": {report.reason}" if report.reason else "")
    yield f"run {report.run} {report.way}"
    yield f"{moment(report.started)} to {moment(report.ended)} ({report.trigger})"
    yield from (f"error: {line}" for line in report.errors)
    yield from (f"warning: {line}" for line in report.warnings)


def _figures(report: RunReport) -> Iterator[str]:
    kind = report.kind
    figures = (
        ("took", duration(report.duration_seconds)),
        (f"{kind.unit}s {kind.done}", f"{report.vms_in('succeeded')} of {len(report.vms)}"),
        (f"disks {kind.done}", size(report.size_bytes)),
        ("read", size(report.read_bytes)),
        ("unchanged", size(report.unchanged_bytes)),
        *([("already stored", size(report.duplicate_bytes))] if kind.to_repository else []),
        (kind.delivered, f"{size(report.stored_bytes)} ({ratio(report.size_bytes, report.stored_bytes)})"),
        ("rate", rate(report.rate)),
        ("bottleneck", report.bottleneck or "-"),
        *((("requests", str(report.requests)),) if report.requests is not None else ()),
        *((("proven", str(report.proof)),) if report.proof is not None else ()),
        *((("moved", ways),) if (ways := _ways(report)) else ()),
    )
    width = max(len(name) for name, _ in figures)
    yield from (f"{name:{width}}  {value}" for name, value in figures)


def _ways(report: RunReport) -> str:
    """From which proxy to which, and how many disks each way."""
    written = [disk for disk in report.disks if disk.target_proxy is not None and disk.attempts]
    counts = Counter((disk.attempts[-1].proxy, disk.target_proxy) for disk in written)
    return ", ".join(
        f"{plural(count, 'disk')} from {source} to {target if target != source else 'itself'}"
        for (source, target), count in sorted(counts.items())
    )


def _timeline(report: RunReport) -> Iterator[str]:
    drawn = lanes(report)
    if not drawn:
        return
    attempts = [held.attempt for lane in drawn for held in lane.held]
    begin = min(attempt.started for attempt in attempts)
    end = max(attempt.ended for attempt in attempts)
    width = max(len(lane.proxy) for lane in drawn)
    yield f"{'':{width}}  {duration(end - begin)} with disks; {_LOST} failed, lost, handed back or cancelled"
    for lane in drawn:
        name = lane.proxy if lane.slot == 1 else ""
        yield f"{name:{width}}  {_strip(lane, begin, end)}  {plural(len(lane.held), 'disk')}"


def _strip(lane: Lane, begin: float, end: float) -> str:
    cells = [_EMPTY] * TIMELINE_COLUMNS
    scale = TIMELINE_COLUMNS / max(end - begin, 0.001)
    for held in lane.held:
        first = min(TIMELINE_COLUMNS - 1, int((held.attempt.started - begin) * scale))
        last = max(first + 1, int((held.attempt.ended - begin) * scale))
        mark = _BUSY if held.attempt.outcome == "done" else _LOST
        cells[first:last] = [mark] * (min(last, TIMELINE_COLUMNS) - first)
    return "".join(cells)


def _time(report: RunReport) -> Iterator[str]:
    shares = [one for one in time_shares(report.disks) if one.seconds > 0]
    total = sum(one.seconds for one in shares)
    if shares:
        yield "the disks' time, added up:"
        yield from (f"  {one.name:12}  {duration(one.seconds)} ({share(one.seconds, total)})" for one in shares)


def _vms(report: RunReport) -> Iterator[str]:
    rows = [("VM", "STATE", "DISKS", "SIZE", report.kind.delivered.upper(), "TIME", "RESTORE POINT")]
    rows += [
        (
            vm.vm,
            vm.state,
            str(vm.disks),
            size(vm.size_bytes),
            size(vm.stored_bytes),
            duration(vm.duration_seconds),
            vm.point or vm.reason or "-",
        )
        for vm in report.vms
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [
            f"{cell:{'<' if column < _LEFT_ALIGNED else '>'}{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join([*cells, row[-1]])


_LEFT_ALIGNED = 2
