"""Looking at something again and again until it has ended: a live view in a terminal, lines elsewhere."""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NoReturn, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.live import Live

from proxy_worker.program.commands import INTERRUPTED
from scheduler.cli.printing import console, note, print_json, show
from scheduler.cli.records import DiskRecord, RunRecord, VmRecord
from scheduler.cli.run_view import headline, live_view, progress_line
from scheduler.state.errors import StateUnreachableError

LOOK_EVERY_S = 0.3
PATIENCE_S = 120.0
"""So long a database that doesn't answer is asked again: what is watched goes on meanwhile, and has not failed."""
REST_PER_LOOK = 9
"""At least so many times as long as a look took, nothing is done: watching hundreds of disks stays cheap."""
LINE_EVERY_S = 10.0
"""How often a disk that goes on as before gets another line where there is no live view."""

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)


class Watch(Generic[T]):
    """How to look at one thing, when it has ended, and what to say about it meanwhile."""

    def __init__(
        self,
        look: Callable[[], T],
        *,
        ended: Callable[[T], bool],
        view: Callable[[T, Console], RenderableType],
        news: Callable[[T], Iterable[str]],
        on_interrupt: str,
    ) -> None:
        self._look = look
        self._ended = ended
        self._view = view
        self._news = news
        self._on_interrupt = on_interrupt
        self._looking_takes_s = 0.0

    def until_ended(self, console: Console, *, quiet: bool = False) -> T:
        """Show it on `console` until it has ended, and return it as it was then.

        A view that is replaced in place where `console` is a terminal, lines of news otherwise, nothing if
        `quiet`. Ctrl-C leaves what is watched alone, says how to go on, and exits.
        """
        try:
            if console.is_terminal and not console.is_dumb_terminal and not quiet:
                return self._live(console)
            return self._in_lines(console, quiet=quiet)
        except KeyboardInterrupt as error:
            note(self._on_interrupt)
            raise typer.Exit(INTERRUPTED) from error

    def _live(self, console: Console) -> T:
        seen = self._look()
        with Live(self._view(seen, console), console=console, auto_refresh=False, transient=True) as live:
            while not self._ended(seen):
                seen = self._look_again()
                live.update(self._view(seen, console), refresh=True)
        return seen

    def _in_lines(self, console: Console, *, quiet: bool) -> T:
        seen = self._look()
        while True:
            if not quiet:
                for line in self._news(seen):
                    console.print(line, markup=False, soft_wrap=True)
            if self._ended(seen):
                return seen
            seen = self._look_again()

    def _look_again(self) -> T:
        time.sleep(max(LOOK_EVERY_S, self._looking_takes_s * REST_PER_LOOK))
        began = time.monotonic()
        seen = self._look_patiently(began + PATIENCE_S)
        self._looking_takes_s = time.monotonic() - began
        return seen

    def _look_patiently(self, until: float) -> T:
        while True:
            try:
                return self._look()
            except StateUnreachableError:
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_EVERY_S)


def follow_to_end(
    watch: Watch[R], summary: Callable[[R], RenderableType], exit_code: Callable[[R], int], *, as_json: bool
) -> NoReturn:
    """Watch until it has ended, print it as it is then, and exit with its code.

    With `as_json` standard output gets nothing but the JSON at the end, and progress goes to a terminal on
    standard error, if there is one.
    """
    out = console(sys.stderr if as_json else sys.stdout)
    record = watch.until_ended(out, quiet=as_json and not out.is_terminal)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        show(summary(record))
    raise typer.Exit(exit_code(record))


class Told:
    """What has been said already, so that a log gets what is new at once and what goes on now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[Hashable, tuple[Hashable, float]] = {}
        self._since: dict[Hashable, tuple[Hashable, float]] = {}

    def is_news(self, subject: Hashable, what: Hashable, *, moving: bool = False) -> bool:
        """Whether to say `what` about `subject`: it is another thing than before, or moving and due again."""
        now = self._clock()
        before, told_at = self._told.get(subject, (None, 0.0))
        if before == what and not (moving and now - told_at >= LINE_EVERY_S):
            return False
        self._told[subject] = (what, now)
        return True

    def lasts(self, subject: Hashable, what: Hashable) -> bool:
        """Whether to say `what` about `subject`, once: it has been so for a while, which most of it never is."""
        now = self._clock()
        before, since = self._since.get(subject, (None, now))
        if before != what:
            self._since[subject] = (what, now)
            return False
        return now - since >= LINE_EVERY_S and self.is_news(subject, what)

    def knows(self, subject: Hashable) -> bool:
        """Whether anything has been said about `subject`."""
        return subject in self._told


def news_of_run(told: Told, run: RunRecord) -> list[str]:
    """What is new about a run and its disks."""
    lines = [headline(run).plain] if not run.final and told.is_news(run.run, run.state) else []
    if run.reason and not run.final and told.lasts(("run", run.run), (run.state, _apart_from_seconds(run.reason))):
        lines.append(f"run {run.run}: {run.state}: {run.reason}")
    lines += [progress_line(disk) for disk in run.disks if _is_news(told, disk)]
    by_disk = {disk.vm for disk in run.disks if disk.reason}
    lines += [f"{vm.vm}: {vm.state}: {vm.reason}" for vm in run.vms if vm.vm not in by_disk and _holds_up(told, vm)]
    return lines


def _holds_up(told: Told, vm: VmRecord) -> bool:
    if not vm.reason or vm.reason == vm.state:
        return False
    return told.lasts(("VM", vm.vm_id or vm.vm, vm.original), (vm.state, _apart_from_seconds(vm.reason)))


def _apart_from_seconds(reason: str) -> str:
    return re.sub(r"\d+ s\b", "", reason)


def _is_news(told: Told, disk: DiskRecord) -> bool:
    subject = (disk.of, disk.disk)
    if disk.state == "queued" and disk.reason is None and told.knows(subject):
        return False  # between the ledger, where it has ended, and the database, which doesn't know yet
    what = (disk.state, disk.proxy, disk.reason)
    return told.is_news(subject, what, moving=disk.state == "running")


def watch_of_run(look: Callable[[], RunRecord], run_id: str) -> Watch[RunRecord]:
    """How a run is watched."""
    return Watch(
        look,
        ended=lambda run: run.final,
        view=live_view,
        news=functools.partial(news_of_run, Told()),
        on_interrupt=f"Run {run_id} goes on.\n"
        f"  watch it:  scheduler run watch {run_id}\n  cancel it: scheduler run cancel {run_id}",
    )
