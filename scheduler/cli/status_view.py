"""How people see what goes on everywhere: as it fits the terminal, alarms first, disks with what room is left."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from scheduler.cli.printing import ago, clock, duration, fitting, moment, plural, rate, size, state, table
from scheduler.cli.records import DiskRecord, RunRecord
from scheduler.cli.restore_record import restore_line
from scheduler.cli.run_view import headline
from scheduler.cli.status_record import StatusRecord

REASONS_SHOWN = 5
LEAST_DISKS = 3
BAR_COLUMNS = 12
RUN_BAR_COLUMNS = 30
KEYS = "q ends, space shows more disks"


def whole_view(record: StatusRecord, out: Console) -> RenderableType:
    """Everything, however long; without bars where `out` is no terminal."""
    disks = _moving(record)
    parts = [*_above(record, out), *([_disk_table(disks, out)] if disks else []), *_below(record, out)]
    return Group(*parts)


def live_view(record: StatusRecord, out: Console, *, page: int) -> RenderableType:
    """What fits the terminal; of the disks that move, the page of that number, counted round and round."""
    disks = _moving(record)
    above, keys = _above(record, out), Text(KEYS, style="dim", no_wrap=True)
    below = [*_below(record, out), keys]
    room = _room(out, [*above, *below])
    if room < LEAST_DISKS:  # what has ended can wait
        below = [*_below(record.model_copy(update={"ended": ()}), out), keys]
        room = max(LEAST_DISKS, _room(out, [*above, *below]))
    if not disks:
        return Group(*above, *below)
    pages = -(-len(disks) // room)
    first = page % pages * room
    shown = disks[first : first + room]
    parts: list[RenderableType] = [_disk_table(shown, out)]
    if pages > 1:
        parts.append(_dim(f"disks {first + 1} to {first + len(shown)} of {len(disks)}"))
    return Group(*above, *parts, *below)


def _room(out: Console, parts: Sequence[RenderableType]) -> int:
    """How many lines `parts` leave, beside a table's head and what is said below it."""
    return out.height - sum(len(out.render_lines(part, pad=False)) for part in parts) - 3


def _above(record: StatusRecord, out: Console) -> list[RenderableType]:
    parts: list[RenderableType] = [*_health(record), *(_line(f"! {one}", "yellow") for one in record.warnings)]
    parts += ["", _proxies(record, out), ""]
    if not record.runs and not record.restores:
        parts.append(_dim("Nothing is running."))
    for run in record.runs:
        parts.append(_run(run, out))
        parts += [_line(f"  {problem}", "yellow") for problem in _problems(run)]
    parts += [restore_line(restore) for restore in record.restores]
    return [*parts, *([""] if _moving(record) else [])]


def _below(record: StatusRecord, out: Console) -> list[RenderableType]:
    upkeep = [task for task in record.tasks if not task.task.startswith("disk.")]
    parts: list[RenderableType] = [
        Text(f"{task.task}: {task.state}{f' on {task.proxy}' if task.proxy else ''}", no_wrap=True)
        for task in upkeep
    ]
    parts += [
        _line(f"  {plural(waiting.tasks, 'task')} waiting: {waiting.reason}", "yellow")
        for waiting in record.waiting[:REASONS_SHOWN]
    ]
    if len(record.waiting) > REASONS_SHOWN:
        parts.append(_dim(f"  and {plural(len(record.waiting) - REASONS_SHOWN, 'more reason')}"))
    if record.ended:
        parts += [
            "",
            fitting(out, [_ended(record.ended, without=without) for without in ((), ("TIME",), ("TIME", "DISKS"))]),
        ]
    return parts


def _health(record: StatusRecord) -> list[RenderableType]:
    text = Text.assemble(
        f"{moment(record.at)}  scheduler: ",
        Text("serving", style="green") if record.serving else Text("not serving", style="bold red"),
        f" ({record.scheduler})" if record.scheduler else "",
        f"  standing by: {', '.join(record.standing_by)}" if record.standing_by else "",
        "  ledger: ",
    )
    if record.ledger != "ok":
        return [text.append("unreachable", style="bold red"), Text(record.ledger, style="red")]
    text.append("ok", style="green").append(f"  slots: {record.used} of {record.slots} used")
    moving = sum(disk.rate or 0.0 for disk in _moving(record))
    return [text.append(f"  {rate(moving)}") if moving else text]


def _proxies(record: StatusRecord, out: Console) -> RenderableType:
    if not record.proxies:
        return _dim("No proxy has registered." if record.ledger == "ok" else "What proxies do is not known.")
    rates = {proxy.name: 0.0 for proxy in record.proxies}
    for disk in _moving(record):
        if disk.proxy in rates:
            rates[disk.proxy] += disk.rate or 0.0
    return fitting(
        out, [_proxy_table(record, rates, without=without) for without in ((), ("USED",), ("USED", "SITE"))]
    )


