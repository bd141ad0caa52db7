"""`scheduler dispatch`: how jobs share the fleet."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from scheduler.cli import completion
from scheduler.cli.absent_proxies import warn_of_absent_proxies
from scheduler.cli.arguments import AsJson, JobName, RepositoryName, WindowZone, window_of
from scheduler.cli.opening import opened_state
from scheduler.cli.printing import facts, note, print_json, show_rows
from scheduler.cli.printing import show as print_view
from scheduler.fleet.amending import amend, amend_dispatch
from scheduler.fleet.dispatching import Dispatch
from scheduler.fleet.models import Fleet
from scheduler.fleet.stored import stored_dispatch, stored_fleet
from scheduler.state.declared import Priority

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Say which disks go when and where: windows, preferred proxies, limits of datastores.",
)

Hours = Annotated[
    list[str] | None,
    typer.Option("--window", metavar="HOURS", help="When disks may begin: 'Mon-Fri 20:00-6:00'. Repeatable."),
]
AnyTime = Annotated[bool, typer.Option("--any-time", help="No window any more.")]
Preferred = Annotated[
    list[str] | None,
    typer.Option(
        "--prefer-proxy",
        metavar="PROXY",
        help="Who gets the disks while they have slots to spare: a name or pattern, '' for nobody. Repeatable.",
        autocompletion=completion.proxies,
    ),
]
Stop = Annotated[
    float | None,
    typer.Option("--latency-stop", metavar="MS", help="Begin no more disks of a datastore that answers so slowly."),
]
Throttle = Annotated[
    float | None,
    typer.Option("--latency-throttle", metavar="MS", help="Pause some of its disks that are being read."),
]


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show what is declared. It holds for the fleet, and for the jobs, repositories and datastores that say more.

    \b
    Examples:
      scheduler dispatch show
      scheduler dispatch show --json | jq .fleet.window
    """
    with opened_state() as state, state.read() as session:
        fleet = stored_fleet(session)
    terms = _terms(fleet)
    if as_json:
        particular = [{"kind": kind, "name": name, **keys} for kind, name, keys in terms]
        print_json({"fleet": fleet.dispatch.model_dump(mode="json"), "particular": particular})
        return
    print_view(facts(_fleet_rows(fleet.dispatch)))
    if terms:
        note("")
        show_rows(
            {
                "KIND": [kind for kind, _, _ in terms],
                "NAME": [Text(name) for _, name, _ in terms],
                "SAYS": [
                    Text(", ".join(f"{key} {_said(value)}" for key, value in keys.items())) for *_, keys in terms
                ],
            }
        )


@app.command()
def fleet(
    *,
    hours: Hours = None,
    any_time: AnyTime = False,
    timezone: WindowZone = None,
    patience: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a disk waits for a better mode or a preferred proxy."),
    ] = None,
    stop_ms: Stop = None,
    throttle_ms: Throttle = None,
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--prefer-network",
            metavar="NETWORK",
            help="Over what gateways with an address there are reached: '10.9.0.0/16', '' for any. Repeatable.",
        ),
    ] = None,
) -> None:
    """Change what holds for all jobs and datastores. Restores may run at any time.

    \b
    Examples:
      scheduler dispatch fleet --window 'Mon-Fri 20:00-6:00' --window 'Sat,Sun 0:00-24:00' --timezone Europe/Berlin
      scheduler dispatch fleet --any-time --patience 120
      scheduler dispatch fleet --latency-stop 15 --latency-throttle 25
      scheduler dispatch fleet --prefer-network 10.9.0.0/16 --prefer-network 10.0.0.0/8
    """
    keys = _window(hours, timezone, any_time=any_time)
    if patience is not None:
        keys["patience_seconds"] = patience
    if networks is not None:
        keys["preferred_networks"] = _names(networks)
    _require_change(keys, stop_ms, throttle_ms)
    with opened_state() as state, state.write() as session:
        latency = stored_dispatch(session).latency
        keys["latency"] = {
            "stop_ms": latency.stop_ms if stop_ms is None else stop_ms,
            "throttle_ms": latency.throttle_ms if throttle_ms is None else throttle_ms,
        }
        amend_dispatch(session, keys)
    note("The fleet's dispatch is changed.")


