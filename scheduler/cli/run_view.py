"""How people see a run: while it goes on, and as a summary afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy_worker.program.units import size
from scheduler.cli.printing import (
    Columns,
    clock,
    compared,
    duration,
    facts,
    fitted,
    fitting,
    moment,
    plural,
    rate,
    state,
    table,
)
from scheduler.cli.records import DiskRecord, RunRecord

LIVE_ORDER = ("running", "paused", "failed", "waiting", "queued", "cancelled", "succeeded")
"""Which disks a view that has no room for all shows first."""
DISKS_NAMED = 3
"""Of those that were read whole for one reason; more of them are counted."""
LINES_BESIDE_DISKS = 8


def live_view(run: RunRecord, console: Console) -> RenderableType:
    """The run as it stands, to be replaced a second later; never higher than the terminal."""
    room = max(3, console.height - LINES_BESIDE_DISKS)
    ordered = sorted(run.disks, key=lambda disk: LIVE_ORDER.index(disk.state))
    shown, hidden = ordered[:room], ordered[room:]
    parts: list[RenderableType] = [headline(run)]
    if run.disks:
        parts.append(fitting(console, [_progress_table(shown, mode=True), _progress_table(shown, mode=False)]))
    if hidden:
        parts.append(Text(f"and {plural(len(hidden), 'more disk')}: {_states(hidden)}", style="dim"))
    return Group(*parts, *_reasons(run, limit=3))


def headline(run: RunRecord) -> Text:
    """One line: which run, its state, how far."""
    text = Text.assemble(("run ", ""), (run.run, "bold"), f" of job {run.job}: ", state(run.state))
    if run.disks:
        done = run.disks_in(("succeeded",))
        text.append(f", {done} of {plural(len(run.disks), 'disk')} done")
        if failed := run.disks_in(("failed",)):
            text.append(f", {failed} failed", style="bold red")
        if lost := sum(vm.state == "failed" for vm in run.vms):
            text.append(f", {lost} of {plural(len(run.vms), 'VM')} without a restore point", style="bold red")
        text.append(f", {size(run.processed_bytes)} of {size(run.size_bytes)}")
    if run.duration_seconds is not None:
        text.append(f", {duration(run.duration_seconds)}")
    return text


def summary(run: RunRecord, out: Console) -> RenderableType:
    """All figures of a run, its VMs and its disks, in a table that fits `out`."""
    figures: list[RenderableType] = ["", facts(_figures(run)), "", _disk_table(run, out)] if run.disks else []
    return Group(headline(run), *figures, *_remarks(run))


def progress_line(disk: DiskRecord) -> str:
    """One disk as a line of a log."""
    words = [f"{disk.of} {disk.disk}: {disk.state}"]
    if disk.processed_bytes and disk.size_bytes:
        words.append(f"{_percent(disk)} of {size(disk.size_bytes)}")
    if disk.rate is not None:
        words.append(rate(disk.rate))
    if disk.mode is not None:
        words.append(disk.mode)
    if disk.proxies is not None:
        words.append(f"on {disk.proxies}")
    if disk.eta_s is not None:
        words.append(f"{duration(disk.eta_s)} to go")
    line = ", ".join(words)
    return f"{line}: {disk.reason}" if disk.reason else line


def _progress_table(disks: Sequence[DiskRecord], *, mode: bool) -> Table:
    columns = ["VM", "DISK", "STATE", "DONE", "SIZE", "RATE", "ETA", "PROXY", *(["MODE"] if mode else [])]
    made = table(*columns, right=("DONE", "SIZE", "RATE", "ETA"), keep=("DISK", "STATE", "MODE"))
    for disk in disks:
        cells: list[str | Text] = [
            Text(disk.of),
            disk.disk,
            state(disk.state),
            _percent(disk),
            size(disk.size_bytes),
            rate(disk.rate),
            clock(disk.eta_s),
            Text(disk.proxies or "-"),
        ]
        made.add_row(*cells, *([disk.mode or "-"] if mode else []))
    return made


def _disk_table(run: RunRecord, out: Console) -> Table:
    delivered = run.kind.delivered.upper()
    columns: Columns = {
        "VM": [Text(disk.of) for disk in run.disks],
        "DISK": [Text(disk.disk) for disk in run.disks],
        "STATE": [state(disk.state) for disk in run.disks],
        "SIZE": [size(disk.size_bytes) for disk in run.disks],
        "READ": [size(disk.read_bytes) for disk in run.disks],
        delivered: [size(disk.stored_bytes) for disk in run.disks],
        "TIME": [duration(disk.duration_seconds) for disk in run.disks],
        "RATE": [rate(disk.rate) for disk in run.disks],
        "PROXY": [Text(disk.proxies or "-") for disk in run.disks],
    }
    figures = ("SIZE", "READ", delivered, "TIME", "RATE")
    return fitted(columns, out, right=figures, spare=("RATE", "TIME", "READ"))


def _figures(run: RunRecord) -> list[tuple[str, str | Text]]:
    unchanged = sum(disk.unchanged_bytes for disk in run.disks)
    modes = Counter(disk.mode for disk in run.disks if disk.mode)
    rows: list[tuple[str, str | Text]] = [
        ("started", f"{moment(run.started)} ({run.trigger})"),
        ("ended", moment(run.ended)),
        *([("copied", f"from {run.copied_from} to {run.repository}")] if run.copied_from is not None else []),
        ("processed", size(run.processed_bytes)),
        ("read", compared(run.read_bytes, run.processed_bytes, "processed")),
        ("unchanged", size(unchanged)),
        *_transferred(run),
        (run.kind.delivered, compared(run.stored_bytes, run.processed_bytes, "processed")),
        ("rate", rate(run.rate)),
        ("bottleneck", run.bottleneck or "-"),
        ("modes", ", ".join(f"{mode} ({plural(count, 'disk')})" for mode, count in modes.most_common()) or "-"),
    ]
    return rows


def _transferred(run: RunRecord) -> list[tuple[str, str | Text]]:
    """Of a replication it is what was sent, which is said anyway."""
    if not run.kind.to_repository:
        return []
    reused = sum(disk.duplicate_bytes for disk in run.disks)
    return [
        ("already stored", size(reused)),
        ("transferred", compared(run.transferred_bytes, run.read_bytes, "read")),
    ]


def _remarks(run: RunRecord) -> list[RenderableType]:
    whole = [disk for disk in run.disks if disk.full_read_reason]
    many = Counter(disk.full_read_reason for disk in whole)
    lines = [
        f"{plural(count, 'disk')} read whole: {reason}" for reason, count in many.items() if count > DISKS_NAMED
    ]
    lines += [
        f"{disk.of} {disk.disk}: read whole: {disk.full_read_reason}"
        for disk in whole
        if many[disk.full_read_reason] <= DISKS_NAMED
    ]
    lines += [f"{vm.vm}: {vm.warning}" for vm in run.vms if vm.warning]
    remarks: list[RenderableType] = [Text(line, style="yellow") for line in lines]
    remarks += _reasons(run, limit=None)
    return ["", *remarks] if remarks else []


def _reasons(run: RunRecord, *, limit: int | None) -> list[RenderableType]:
    """Why disks wait or failed, and VMs, each reason once."""
    reasons: Counter[tuple[str, str, str]] = Counter()
    for disk in run.disks:
        if disk.reason:
            subject = f"{disk.of} {disk.disk}" if disk.state == "failed" else ""
            reasons[disk.state, disk.reason, subject] += 1
    lines: list[RenderableType] = [
        Text.assemble(state(word), f" {subject or plural(count, 'disk')}: {reason}")
        for (word, reason, subject), count in reasons.most_common()
    ]
    told = {disk.vm for disk in run.disks if disk.reason}
    lines += [
        Text.assemble(state(vm.state), f" {vm.vm}: {vm.reason}")
        for vm in run.vms
        if vm.reason and vm.reason != vm.state and vm.vm not in told
    ]
    if run.reason:
        lines.append(Text(run.reason))
    if limit is not None and len(lines) > limit:
        lines = [*lines[: limit - 1], Text(f"and {len(lines) - limit + 1} more reasons", style="dim")]
    return lines


def _states(disks: Sequence[DiskRecord]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(disk.state for disk in disks).most_common())


def _percent(disk: DiskRecord) -> str:
    if disk.size_bytes is None:
        return "-"
    return "100%" if disk.size_bytes == 0 else f"{100 * disk.processed_bytes // disk.size_bytes}%"
