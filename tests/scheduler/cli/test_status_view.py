"""`scheduler status` in a terminal: as much as fits, alarms first, and keys."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from scheduler.cli.keys import reading_keys
from scheduler.cli.proxy_record import ProxyRecord
from scheduler.cli.records import DiskRecord, RunRecord
from scheduler.cli.status_record import StatusRecord, WaitingRecord
from scheduler.cli.status_view import live_view
from tests.scheduler.cli.conftest import Program

GIB = 1 << 30


def empty(record: Any, **known: Any) -> Any:
    """A record with nothing in it but what is `known`."""
    values = {name: known.get(name) for name in record.model_fields}
    return record.model_construct(**values)


def disk(number: int) -> DiskRecord:
    figures = {"size_bytes": GIB, "processed_bytes": GIB // 4, "rate": 100.0 * (1 << 20), "mode": "network"}
    made: DiskRecord = empty(
        DiskRecord, vm=f"web{number:02}", disk="scsi0:0", state="running", proxy="proxy-1", **figures
    )
    return made


@pytest.fixture
def record() -> StatusRecord:
    disks = tuple(disk(number) for number in range(30))
    run = empty(
        RunRecord,
        run="20261122T190102Z-1a2b3c4d",
        job="nightly",
        state="running",
        size_bytes=30 * GIB,
        processed_bytes=8 * GIB,
        disks=disks,
        vms=(),
    )
    proxies = tuple(
        empty(ProxyRecord, name=f"proxy-{number}", site="primary", state="up", slots=4, used=3) for number in (1, 2)
    )
    waiting = (WaitingRecord(reason="all 2 proxies are full (8 of 8 slots)", tasks=7),)
    made: StatusRecord = empty(
        StatusRecord,
        at=0.0,
        serving=True,
        ledger="ok",
        runs=(run,),
        ended=(run.model_copy(update={"state": "failed", "ended": 0.0}),),
        restores=(),
        tasks=(),
        standing_by=(),
        waiting=waiting,
        proxies=proxies,
        slots=8,
        used=6,
        warnings=("repository main: 3.1 GiB of 100 GiB left",),
    )
    return made


def seen(record: StatusRecord, *, width: int, height: int, page: int = 0) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None, highlight=False)
    console.print(live_view(record, console, page=page))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(160, 50), (80, 24), (60, 24), (44, 30)])
def test_it_fits_the_terminal_with_alarms_runs_disks_and_reasons(
    record: StatusRecord, width: int, height: int
) -> None:
    lines = seen(record, width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for what in ("! repository main: 3.1 GiB of 100 GiB left", "proxy-2", "26%", "web00", "7 tasks waiting:"):
        assert what in text
    assert lines[-1].startswith("q ends")


def test_nothing_is_said_of_proxies_while_redis_is_away(record: StatusRecord) -> None:
    away = record.model_copy(update={"ledger": "no answer", "proxies": ()})
    shown = seen(away, width=80, height=40)
    assert "What proxies do is not known." in [line.strip() for line in shown]
    assert not any("No proxy has registered" in line for line in shown)


def test_space_shows_the_next_disks_until_the_first_come_again(record: StatusRecord) -> None:
    pages = ["\n".join(seen(record, width=80, height=24, page=page)) for page in range(40)]
    assert all(f"web{number:02}" in "".join(pages) for number in range(30))
    assert "disks 1 to " in pages[0]
    assert pages[0] in pages[1:]


def test_a_key_is_read_without_waiting_for_return_and_the_terminal_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with reading_keys() as read_key:
            assert read_key(0.0) == ""
            os.write(keyboard, b"q")
            assert read_key(10.0) == "q"
        os.write(keyboard, b"a line\n")
        assert stdin.readline() == "a line\n"
    os.close(keyboard)


@pytest.mark.parametrize("together", [b" q", b"qq"])
def test_keys_that_come_together_all_count(applied: Program, together: bytes) -> None:
    keyboard, terminal = pty.openpty()
    words = [sys.executable, "-c", "from scheduler.cli import main; main()", "status"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as program:
        os.close(terminal)
        seen = b""
        while b"q ends" not in seen:
            seen += os.read(keyboard, 4096)
        os.write(keyboard, together)
        try:
            while os.read(keyboard, 4096):
                pass
        except OSError:  # nobody has the terminal open any more
            pass
        assert program.wait(120) == 0
    os.close(keyboard)