@app.command()
def job(
    name: JobName,
    *,
    hours: Hours = None,
    any_time: AnyTime = False,
    timezone: WindowZone = None,
    proxies: Annotated[
        list[str] | None,
        typer.Option(
            "--only-proxy",
            metavar="PROXY",
            help="Who alone may have its disks: a name or pattern, '' for anybody. Repeatable.",
            autocompletion=completion.proxies,
        ),
    ] = None,
    preferred: Preferred = None,
    priority: Annotated[Priority | None, typer.Option(help="Who goes first when slots are short.")] = None,
) -> None:
    """Change when and where a job's disks go. It also says before which others.

    \b
    Examples:
      scheduler dispatch job nightly --window '22:00-6:00' --timezone Europe/Berlin
      scheduler dispatch job nightly --only-proxy 'dmz-*' --prefer-proxy dmz-1 --priority high
    """
    keys = _window(hours, timezone, any_time=any_time) | _preferred(preferred)
    if proxies is not None:
        keys["proxies"] = _names(proxies) or None
    if priority is not None:
        keys["priority"] = priority.value
    _require_change(keys)
    with opened_state() as state, state.write() as session:
        amend(session, "job", name, keys)
        changed = stored_fleet(session)
    warn_of_absent_proxies(changed, f"job {name!r}")
    note(f"Job {name} is changed.")


@app.command()
def repository(name: RepositoryName, preferred: Preferred = None) -> None:
    """Change which proxies a repository prefers. They get the disks that go to it while they have slots to spare.

    \b
    Examples:
      scheduler dispatch repository main --prefer-proxy 'primary-*'
    """
    keys = _preferred(preferred)
    _require_change(keys)
    with opened_state() as state, state.write() as session:
        amend(session, "repository", name, keys)
        changed = stored_fleet(session)
    warn_of_absent_proxies(changed, f"repository {name!r}")
    note(f"Repository {name} is changed.")


@app.command()
def datastore(
    name: Annotated[
        str, typer.Argument(metavar="DATASTORE", help="The datastore's name.", autocompletion=completion.datastores)
    ],
    slots: Annotated[
        int | None,
        typer.Option("--max-concurrent-tasks", metavar="N", min=0, help="Disks moved at once; 0 for no limit."),
    ] = None,
    stop_ms: Stop = None,
    throttle_ms: Throttle = None,
) -> None:
    """Change how much is read from a datastore at once. It may also say what is done when the datastore is slow
    to answer.

    \b
    Examples:
      scheduler dispatch datastore ds-12 --max-concurrent-tasks 8
      scheduler dispatch datastore ds-12 --latency-stop 10 --latency-throttle 20
    """
    keys: dict[str, Any] = {} if slots is None else {"max_concurrent_tasks": slots or None}
    _require_change(keys, stop_ms, throttle_ms)
    with opened_state() as state, state.write() as session:
        declared = next((one for one in stored_fleet(session).datastore if one.name == name), None)
        if stop_ms is not None or throttle_ms is not None:
            latency = (declared.latency if declared is not None else None) or stored_dispatch(session).latency
            keys["latency"] = {
                "stop_ms": latency.stop_ms if stop_ms is None else stop_ms,
                "throttle_ms": latency.throttle_ms if throttle_ms is None else throttle_ms,
            }
        amend(session, "datastore", name, keys)
    note(f"Datastore {name} is changed.")


def _require_change(keys: dict[str, Any], *latency: float | None) -> None:
    if not keys and all(limit is None for limit in latency):
        raise typer.BadParameter(
            "there is nothing to change: give an option; `scheduler dispatch show` shows what is declared"
        )


def _window(hours: list[str] | None, timezone: str | None, *, any_time: bool) -> dict[str, Any]:
    window = window_of(hours, timezone)
    if any_time and window is not None:
        raise typer.BadParameter("--window and --any-time contradict each other: give one of them")
    return {"window": window} if any_time or window is not None else {}


def _preferred(names: list[str] | None) -> dict[str, Any]:
    return {} if names is None else {"preferred_proxies": _names(names)}


def _names(given: list[str]) -> list[str]:
    return [name for name in given if name]


def _fleet_rows(dispatch: Dispatch) -> list[tuple[str, str | Text]]:
    return [
        ("window", str(dispatch.window) if dispatch.window is not None else "at any time"),
        ("patience", f"{dispatch.patience_seconds:g} s"),
        (
            "slow datastores",
            f"no more from {dispatch.latency.stop_ms:g} ms, paused from {dispatch.latency.throttle_ms:g} ms",
        ),
        ("preferred networks", ", ".join(dispatch.preferred_networks) or "none"),
    ]


def _terms(fleet: Fleet) -> list[tuple[str, str, dict[str, Any]]]:
    keys = {"window", "proxies", "preferred_proxies", "max_concurrent_tasks", "latency", "priority"}
    found = []
    for kind in ("job", "repository", "datastore"):
        for declared in getattr(fleet, kind):
            said = declared.model_dump(mode="json", include=keys, exclude_defaults=True)
            if said:
                found.append((kind, declared.name, said))
    return found


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_said(entry) for entry in value.values())
    return " ".join(value) if isinstance(value, list) else str(value)
