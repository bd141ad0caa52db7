"""What is known of a proxy at one moment: what was declared, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.ledger import FleetView, ProxyView
from scheduler.cli.finding import no_such_proxy
from scheduler.deployment.server import ProxyServer
from scheduler.reports.shown import Shown
from scheduler.state.models import Proxy, ProxyDeployment


class ServerRecord(Shown):
    """The machine that the scheduler put a proxy on, and what is there."""

    host: str
    port: int
    user: str
    host_key: str | None
    """The fingerprint that it is pinned by."""
    state: str
    """`declared`, `deploying`, `deployed` or `failed`."""
    step: str
    """Where it is, or failed."""
    problem: str
    release: str | None
    system: str
    kept_running_by: str
    account: str


class ProxyRecord(Shown):
    """One proxy; also what `--json` prints."""

    name: str
    site: str | None
    state: str
    """`up`, `draining`, `unfit` or `refused` (`note` says why), `disabled`, `down` (no recent heartbeat), or `never
    seen`."""
    note: str
    """Why it gets no tasks although nobody told it so; empty otherwise."""
    slots: int | None
    used: int
    tasks: tuple[str, ...]
    """What it works on, as people name it."""
    datastores: dict[str, tuple[str, ...]]
    """Each with the transport modes that it offers there."""
    modes: tuple[str, ...]
    """Transport modes for disks of no datastore."""
    credentials: dict[str, str]
    """Each repository credential it holds: `read` or `write`."""
    version: str | None
    declared: bool
    enabled: bool
    heartbeat_age_seconds: float | None
    description: str
    server: ServerRecord | None
    """None: others install it."""


def proxy_records(session: Session, view: FleetView | None) -> list[ProxyRecord]:
    """Every proxy that is declared or has registered, by name."""
    declared = {proxy.name: proxy for proxy in session.scalars(select(Proxy))}
    deployed = {row.name: row for row in session.scalars(select(ProxyDeployment))}
    seen = view.proxies if view is not None else {}
    return [
        _record(name, declared.get(name), deployed.get(name), seen.get(name), view)
        for name in sorted(declared.keys() | seen.keys())
    ]


def _record(
    name: str,
    declared: Proxy | None,
    deployed: ProxyDeployment | None,
    seen: ProxyView | None,
    view: FleetView | None,
) -> ProxyRecord:
    registration = seen.registration if seen is not None else None
    enabled = declared.enabled if declared is not None else True
    tasks = view.tasks.values() if view is not None else ()
    return ProxyRecord(
        name=name,
        site=registration.site if registration is not None else declared.site if declared is not None else None,
        note=(seen.refusal or seen.note) if seen is not None and seen.live else "",
        state=_state(seen, enabled=enabled, ledger_answers=view is not None),
        slots=_slots(declared, seen),
        used=seen.slots_used if seen is not None else 0,
        tasks=tuple(sorted(task.title for task in tasks if task.proxy == name)),
        datastores={store: tuple(modes) for store, modes in registration.datastores.items()}
        if registration
        else {},
        modes=tuple(registration.modes) if registration else (),
        credentials=dict(registration.credentials) if registration else {},
        version=registration.version if registration else None,
        declared=declared is not None,
        enabled=enabled,
        heartbeat_age_seconds=round(seen.heartbeat_age_s, 1) if seen is not None else None,
        description=declared.description if declared is not None else "",
        server=_server(declared.server, deployed) if declared is not None and declared.server is not None else None,
    )


def _slots(declared: Proxy | None, seen: ProxyView | None) -> int | None:
    """What is declared, which the ledger hears of a moment later; no more than the proxy itself allows."""
    limits = (
        declared.max_concurrent_tasks if declared is not None else None,
        seen.registration.max_concurrent_tasks if seen is not None else None,
    )
    return min((limit for limit in limits if limit is not None), default=None)


def _server(server: ProxyServer, deployed: ProxyDeployment | None) -> ServerRecord:
    return ServerRecord(
        host=server.host,
        port=server.port,
        user=server.user,
        host_key=server.host_key or (deployed.host_key if deployed else "") or None,
        state=deployed.state if deployed else "declared",
        step=deployed.step if deployed else "",
        problem=deployed.problem if deployed else "",
        release=deployed.release if deployed else None,
        system=deployed.system if deployed else "",
        kept_running_by=deployed.kept_running_by if deployed else "",
        account=deployed.account if deployed else "",
    )


def _state(seen: ProxyView | None, *, enabled: bool, ledger_answers: bool) -> str:
    if not ledger_answers:
        return "unknown"
    if seen is None:
        return "never seen"
    if not seen.live:
        return "down"
    if not enabled:
        return "draining" if seen.slots_used else "disabled"
    if seen.refusal or seen.note:
        return "refused" if seen.refusal else "unfit"
    return "draining" if seen.draining else "up"


def server_rows(record: ProxyRecord) -> list[tuple[str, str | Text]]:
    """What there is to show of the machine that a proxy was put on."""
    server = record.server
    if server is None:
        return []
    step = f" at: {server.step}" if server.step else ""
    problem = f", {server.problem}" if server.problem else ""
    return [
        ("server", f"{server.user}@{server.host}:{server.port}"),
        ("host key", server.host_key or "not pinned yet"),
        ("deployment", f"{server.state}{step}{problem}"),
        ("release", server.release or "-"),
        ("system", server.system or "-"),
        ("runs as", f"{server.account}, kept running by {server.kept_running_by}" if server.account else "-"),
    ]


def record_of(records: Sequence[ProxyRecord], name: str) -> ProxyRecord:
    """The proxy of that name; raises `NoSuchProxyError`."""
    found = next((record for record in records if record.name == name), None)
    if found is None:
        raise no_such_proxy(name, [record.name for record in records])
    return found
