"""What people see: figures with units, views that fit their terminal, help with examples, names on Tab."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.console import Console, RenderableType

import scheduler.cli
from scheduler.cli import completion
from scheduler.cli.printing import clock, compared, duration, size
from scheduler.cli.records import DiskRecord, RunRecord, VmRecord
from scheduler.cli.run_view import live_view, summary
from scheduler.cli.watching import LINE_EVERY_S, Told, news_of_run
from scheduler.state.run_kind import RunKind
from scheduler.state.store import open_state
from tests.scheduler.cli.conftest import Program
from tests.scheduler.conftest import World

GIB = 1 << 30


def disk(number: int = 0, **changes: Any) -> DiskRecord:
    known: dict[str, Any] = {
        "vm": f"web{number:02}",
        "disk": "scsi0:0",
        "state": "running",
        "proxy": "proxy-1",
        "mode": "direct_storage",
        "attempts": 1,
        "size_bytes": GIB,
        "processed_bytes": GIB // 4,
        "rate": 100.0 * (1 << 20),
        "duration_seconds": 2.0,
        "log": (),
    }
    return DiskRecord.model_validate(_absent(DiskRecord) | known | changes)


def run(*disks: DiskRecord, **changes: Any) -> RunRecord:
    known: dict[str, Any] = {
        "run": "20261122T190102Z-1a2b3c4d",
        "job": "nightly",
        "state": "running",
        "trigger": "manual",
        "kind": RunKind.BACKUP,
        "repository": "main",
        "duration_seconds": 63.0,
        "size_bytes": GIB * len(disks),
        "processed_bytes": GIB,
        "vms": (),
        "disks": disks,
    }
    return RunRecord.model_validate(_absent(RunRecord) | known | changes)


def _absent(record: type[BaseModel]) -> dict[str, Any]:
    """No figure and no text: 0 for bytes and moments that must be there, None for the rest."""
    return {key: 0 if field.annotation in {int, float} else None for key, field in record.model_fields.items()}


def seen(view: Any, *, width: int = 80, height: int = 24, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=terminal, highlight=False).print(view)
    return out.getvalue()


def whole(record: RunRecord, *, width: int = 120) -> RenderableType:
    return summary(record, Console(width=width))


def test_figures_have_three_digits_and_a_unit() -> None:
    assert [size(value) for value in (None, 0, 1023, 1024, 1536, 1023.9 * 1024, GIB, 300 * GIB)] == [
        "-", "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "300 GiB",
    ]  # fmt: skip
    assert [duration(value) for value in (None, 0.04, 9.9, 59, 83, 7500, 100_000)] == [
        "-", "0.0 s", "9.9 s", "59 s", "1 min 23 s", "2 h 5 min", "1 d 3 h",
    ]  # fmt: skip
    assert [clock(value) for value in (None, 7, 750, 11_100)] == ["-", "0:07", "12:30", "3:05:00"]
    assert compared(GIB // 4, GIB, "read") == "256 MiB (4.0x less than read)"
    assert compared(GIB, GIB, "read") == "1.0 GiB"


@given(st.integers(0, 1 << 59))
def test_a_size_never_shows_four_digits_before_its_unit_changes(size_bytes: int) -> None:
    number = size(size_bytes).split()[0]
    assert float(number) < 1024
    assert len(number) <= 5


def test_the_live_view_fits_the_terminal_and_shows_what_matters_first() -> None:
    disks = [disk(number, state="succeeded") for number in range(40)] + [disk(99, vm="db01", state="running")]
    lines = seen(live_view(run(*disks), Console(width=80, height=24))).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "db01" in lines[3]
    assert "more disks: 25 succeeded" in "\n".join(lines)


def test_the_live_view_has_bytes_rate_mode_proxy_and_time_to_go() -> None:
    text = seen(live_view(run(disk()), Console(width=100, height=24)), width=100)
    for expected in ("25%", "1.0 GiB", "100 MiB/s", "direct_storage", "proxy-1", "0:08"):
        assert expected in text


def test_reasons_are_told_once_for_all_disks_they_hold_up() -> None:
    waiting = [disk(number, state="queued", reason="proxy proxy-1 is full (2 of 2 slots)") for number in range(9)]
    text = seen(live_view(run(*waiting), Console(width=120, height=40)), width=120)
    assert text.count("proxy proxy-1 is full (2 of 2 slots)") == 1
    assert "queued 9 disks: proxy proxy-1 is full" in text


def test_the_summary_names_a_disk_that_was_read_whole_and_why() -> None:
    text = seen(whole(run(disk(state="succeeded", full_read_reason="the parent is gone"), state="succeeded")))
    assert "web00 scsi0:0: read whole: the parent is gone" in text


def test_a_summary_leaves_figures_out_rather_than_break_names_in_a_narrow_terminal() -> None:
    sent = disk(vm="mail01.example", state="succeeded", proxy="proxy-1", target_proxy="proxy-2", read_bytes=GIB)
    for width, figures in ((120, {"READ", "TIME", "RATE"}), (80, {"READ"}), (70, set())):
        lines = seen(whole(run(sent), width=width), width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert any(
            line.startswith("mail01.example  ") and line.rstrip().endswith("proxy-1 → proxy-2") for line in lines
        )
        assert {"READ", "TIME", "RATE"} & set(next(line for line in lines if "DISK" in line).split()) == figures


def test_a_replication_says_once_what_it_sent() -> None:
    sent = disk(state="succeeded", stored_bytes=GIB // 4, transferred_bytes=GIB // 4)
    replicated = run(sent, kind=RunKind.REPLICATION, stored_bytes=GIB // 4, transferred_bytes=GIB // 4)
    names = [line.split()[0] for line in seen(whole(replicated)).splitlines() if "256 MiB" in line]
    assert names == ["sent", "web00"]


def test_colours_are_left_out_when_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    view = whole(run(disk()))
    assert "\x1b[36m" in seen(view, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in seen(view, terminal=True)


def test_names_are_shown_as_they_are_and_not_as_markup() -> None:
    assert "[red]web[/red]" in seen(whole(run(disk(vm="[red]web[/red]"))), width=120)


def test_a_log_gets_states_at_once_and_progress_now_and_then() -> None:
    now = [0.0]
    told = Told(clock=lambda: now[0])
    assert len(news_of_run(told, run(disk()))) == 2
    assert news_of_run(told, run(disk(processed_bytes=GIB // 2))) == []
    now[0] = LINE_EVERY_S
    (line,) = news_of_run(told, run(disk(processed_bytes=GIB // 2)))
    assert line == "web00 scsi0:0: running, 50% of 1.0 GiB, 100 MiB/s, direct_storage, on proxy-1, 5.1 s to go"
    (line,) = news_of_run(told, run(disk(state="failed", reason="it shrank")))
    assert line.startswith("web00 scsi0:0: failed")
    assert line.endswith(": it shrank")


def test_a_log_tells_why_a_vm_without_disks_yet_is_held_up_once_it_lasts() -> None:
    now = [0.0]
    told = Told(clock=lambda: now[0])

    def held_up(seconds: int) -> RunRecord:
        why = f"tried again in {seconds} s, since it failed: VMware Tools don't run"
        known = {"vm": "web01", "vm_id": "web01", "state": "snapshotting", "reason": why}
        return run(vms=(VmRecord.model_validate(_absent(VmRecord) | known),))

    assert len(news_of_run(told, held_up(600))) == 1
    now[0] = LINE_EVERY_S
    (line,) = news_of_run(told, held_up(590))
    assert line == "web01: snapshotting: tried again in 590 s, since it failed: VMware Tools don't run"
    now[0] *= 2
    assert news_of_run(told, held_up(580)) == []


def test_a_log_tells_why_a_run_without_vms_yet_is_held_up_once_it_lasts() -> None:
    now = [0.0]
    told = Told(clock=lambda: now[0])
    waiting = run(state="scanning", reason="no live proxy reaches datastore ds1")
    assert len(news_of_run(told, waiting)) == 1
    now[0] = LINE_EVERY_S
    (line,) = news_of_run(told, waiting)
    assert line == "run 20261122T190102Z-1a2b3c4d: scanning: no live proxy reaches datastore ds1"
    now[0] *= 2
    assert news_of_run(told, waiting) == []


def commands() -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every command and group, as its words, and whether it is a group."""

    def below(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], bool]]:
        is_group = hasattr(command, "list_commands")
        yield path, is_group
        if is_group:
            context = typer.Context(command)
            for name in command.list_commands(context):
                yield from below((*path, name), command.get_command(context, name))

    return below((), typer.main.get_command(scheduler.cli.app))


