"""What is known of a rescan, a check, a proof or a collection at one moment, how people see it, and watch it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, DamageError, ProxyfleetError
from proxy_worker.contract.outcome import RepositoryCheckResult, RepositoryCollectResult, RepositoryProveResult
from proxy_worker.contract.requests import StoreRequests
from proxy_worker.contract.using import PointBootResult
from proxy_worker.program.units import size
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.printing import duration, plural, state
from scheduler.cli.watching import Told, Watch, follow_to_end
from scheduler.reports.shown import Moment, Seconds, Shown
from scheduler.state.models import LedgerTask, Request, WorkState
from scheduler.state.store import State

_Read = RepositoryCheckResult | RepositoryProveResult


class UpkeepRecord(Shown):
    """One rescan, check, proof or collection of a repository; also what `--json` prints."""

    request: str
    kind: str
    repository: str
    point: str | None
    """Of a restore point: its VM and its id."""
    state: str
    proxy: str | None
    """Who is at it."""
    outcome: str
    """In one line: what was found, why it failed, or what it waits for; empty if there is nothing to say."""
    damage: tuple[str, ...]
    """What a check or a proof found damaged, one line each."""
    said: tuple[str, ...]
    """The last that a VM said on its console that was started from a restore point, one line each."""
    mended: tuple[str, ...]
    """What a proof mended, and what kept it from more, one line each."""
    packs: int | None
    read_bytes: int | None
    duration_seconds: Seconds | None
    freed_bytes: int | None
    """By a collection."""
    kept: tuple[str, ...]
    """What a collection left, and why, one line each."""
    requests: StoreRequests | None
    """Of the repository's object store; None where it isn't in one."""
    exit_code: int
    """Of a command that waits for it."""
    created: Moment
    ended: Moment | None

    @property
    def subject(self) -> str:
        """What it is done to."""
        return self.point or self.repository

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {word.value for word in WorkState if word.final}


def upkeep_record(session: Session, request: Request, live: Live) -> UpkeepRecord:
    """What the database and, where it answers, the ledger say of a request."""
    tasks = session.scalars(select(LedgerTask.id).where(LedgerTask.request_id == request.id)).all()
    task = live.task(tasks)
    found = request.result if isinstance(request.result, RepositoryCheckResult | RepositoryProveResult) else None
    collected = request.result if isinstance(request.result, RepositoryCollectResult) else None
    booted = request.result if isinstance(request.result, PointBootResult) else None
    return UpkeepRecord(
        request=request.id,
        kind=request.kind.value,
        repository=request.repository,
        point=f"{request.vm_name} {request.point}" if request.point is not None else None,
        state=request.state.value,
        proxy=task.proxy if task is not None else None,
        outcome=_outcome(request, found, live.reason(tasks) or ""),
        damage=found.damage if found is not None else (),
        said=booted.last_lines if booted is not None else (),
        mended=(*(f"mended {name}" for name in found.mended), *found.notes)
        if isinstance(found, RepositoryProveResult)
        else (collected.notes if collected is not None else ()),
        packs=found.packs if found is not None else None,
        read_bytes=found.read_bytes if found is not None else None,
        duration_seconds=found.duration_seconds if found is not None else None,
        freed_bytes=collected.freed_bytes if collected is not None else None,
        kept=tuple(f"{plural(kept.packs, 'pack')}, {size(kept.size_bytes)}: {kept.why}" for kept in collected.kept)
        if collected is not None
        else (),
        requests=found.requests if found is not None else collected.requests if collected is not None else None,
        exit_code=_exit_code(request, found),
        created=request.created_at,
        ended=request.ended_at,
    )


def upkeep_line(record: UpkeepRecord) -> Text:
    """One line that says how a request stands."""
    by = f" on {record.proxy}" if record.proxy else ""
    said = f": {record.outcome}" if record.outcome else ""
    return Text.assemble(f"{record.kind} of {record.subject}{by}: ", state(record.state), said)


def upkeep_summary(record: UpkeepRecord) -> RenderableType:
    """The outcome, with everything that is damaged."""
    damage = (Text(f"  {line}", style="red") for line in record.damage)
    mended = (Text(f"  {line}") for line in (*record.mended, *record.said))
    asked = [Text(f"  requests: {record.requests}")] if record.requests is not None else []
    return Group(upkeep_line(record), *damage, *mended, *(Text(f"  kept {line}") for line in record.kept), *asked)


def follow(opened: State, request_id: str, *, as_json: bool, where: str) -> NoReturn:
    """Show how a request is until it has ended, then exit with its code; `where` its outcome can be seen later."""
    window = LedgerWindow()
    watch = _watch(lambda: read_upkeep(opened, request_id, window), where)
    follow_to_end(watch, upkeep_summary, lambda record: record.exit_code, as_json=as_json)


def read_upkeep(opened: State, request_id: str, window: LedgerWindow | None = None) -> UpkeepRecord:
    """What is known of a request now."""
    with opened.read() as session:
        live = window.look(session) if window is not None else Live()
        return upkeep_record(session, session.get_one(Request, request_id), live)


def _watch(look: Callable[[], UpkeepRecord], where: str) -> Watch[UpkeepRecord]:
    told = Told()

    def news(record: UpkeepRecord) -> list[str]:
        if record.final or (record.proxy is None and told.knows(record.request)):
            return []
        return [upkeep_line(record).plain] if told.is_news(record.request, (record.state, record.proxy)) else []

    return Watch(
        look,
        ended=lambda record: record.final,
        view=lambda record, _: upkeep_line(record),
        news=news,
        on_interrupt=f"It goes on; {where} shows the outcome.",
    )


def _outcome(request: Request, found: _Read | None, note: str) -> str:
    if request.failure is not None and request.state is not WorkState.SUCCEEDED:
        return str(request.failure)
    if found is not None:
        verdict = f"{plural(len(found.damage), 'problem')} found" if found.damage else "sound"
        return (
            f"{verdict}, {plural(found.packs, 'pack')}, {size(found.read_bytes)} read "
            f"in {duration(found.duration_seconds)}"
        )
    if isinstance(request.result, PointBootResult):
        return _booted(request.result)
    if isinstance(request.result, RepositoryCollectResult):
        return _collected(request.result)
    return request.summary or note


def _booted(result: PointBootResult) -> str:
    if result.prompt is None:
        return f"no login prompt: {result.why} ({result.machine})"
    return f"'{result.prompt}' after {duration(result.duration_seconds)} ({result.machine})"


def _collected(result: RepositoryCollectResult) -> str:
    freed = f"freed {size(result.freed_bytes)}, {size(result.live_bytes)} needed by restore points"
    if result.waiting_for:
        return f"{freed}; more when {plural(len(result.waiting_for), 'backup')} at work will have ended"
    return f"{freed}, in {duration(result.duration_seconds)}"


def _exit_code(request: Request, found: _Read | None) -> int:
    if request.state is WorkState.CANCELLED:
        return CancelledError.exit_code
    if request.state is WorkState.FAILED:
        return request.failure.exit_code if request.failure is not None else ProxyfleetError.exit_code
    if isinstance(request.result, PointBootResult) and request.result.prompt is None:
        return ProxyfleetError.exit_code
    return DamageError.exit_code if found is not None and found.damage else 0
