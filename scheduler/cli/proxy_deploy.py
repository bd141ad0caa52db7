"""`scheduler proxy deploy`, `upgrade` and `remove`: proxies on machines that are declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import select

from proxy_worker.contract.errors import NotFoundError
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, ProxyName
from scheduler.cli.printing import note, plural, print_json
from scheduler.fleet.editing import withdraw
from scheduler.state.models import Proxy, ProxyDeployment

if TYPE_CHECKING:
    from scheduler.cli.deploying import Opened
    from scheduler.deployment.progress import Steps

DEFAULT_WAIT_S = 60.0
DEFAULT_DRAIN_MINUTES = 60.0

ProxyNames = Annotated[
    list[str] | None, typer.Argument(metavar="[PROXY]...", help="Their names.", autocompletion=completion.proxies)
]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=1, help="How long a started proxy may take to register.")
]
DrainMinutes = Annotated[
    float,
    typer.Option(
        metavar="MINUTES",
        min=0,
        help="How long its tasks may take to end. Then they are handed back, with their checkpoints.",
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="All that the scheduler puts on machines.")]


class WhichProxiesError(NotFoundError):
    """No proxies were named, or there are none that the scheduler put anywhere."""


def deploy(
    names: ProxyNames = None,
    *,
    everything: Everything = False,
    host_key: Annotated[
        str | None, typer.Option(metavar="SHA256:…", help="Pin this SSH host key from now on.")
    ] = None,
    wait: Wait = DEFAULT_WAIT_S,
    drain_minutes: DrainMinutes = DEFAULT_DRAIN_MINUTES,
    as_json: AsJson = False,
) -> None:
    """Put declared proxies on their machines. Done again, it brings them up to date, or goes on after a failure.

    What is done already is left alone. A proxy whose configuration or release changes is brought to rest first.

    \b
    Examples:
      scheduler proxy deploy proxy-1
      scheduler apply -f fleet.toml && scheduler proxy deploy --all
      scheduler proxy deploy proxy-1 --host-key SHA256:…
    """
    from scheduler.cli.deploying import opened_for_deploying  # noqa: PLC0415 - SSH's library is slow to load

    with opened_for_deploying() as opened:
        chosen = _chosen(opened, names, everything=everything)
        if host_key is not None:
            _pin(opened, chosen, host_key)
        _deploy_all(opened, chosen, keep=0, wait=wait, drain_minutes=drain_minutes, as_json=as_json)


def upgrade(
    names: ProxyNames = None,
    *,
    everything: Everything = False,
    keep: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=0, help="Never have fewer proxies running; all but one unless told."),
    ] = None,
    wait: Wait = DEFAULT_WAIT_S,
    drain_minutes: DrainMinutes = DEFAULT_DRAIN_MINUTES,
    as_json: AsJson = False,
) -> None:
    """Upgrade deployed proxies to this scheduler's version. They go one after the other, each once its tasks have
    ended.

    One that doesn't register with the new version goes back to the one before it, and no further one is touched.

    \b
    Examples:
      scheduler proxy upgrade --all --keep 2
      scheduler proxy upgrade proxy-1 proxy-2
    """
    from scheduler.cli.deploying import opened_for_deploying  # noqa: PLC0415 - SSH's library is slow to load

    with opened_for_deploying() as opened:
        chosen = _chosen(opened, names, everything=everything, deployed=True)
        _deploy_all(opened, chosen, keep=keep, wait=wait, drain_minutes=drain_minutes, as_json=as_json)


def remove(
    name: ProxyName,
    *,
    leave_server: Annotated[
        bool, typer.Option("--leave-server", help="Only forget it here; don't connect to its machine.")
    ] = False,
    drain_minutes: DrainMinutes = DEFAULT_DRAIN_MINUTES,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a proxy. Its tasks end, it is stopped and uninstalled, its certificate is revoked, and it is
    forgotten.

    On its machine stay the user that it ran as and what it wrote elsewhere: repositories, restored files.

    \b
    Examples:
      scheduler proxy remove proxy-1
      scheduler proxy remove proxy-1 --leave-server      # its machine is gone
    """
    from scheduler.cli.deploying import (  # noqa: PLC0415 - SSH's library is slow to load
        StepPrinter,
        asks,
        opened_for_deploying,
    )
    from scheduler.deployment.progress import Steps  # noqa: PLC0415 - as above
    from scheduler.deployment.removing import quiet, uninstall, withdrawn  # noqa: PLC0415 - as above

    with opened_for_deploying() as opened:
        steps = Steps(name, StepPrinter())
        if opened.forget_undeclared(name):
            _tell_removed(name, steps, as_json=as_json)
            return
        declared = opened.declared(name)
        if not yes and asks():
            typer.confirm(f"Remove proxy {name} and all that it keeps on its machine", abort=True, err=True)
        if leave_server or declared.server is None:
            quiet(opened.watch, name, steps, drain_minutes * 60)
            withdrawn(opened.configuration, opened.watch, name, steps)
        else:
            uninstall(opened.configuration, opened.watch, declared, steps, drain_s=drain_minutes * 60)
        with opened.watch.state.write() as session:
            withdraw(session, "proxy", name)
    _tell_removed(name, steps, as_json=as_json)


