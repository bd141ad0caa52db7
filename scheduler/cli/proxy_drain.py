"""`scheduler proxy drain|resume|set`: how much a proxy is given to do, from the next moment on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from proxy_worker.contract.errors import LedgerError
from proxy_worker.ledger import FleetView
from scheduler.cli.arguments import ProxyName
from scheduler.cli.live import LedgerWindow
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import console, note, plural
from scheduler.cli.proxy_record import ProxyRecord, proxy_records, record_of
from scheduler.cli.watching import Watch
from scheduler.dispatch.flight import at_rest
from scheduler.state.models import Proxy
from scheduler.state.store import State

MOST_SLOTS = 256


class NoFleetError(LedgerError):
    """Which proxies there are isn't known while the ledger doesn't answer."""


def drain(
    name: ProxyName,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has nothing left to do.")] = False,
) -> None:
    """Give a proxy no more tasks. Those it has go on to their end.

    It takes effect within a second, in the middle of runs, and lasts until `proxy resume`. Ctrl-C while waiting
    leaves it draining.

    \b
    Examples:
      scheduler proxy drain proxy-1
      scheduler proxy drain proxy-1 --wait && ssh proxy-1 sudo reboot
    """
    with opened_state() as state:
        if wait:
            require_service(state, f"proxy {name!r} was not told to stop")
        record = _declare(state, LedgerWindow().look().view, name, enabled=False)
        if wait:
            _until_at_rest(state, name)
            note(f"Proxy {name} has nothing left to do.")
        elif record.tasks:
            note(f"Proxy {name} gets no more tasks; {plural(len(record.tasks), 'task')} of it goes on.")
        else:
            note(f"Proxy {name} gets no more tasks, and has none.")
        warn_without_service(state, "it is told so")


def resume(name: ProxyName) -> None:
    """Let a proxy have tasks again.

    \b
    Examples:
      scheduler proxy resume proxy-1
    """
    with opened_state() as state:
        _declare(state, LedgerWindow().look().view, name, enabled=True)
        note(f"Proxy {name} gets tasks.")
        warn_without_service(state, "it is told so")


def set_(
    name: ProxyName,
    slots: Annotated[
        int,
        typer.Option(
            "--max-concurrent-tasks",
            metavar="N",
            min=0,
            max=MOST_SLOTS,
            help="How many disks it moves at once; 0 for as many as its own proxy.toml says.",
        ),
    ],
) -> None:
    """Change how many disks a proxy moves at once. It holds in the middle of runs.

    With fewer, those that are under way go on to their end, and none is begun until there are few enough. It can't
    be more than the proxy's own proxy.toml says.

    \b
    Examples:
      scheduler proxy set proxy-1 --max-concurrent-tasks 2
    """
    with opened_state() as state:
        view = LedgerWindow().look().view
        _declare(state, view, name, max_concurrent_tasks=slots or None)
        seen = view.proxies.get(name) if view is not None else None
        own = seen.registration.max_concurrent_tasks if seen is not None else None
        if own is not None and slots > own:
            note(f"warning: its own proxy.toml allows {own}, and the smaller number counts.")
        if slots or own:
            note(f"Proxy {name} moves at most {plural(min(slots or own or 0, own or slots), 'disk')} at once.")
        else:
            note(f"Proxy {name} moves as many disks at once as its own proxy.toml says.")
        warn_without_service(state, "it is told so")


def _declare(state: State, view: FleetView | None, name: str, **columns: bool | int | None) -> ProxyRecord:
    with state.write() as session:
        record = record_of(proxy_records(session, view), name)
        declared = session.get(Proxy, name)
        if declared is None:
            declared = Proxy(name=name)
            session.add(declared)
        for column, value in columns.items():
            setattr(declared, column, value)
    return record


def _until_at_rest(state: State, name: str) -> None:
    window = LedgerWindow()

    def look() -> tuple[ProxyRecord, bool]:
        view = window.look().view
        if view is None:
            raise NoFleetError(f"what proxy {name} does is not known", why=window.problem or "")
        with state.read() as session:
            record = record_of(proxy_records(session, view), name)
        return record, at_rest(view, name)

    told: set[str] = set()

    def news(seen: tuple[ProxyRecord, bool]) -> Iterator[str]:
        record, _ = seen
        fresh = set(record.tasks) - told
        told.update(fresh)
        yield from (f"proxy {name} still works on {task}" for task in sorted(fresh))

    Watch(
        look,
        ended=lambda seen: seen[1],
        view=_view,
        news=news,
        on_interrupt=f"Proxy {name} goes on draining. Have it work again with `scheduler proxy resume {name}`.",
    ).until_ended(console())


def _view(seen: tuple[ProxyRecord, bool], _: Console) -> RenderableType:
    record, _rest = seen
    return Group(f"proxy {record.name}: {record.state}", *(Text(f"  {task}") for task in record.tasks))