def test_every_command_has_help_with_an_example(scheduler: Program) -> None:
    for path, is_group in commands():
        shown = scheduler(*path, "--help")
        assert shown.code == 0
        assert f"Usage: {' '.join(('scheduler', *path))} " in shown.out
        assert "Examples:" in shown.out or is_group, path


def test_names_are_completed_from_the_database(applied: Program, world: World) -> None:
    assert applied("job", "create", "night-copy", "--vm", "db01", "--repository", "main").code == 0
    assert completion.jobs("night") == ["night-copy", "nightly"]
    assert completion.repositories("") == ["main"]
    assert completion.sites("pri") == ["primary"]
    assert completion.time_zones("Europe/Ber") == ["Europe/Berlin"]
    world.start()
    world.fleet.join("proxy-1")
    assert completion.proxies("pro") == ["proxy-1"]


def test_completion_without_a_database_is_empty_and_quiet(
    configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (completion.jobs, completion.vms, completion.points, completion.runs, completion.restores):
        assert names("") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [("scheduler job start ni", 3, "nightly"), ("scheduler noti", 1, "notification")],
)
def test_a_shell_completes_names_of_jobs_and_commands(
    applied: Program, configured: Path, words: str, place: int, expected: str
) -> None:
    shell = {"_SCHEDULER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    completed = subprocess.run(
        [Path(sys.executable).with_name("scheduler")],
        env=os.environ | shell,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == [expected]


def test_listing_commands_loads_none_of_them() -> None:
    listing = (
        "import sys; from typer.testing import CliRunner; from scheduler.cli import COMMANDS, app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "print([module for module, _ in COMMANDS.values() if module in sys.modules])"
    )
    listed = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert "Tell servers and people how runs ended." in listed.stdout
    assert listed.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error(applied: Program, world: World) -> None:
    assert open_state(world.url).name
    command = f"{Path(sys.executable).with_name('scheduler')} export | true"
    piped = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert piped.stderr == ""