def _tell_removed(name: str, steps: Steps, *, as_json: bool) -> None:
    from scheduler.cli.deploying import steps_as_json  # noqa: PLC0415 - SSH's library is slow to load

    if as_json:
        print_json({"proxy": name, "removed": True, "steps": steps_as_json(steps)})
    note(f"Removed proxy {name}.")


def _chosen(opened: Opened, names: list[str] | None, *, everything: bool, deployed: bool = False) -> list[str]:
    """The proxies that were meant; raises `WhichProxiesError` for none, and `NoSuchProxyError`."""
    if bool(names) == everything:
        raise WhichProxiesError(
            "proxies", why="name some, or give --all", remedy="`scheduler proxy list` shows them."
        )
    if names:
        return [opened.declared(name).name for name in dict.fromkeys(names)]
    with opened.watch.state.read() as session:
        query = select(Proxy.name).where(Proxy.server.is_not(None)).order_by(Proxy.name)
        if deployed:
            there = select(ProxyDeployment.name).where(ProxyDeployment.release.is_not(None))
            query = query.where(Proxy.name.in_(there))
        found = list(session.scalars(query))
    if not found:
        raise WhichProxiesError(
            "proxies that the scheduler puts on machines",
            why="there are none",
            remedy="`scheduler proxy add` adds one.",
        )
    return found


def _deploy_all(
    opened: Opened, names: list[str], *, keep: int | None, wait: float, drain_minutes: float, as_json: bool
) -> None:
    from scheduler.cli.deploying import StepPrinter, deploy_one  # noqa: PLC0415 - SSH's library is slow to load
    from scheduler.deployment.deploying import Waiting  # noqa: PLC0415 - as above
    from scheduler.deployment.rolling import Keeping, least_kept  # noqa: PLC0415 - as above

    keeping = Keeping(opened.watch, least_kept(opened.watch, keep))
    waiting = Waiting(wait, drain_minutes * 60)
    tell = StepPrinter()
    done: list[dict[str, Any]] = [deploy_one(opened, name, waiting, keeping, tell) for name in names]
    if as_json:
        print_json(done)
    changed = sum(one["restarted"] for one in done)
    note(f"{plural(len(done), 'proxy', 'proxies')} up to date, {changed} of them changed.")


def _pin(opened: Opened, names: list[str], host_key: str) -> None:
    from scheduler.cli.proxy_plan import checked_server  # noqa: PLC0415 - slow to load

    if len(names) != 1:
        raise WhichProxiesError("--host-key", why="it is of one machine", remedy="Name one proxy.")
    with opened.watch.state.write() as session:
        declared = session.get_one(Proxy, names[0])
        if declared.server is not None:
            keys = declared.server.model_dump(exclude_defaults=True)
            declared.server = checked_server({**keys, "host_key": host_key})
