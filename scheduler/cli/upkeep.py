"""What is known of a rescan, a check or a collection at one moment, how people see it, and how it is watched."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import CancelledError, DamageError, ProxyfleetError
from proxy_worker.contract.outcome import RepositoryCheckResult, RepositoryCollectResult, RepositoryProveResult
from proxy_worker.contract.requests import StoreRequests
from proxy_worker.program.units import size
from scheduler.cli.live import Live
from scheduler.cli.printing import duration, plural, state
from scheduler.cli.watching import Told, Watch
from scheduler.reports.shown import Moment, Seconds, Shown
from scheduler.state.models import LedgerTask, Request, WorkState

_Read = RepositoryCheckResult | RepositoryProveResult


class UpkeepRecord(Shown):
    """One rescan, check, proof or collection of a repository; also what `--json` prints."""

    request: str
    kind: str
    repository: str
    state: str
    proxy: str | None
    """Who is at it."""
    outcome: str
    """In one line: what was found, why it failed, or what it waits for; empty if there is nothing to say."""
    damage: tuple[str, ...]
    """What a check or a proof found damaged, one line each."""
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
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in {word.value for word in WorkState if word.final}


def upkeep_record(session: Session, request: Request, live: Live) -> UpkeepRecord:
    """What the database and, where it answers, the ledger say of a request."""
    tasks = session.scalars(select(LedgerTask.id).where(LedgerTask.request_id == request.id)).all()
    task = live.task(tasks)
    found = request.result if isinstance(request.result, RepositoryCheckResult | RepositoryProveResult) else None
    collected = request.result if isinstance(request.result, RepositoryCollectResult) else None
    return UpkeepRecord(
        request=request.id,
        kind=request.kind.value,
        repository=request.repository,
        state=request.state.value,
        proxy=task.proxy if task is not None else None,
        outcome=_outcome(request, found, live.reason(tasks) or ""),
        damage=found.damage if found is not None else (),
        mended=(*(f"mended {name}" for name in found.mended), *found.notes)
        if isinstance(found, RepositoryProveResult)
        else (),
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
    return Text.assemble(f"{record.kind} of {record.repository}{by}: ", state(record.state), said)


def upkeep_summary(record: UpkeepRecord) -> RenderableType:
    """The outcome, with everything that is damaged."""
    damage = (Text(f"  {line}", style="red") for line in record.damage)
    mended = (Text(f"  {line}") for line in record.mended)
    asked = [Text(f"  requests: {record.requests}")] if record.requests is not None else []
    return Group(upkeep_line(record), *damage, *mended, *(Text(f"  kept {line}") for line in record.kept), *asked)


def watch_of_upkeep(look: Callable[[], UpkeepRecord]) -> Watch[UpkeepRecord]:
    """How a request is watched."""
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
        on_interrupt="It goes on; `scheduler repository list` shows the outcome.",
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
    if isinstance(request.result, RepositoryCollectResult):
        return _collected(request.result)
    return request.summary or note


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
    return DamageError.exit_code if found is not None and found.damage else 0
