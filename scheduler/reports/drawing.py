"""The picture of a run in coordinates: a row for each slot of each proxy, a bar for each disk, the pace above.

All coordinates are those of an SVG of `WIDTH` by `Drawing.height`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from proxy_worker.contract.outcome import AttemptOutcome
from scheduler.reports.figures import duration, rate
from scheduler.reports.run_report import RunReport
from scheduler.reports.timeline import Held, Lane, Pace, lanes, pace

WIDTH = 1100
LEFT = 150
"""Where time begins; the proxies' names stand before it."""
RIGHT = 1085
PACE_TOP, PACE_HEIGHT = 16, 64
LANES_TOP = 104
LANE_HEIGHT, BAR_HEIGHT = 22, 17
GROUP_GAP = 8
FOOT = 26
CHARACTER_WIDTH = 6.4
"""Of a bar's label, on average; one that doesn't fit is left out or cut."""
NAME_CHARACTERS = 20
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_TICKS = 8
_MINUTE_S, _DAY_S = 60, 86400
_CLASSES = {AttemptOutcome.FAILED: "failed", AttemptOutcome.CANCELLED: "lost", AttemptOutcome.REQUEUED: "lost"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One disk while one proxy had it."""

    x: float
    y: float
    width: float
    kind: str
    """What it is coloured by: the stage that set its pace, or `failed`, or `lost`."""
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A slot of a proxy."""

    y: float
    name: str
    """The proxy's, at its first row; otherwise empty."""
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment on the axis."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The whole picture."""

    height: float
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    pace_path: str
    """An SVG path of the pace's area."""
    fastest: str
    """What the area's top stands for."""
    kinds: tuple[str, ...]
    """Those that occur, for the legend."""


def draw(report: RunReport) -> Drawing | None:
    """The picture, or None of a run in which no proxy had any disk."""
    drawn = lanes(report)
    if not drawn:
        return None
    held = [one for lane in drawn for one in lane.held]
    begin = min([report.started or held[0].attempt.started, *(one.attempt.started for one in held)])
    end = max([report.ended or 0.0, *(one.attempt.ended for one in held)])
    axis = _Axis(begin, max(end, begin + 0.001))
    rows = tuple(_rows(drawn, axis))
    steps = pace(report)
    present = {bar.kind for row in rows for bar in row.bars}
    order = ("source", "proxy", "network", "target", "failed", "lost")
    return Drawing(
        height=rows[-1].y + LANE_HEIGHT + FOOT,
        rows=rows,
        ticks=axis.ticks(),
        pace_path=_area(steps, axis),
        fastest=rate(max((step.rate for step in steps), default=None)),
        kinds=tuple(kind for kind in order if kind in present),
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    begin: float
    end: float

    def x(self, moment: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (moment - self.begin) / (self.end - self.begin), 1)

    def ticks(self) -> tuple[Tick, ...]:
        span = self.end - self.begin
        step = next(
            (step for step in _STEPS_S if span / step <= _TICKS), _DAY_S * (1 + int(span / _DAY_S / _TICKS))
        )
        local = datetime.fromtimestamp(self.begin, UTC).astimezone()
        offset = local.utcoffset()
        shift = offset.total_seconds() if offset is not None else 0.0
        moment = -(-(self.begin + shift) // step) * step - shift
        found = []
        while moment <= self.end:
            found.append(Tick(self.x(moment), _clock_text(moment, step)))
            moment += step
        return tuple(found)


def _rows(drawn: tuple[Lane, ...], axis: _Axis) -> list[Row]:
    rows: list[Row] = []
    y = float(LANES_TOP)
    for lane in drawn:
        first = lane.slot == 1
        y += GROUP_GAP if first and rows else 0
        rows.append(Row(y, _cut(lane.proxy) if first else "", tuple(_bar(one, y, axis) for one in lane.held)))
        y += LANE_HEIGHT
    return rows


def _bar(held: Held, y: float, axis: _Axis) -> Bar:
    disk, attempt = held.disk, held.attempt
    x = axis.x(attempt.started)
    width = max(1.5, axis.x(attempt.ended) - x)
    name = f"{disk.vm} {disk.disk}"
    candidates = (f"{name}  {rate(attempt.rate)}", name, disk.vm)
    label = next((text for text in candidates if len(text) * CHARACTER_WIDTH < width - 8), "")
    how = attempt.outcome.value if attempt.outcome is not AttemptOutcome.DONE else f"over {disk.mode}"
    words = [name, f"on {attempt.proxy}", duration(attempt.ended - attempt.started), rate(attempt.rate), how]
    if attempt.outcome is AttemptOutcome.DONE and disk.bottleneck:
        words.append(f"bottleneck: {disk.bottleneck}")
    if attempt.note:
        words.append(attempt.note)
    kind = _CLASSES.get(attempt.outcome) or disk.bottleneck or "source"
    return Bar(x, y, round(width, 1), kind, label, ", ".join(words))


def _area(steps: tuple[Pace, ...], axis: _Axis) -> str:
    top = max((step.rate for step in steps), default=0.0)
    if top <= 0:
        return ""
    base = PACE_TOP + PACE_HEIGHT
    path = f"M{axis.x(steps[0].since)} {base}"
    for step in steps:
        path += f"H{axis.x(step.since)}V{round(base - PACE_HEIGHT * step.rate / top, 1)}"
    return f"{path}V{base}Z"


def _clock_text(moment: float, step: float) -> str:
    local = datetime.fromtimestamp(moment, UTC).astimezone()
    if step < _MINUTE_S:
        return local.strftime("%H:%M:%S")
    return local.strftime("%d %b" if step >= _DAY_S else "%H:%M")


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