def _proxy_table(record: StatusRecord, rates: dict[str, float], *, without: Collection[str]) -> Table:
    names = [name for name in ("PROXY", "SITE", "STATE", "SLOTS", "RATE", "USED") if name not in without]
    made = table(*names, right=("RATE",), keep=("PROXY", "STATE", "SLOTS"))
    for proxy in record.proxies:
        slots = proxy.slots or 0
        used = f"{proxy.used} of {slots}" if proxy.slots is not None else "-"
        bar = Text("■" * proxy.used, style="cyan").append("□" * max(0, slots - proxy.used), style="dim")
        cells = {
            "PROXY": Text(proxy.name),
            "SITE": Text(proxy.site or "-"),
            "STATE": state(proxy.state),
            "SLOTS": Text(used),
            "RATE": Text(rate(rates[proxy.name] or None)),
            "USED": bar,
        }
        made.add_row(*(cells[name] for name in names))
    return made


def _run(run: RunRecord, out: Console) -> RenderableType:
    line = headline(run)
    if not (out.is_terminal and run.size_bytes):
        return line
    left_s = _left_s(run)
    bar = _bar(run.processed_bytes, run.size_bytes, min(RUN_BAR_COLUMNS, out.width // 3))
    eta = f"  {clock(left_s)} to go" if left_s is not None else ""
    share = f" {100 * run.processed_bytes // run.size_bytes}%"
    return Group(line, Text.assemble("  ", bar, share, eta, no_wrap=True))


def _left_s(run: RunRecord) -> float | None:
    """At the rate of the disks that move now; what waits is taken to go as fast."""
    moving = sum(disk.rate or 0.0 for disk in run.disks if disk.state == "running")
    return (run.size_bytes - run.processed_bytes) / moving if moving > 0 else None


def _moving(record: StatusRecord) -> list[DiskRecord]:
    return [disk for run in record.runs for disk in run.disks if disk.state in {"running", "paused"}]


def _disk_table(disks: Sequence[DiskRecord], out: Console) -> Table:
    bar = () if out.is_terminal else ("",)
    fewer = (bar, (*bar, "MODE"), ("", "MODE"), ("", "MODE", "PROXY"), ("", "MODE", "PROXY", "ETA"))
    return fitting(out, [_disks(disks, without=without) for without in fewer])


def _disks(disks: Sequence[DiskRecord], *, without: Collection[str]) -> Table:
    columns = [name for name in ("VM", "DISK", "DONE", "RATE", "ETA", "PROXY", "MODE", "") if name not in without]
    made = table(*columns, right=("DONE", "RATE", "ETA"), keep=("VM", "DISK", "PROXY", "MODE"))
    for disk in disks:
        share = (
            f"{100 * disk.processed_bytes // disk.size_bytes}% of {size(disk.size_bytes)}"
            if disk.size_bytes
            else "-"
        )
        cells = {
            "VM": Text(disk.vm),
            "DISK": Text(disk.disk),
            "DONE": Text(share),
            "RATE": Text(rate(disk.rate) if disk.state == "running" else disk.state),
            "ETA": Text(clock(disk.eta_s)),
            "PROXY": Text(disk.proxy or "-"),
            "MODE": Text(disk.mode or "-"),
            "": _bar(disk.processed_bytes, disk.size_bytes or 0, BAR_COLUMNS),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


def _bar(part: float, whole: float, columns: int) -> Text:
    filled = min(columns, int(columns * part / whole)) if whole > 0 else 0
    return Text("━" * filled, style="cyan").append("━" * (columns - filled), style="bright_black")


def _problems(run: RunRecord) -> list[str]:
    failed = [
        f"{disk.vm} {disk.disk} {disk.state}: {disk.reason}"
        for disk in run.disks
        if disk.reason and disk.state in {"failed", "waiting"}
    ]
    return [
        *failed[:REASONS_SHOWN],
        *([f"and {len(failed) - REASONS_SHOWN} more"] if len(failed) > REASONS_SHOWN else []),
    ]


def _ended(runs: Sequence[RunRecord], *, without: Collection[str]) -> Table:
    names = [name for name in ("RUN", "JOB", "STATE", "DISKS", "TIME", "ENDED") if name not in without]
    made = table(*names, right=("DISKS", "TIME"), keep=("RUN", "JOB", "STATE", "ENDED"))
    for run in runs:
        cells = {
            "RUN": Text(run.run),
            "JOB": Text(run.job),
            "STATE": state(run.state),
            "DISKS": Text(f"{run.disks_in(('succeeded',))}/{len(run.disks)}"),
            "TIME": Text(duration(run.duration_seconds)),
            "ENDED": Text(ago(run.ended)),
        }
        made.add_row(*(cells[name] for name in names))
    return made


def _line(text: str, style: str) -> Text:
    return Text(text, style=style)


def _dim(text: str) -> Text:
    return Text(text, style="dim")
