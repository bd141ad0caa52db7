"""What the commands that put proxies on machines share: what they open, and how they tell of their steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from rich.status import Status
from rich.text import Text

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.cli.finding import no_such_proxy
from scheduler.cli.opening import configuration, open_ledger, opened_state
from scheduler.cli.printing import console, duration, note
from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.deploying import Deployed, Deployment, Waiting
from scheduler.deployment.errors import TooFewRunningError, UndeclaredRunsError
from scheduler.deployment.fleet_watch import FleetWatch
from scheduler.deployment.progress import Step, Steps, StepState
from scheduler.deployment.recording import record, record_failure, record_step
from scheduler.deployment.rolling import Keeping
from scheduler.deployment.server import ProxyServer
from scheduler.deployment.ssh import shown_fingerprint
from scheduler.state.models import DeploymentState, Proxy


@dataclass(frozen=True)
class Opened:
    """What deploying needs of this machine."""

    configuration: SchedulerConfiguration
    watch: FleetWatch

    def declared(self, name: str) -> Proxy:
        """The declaration of a proxy; raises `NoSuchProxyError`."""
        with self.watch.state.read() as session:
            found = session.get(Proxy, name)
            if found is None:
                raise no_such_proxy(name, [proxy.name for proxy in session.query(Proxy)])
            return found

    def forget_undeclared(self, name: str) -> bool:
        """Forget a proxy that joined by itself and is away; False where it is declared, or nobody knows it.

        Raises `UndeclaredRunsError`.
        """
        with self.watch.state.read() as session:
            declared = session.get(Proxy, name) is not None
        if declared or self.watch.proxy(name) is None:
            return False
        if not self.watch.ledger.forget_proxy(name):
            raise UndeclaredRunsError(
                f"proxy {name!r} can't be removed",
                why="it still runs, and it wasn't put on its machine from here",
                remedy="End it there: it is forgotten by itself then.",
            )
        return True


@contextmanager
def opened_for_deploying() -> Iterator[Opened]:
    """The database, brought up to date, and the ledger."""
    with opened_state(migrate=True) as state, open_ledger() as ledger:
        yield Opened(configuration(), FleetWatch(ledger, state))


class StepPrinter:
    """Tells of steps on standard error: a line for each that has ended; in a terminal also what is under way."""

    def __init__(self) -> None:
        self._console = console(sys.stderr)
        self._status: Status | None = None
        self._proxy = ""

    def __call__(self, step: Step) -> None:
        """Hear of a step."""
        if step.proxy != self._proxy:
            self._proxy = step.proxy
            self._console.print(Text(f"proxy {step.proxy}", style="bold"))
        if step.state is StepState.RUNNING:
            self._under_way(f"{step.title} … {step.detail}".strip())
            return
        if self._status is not None:
            self._status.stop()
            self._status = None
        mark, style = ("✓", "green") if step.state is StepState.DONE else ("✗", "red")
        line = Text.assemble((f"  {mark} ", style), f"{step.title:<28} {duration(step.seconds):>7}  {step.detail}")
        self._console.print(line)

    def _under_way(self, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(Text(text))
            self._status.start()
        else:
            self._status.update(Text(text))


def deploy_one(opened: Opened, name: str, waiting: Waiting, keeping: Keeping, tell: StepPrinter) -> dict[str, Any]:
    """Deploy a proxy and record how that went; what `--json` prints of it."""
    declared = opened.declared(name)

    def told(step: Step) -> None:
        record_step(opened.watch.state, step)
        tell(step)

    steps = Steps(name, told)
    try:
        deployment = Deployment(
            opened.configuration,
            opened.watch,
            declared,
            steps,
            waiting=waiting,
            before_stopping=keeping.guard(name),
        )
        done = deployment.run()
    except TooFewRunningError:
        record(opened.watch.state, name, state=DeploymentState.DEPLOYED, step="")  # nothing of it was changed
        raise
    except ProxyfleetError as error:
        record_failure(opened.watch.state, name, error)
        raise
    return deployment_as_json(name, done, steps)


def deployment_as_json(name: str, done: Deployed, steps: Steps) -> dict[str, Any]:
    """What is printed of a deployment."""
    return {
        "proxy": name,
        "release": done.release,
        "before": done.before,
        "restarted": done.restarted,
        "steps": steps_as_json(steps),
    }


def steps_as_json(steps: Steps) -> list[dict[str, Any]]:
    """The steps, in order."""
    return [
        {"step": one.title, "state": one.state, "detail": one.detail, "seconds": round(one.seconds, 3)}
        for one in steps.all
    ]


def asks() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def confirmed_host_key(server: ProxyServer) -> ProxyServer:
    """The server with its host key pinned, if somebody says that the one which it shows is right."""
    shown = shown_fingerprint(server)
    note(f"{server.address} shows the SSH host key\n  {shown}")
    typer.confirm("Does `ssh-keygen -lf` say so there, of a file in /etc/ssh? Pin it", abort=True, err=True)
    return server.model_copy(update={"host_key": shown})
