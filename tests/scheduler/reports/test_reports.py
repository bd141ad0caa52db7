"""A run's report: who had which disk when, where the time went, in figures, as text, and as a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.figures import StageTimes
from proxy_worker.contract.outcome import AttemptOutcome
from scheduler.reports.drawing import LEFT, RIGHT, draw
from scheduler.reports.figures import moment
from scheduler.reports.html import mail, page
from scheduler.reports.run_report import AttemptReport, DiskReport, ProofReport, RunReport, Severity, VmReport
from scheduler.reports.text import plain
from scheduler.reports.timeline import lanes, pace, time_shares
from scheduler.state.run_kind import RunKind

NOW = 1_795_000_000.0
MIB = 1 << 20


def attempt(proxy: str, start: float, end: float, outcome: AttemptOutcome = AttemptOutcome.DONE) -> AttemptReport:
    note = "" if outcome is AttemptOutcome.DONE else "proxy-2 stopped renewing its lease"
    return AttemptReport(
        proxy=proxy, started=NOW + start, ended=NOW + end, outcome=outcome, note=note, rate=100.0 * MIB
    )


def disk(number: int, *attempts: AttemptReport) -> DiskReport:
    spent = {True: 0.0, False: 0.0}
    for one in attempts:
        spent[one.outcome is AttemptOutcome.DONE] += one.ended - one.started
    return DiskReport(
        vm=f"web{number:02} <i>",
        disk="scsi0:0",
        state="succeeded",
        problem=None,
        size_bytes=1 << 30,
        bottleneck="target",
        mode="network",
        stages=StageTimes(read=3.0, transform=1.0, deliver=4.0),
        waiting_seconds=5.0,
        moving_seconds=spent[True],
        lost_seconds=spent[False],
        attempts=attempts,
    )


def report(*disks: DiskReport) -> RunReport:
    vms = tuple(
        VmReport(
            vm=one.vm,
            state="succeeded",
            point="point-1",
            reason=None,
            warning=None,
            disks=1,
            size_bytes=1 << 30,
            read_bytes=1 << 29,
            stored_bytes=1 << 28,
            duration_seconds=60.0,
            freezing_seconds=0.5,
            committing_seconds=0.1,
        )
        for one in disks
    )
    return RunReport(
        run="run-1",
        job="nightly",
        state="partly failed",
        severity=Severity.FAILURE,
        reason="1 of 3 VMs failed",
        trigger="schedule",
        repository="main",
        created=NOW,
        started=NOW,
        ended=NOW + 90,
        duration_seconds=90.0,
        size_bytes=3 << 30,
        read_bytes=3 << 29,
        zero_bytes=0,
        unchanged_bytes=3 << 29,
        duplicate_bytes=0,
        stored_bytes=1 << 29,
        rate=40.0 * MIB,
        bottleneck="target",
        warnings=("web01: its snapshot stays",),
        errors=("db01: the disk is <gone>",),
        vms=vms,
        disks=disks,
    )


@pytest.fixture
def told() -> RunReport:
    return report(
        disk(1, attempt("proxy-1", 0, 30)),
        disk(2, attempt("proxy-1", 10, 40)),
        disk(3, attempt("proxy-2", 0, 20, AttemptOutcome.REQUEUED), attempt("proxy-1", 40, 80)),
    )


def test_each_proxy_has_as_many_lanes_as_it_moved_disks_at_once(told: RunReport) -> None:
    seen = {(lane.proxy, lane.slot): [one.disk.vm[:5] for one in lane.held] for lane in lanes(told)}
    assert seen == {("proxy-1", 1): ["web01", "web03"], ("proxy-1", 2): ["web02"], ("proxy-2", 1): ["web03"]}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.floats(0.1, 50)), max_size=30))
def test_attempts_in_a_lane_never_overlap_and_none_is_left_out(held: list[tuple[str, float, float]]) -> None:
    disks = [disk(n, attempt(proxy, start, start + length)) for n, (proxy, start, length) in enumerate(held)]
    drawn = lanes(report(*disks))
    assert sum(len(lane.held) for lane in drawn) == len(held)
    for lane in drawn:
        ends = [one.attempt.ended for one in lane.held]
        assert all(end <= after.attempt.started for end, after in zip(ends, lane.held[1:], strict=False))


def test_the_pace_adds_up_what_goes_on_at_once_and_ends_at_nothing(told: RunReport) -> None:
    steps = {round(step.since - NOW): round(step.rate / MIB) for step in pace(told)}
    assert steps == {0: 200, 10: 300, 20: 200, 30: 100, 40: 100, 80: 0}


def test_the_disks_time_adds_up_to_waiting_stages_and_what_was_lost(told: RunReport) -> None:
    shares = {share.name: share.seconds for share in time_shares(told.disks)}
    assert shares == {"waiting": 15, "reading": 37.5, "transforming": 12.5, "delivering": 50, "lost": 20}


def test_the_picture_has_every_attempt_within_its_axis(told: RunReport) -> None:
    drawing = draw(told)
    assert drawing is not None
    bars = [bar for row in drawing.rows for bar in row.bars]
    assert sorted(bar.kind for bar in bars) == ["lost", "target", "target", "target"]
    for bar in bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= RIGHT + 2
    (lost,) = [bar for bar in bars if bar.kind == "lost"]
    assert "proxy-2 stopped renewing its lease" in lost.title


class Page(HTMLParser):
    """What a page refers to, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [value or "" for name, value in attrs if name in {"src", "href", "action", "data"}]
        if tag not in {"meta", "line", "rect", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("write", [page, mail])
def test_a_page_needs_nothing_but_itself_and_shows_names_as_they_are(
    told: RunReport, write: Callable[[RunReport], str]
) -> None:
    text = write(told)
    parsed = Page(text)
    assert (parsed.refers, parsed.open) == ([], [])
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert "web01 &lt;i&gt;" in text
    assert "the disk is &lt;gone&gt;" in text
    assert "<i>" not in text


def test_the_text_says_the_same_in_lines_for_terminals(told: RunReport) -> None:
    text = plain(told)
    assert max(map(len, text.splitlines())) <= 80
    for line in ("error: db01: the disk is <gone>", "warning: web01: its snapshot stays"):
        assert line in text
    assert re.search(r"proxy-1 +█+·*█+ +2 disks", text)
    assert re.search(r"waiting +15 s \(11%\)", text)


@pytest.mark.parametrize("write", [page, mail, plain])
def test_how_well_a_repository_is_proven_is_told_with_what_was_added_to_it(
    told: RunReport, write: Callable[[RunReport], str]
) -> None:
    proof = ProofReport(points=14, unproven=2, damaged=1, oldest=NOW)
    assert f"12 of 14 restore points, since {moment(NOW)}; 1 damaged" in write(
        told.model_copy(update={"proof": proof})
    )
    assert "proven" not in write(told)


KINDS: list[tuple[dict[str, object], list[str]]] = [
    ({"kind": RunKind.BACKUP}, ["VMs backed up", "to repository main"]),
    (
        {"kind": RunKind.COPY, "copied_from": "near"},
        ["restore points copied", "from repository near to repository main"],
    ),
    ({"kind": RunKind.REPLICATION, "repository": "", "target": "ds-7"}, ["VMs replicated", "to datastore ds-7"]),
    ({"kind": RunKind.FAILBACK, "repository": ""}, ["VMs brought back", "to the originals"]),
]


@pytest.mark.parametrize(("changes", "said"), KINDS)
@pytest.mark.parametrize("write", [page, mail, plain])
def test_a_run_is_told_in_the_words_for_what_it_does(
    told: RunReport, write: Callable[[RunReport], str], changes: dict[str, object], said: list[str]
) -> None:
    text = write(told.model_copy(update=changes))
    assert [words for words in said if words not in text] == []
    kind = changes["kind"]
    others = {one.done for one in RunKind if one is not kind}
    assert [words for words in others if re.search(rf"(disks|VMs|points) {words}", text)] == []
    assert ("already" in text) == (write is not mail and kind in {RunKind.BACKUP, RunKind.COPY})
    assert ("repository" in text) == (kind in {RunKind.BACKUP, RunKind.COPY})


def test_a_run_in_which_no_proxy_had_anything_has_no_picture() -> None:
    nothing = report()
    assert draw(nothing) is None
    assert "<svg" not in page(nothing)
    assert plain(nothing)
