"""Taking a proxy off its machine: at rest, stopped, uninstalled, its certificate revoked, forgotten."""

from __future__ import annotations

from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.deploying import drain, server_of, service
from scheduler.deployment.errors import ServerTakenError
from scheduler.deployment.fleet_watch import FleetWatch
from scheduler.deployment.progress import Steps
from scheduler.deployment.recording import forget
from scheduler.deployment.ssh import Machine
from scheduler.deployment.survey import agent_on, look, system_of
from scheduler.pki.authority import Authority, NoCertificateError
from scheduler.state.models import Proxy


def uninstall(
    configuration: SchedulerConfiguration, watch: FleetWatch, declared: Proxy, steps: Steps, *, drain_s: float
) -> None:
    """Leave nothing of a proxy on its machine. Raises the errors of `scheduler.deployment.errors`."""
    server, name = server_of(declared, watch), declared.name
    with steps.step("connect") as step:
        machine = Machine(server, configuration.secrets_dir)
        step.detail = f"{server.user}@{server.address}"
    with machine:
        with steps.step("check the system") as step:
            agent = agent_on(machine, name, system_of(machine))
            found = look(agent, server, server.redis_url or configuration.redis.url)
            step.detail = agent.system.description
            if found.proxy not in {None, name}:
                raise ServerTakenError(
                    f"server {server.address}",
                    why=f"the proxy in {agent.layout.software} is {found.proxy!r}, not {name!r}",
                    remedy=f"Remove it from here alone with `scheduler proxy remove {name} --leave-server`.",
                )
        quiet(watch, name, steps, drain_s)
        with steps.step("stop and uninstall") as step:
            layout = agent.layout
            service(agent, found, "stop")
            unit = [layout.unit_file, f"{layout.unit_file}.d"] if found.systemd and layout.privileged else []
            asked = {"paths": [*unit, *layout.everything], "emptied": layout.emptied, "unit": bool(unit)}
            removed = agent.call("remove", asked)["removed"]
            stays = f"the user {layout.account} stays, and what it wrote elsewhere"
            step.detail = f"{len(removed)} files and folders; {stays}"
    withdrawn(configuration, watch, name, steps)


def quiet(watch: FleetWatch, name: str, steps: Steps, drain_s: float) -> None:
    """Bring a proxy to rest, if it runs."""
    proxy = watch.proxy(name)
    if proxy is None or not proxy.live:
        return
    with steps.step("drain") as step:
        at_rest = drain(watch, name, steps, drain_s)
        step.detail = "its tasks have ended" if at_rest else "those that still run are handed back"


def withdrawn(configuration: SchedulerConfiguration, watch: FleetWatch, name: str, steps: Steps) -> None:
    """Revoke its certificate and forget it, here and in the ledger."""
    with steps.step("revoke and forget") as step:
        details = []
        if (configuration.pki_dir / "ca.key").exists():
            try:
                Authority(configuration.pki_dir).revoke(name)
                details.append("its certificate is revoked")
            except NoCertificateError:
                details.append("it had no certificate of its own")
        if not watch.ledger.forget_proxy(name):
            details.append("the ledger still has its slots for a moment")
        forget(watch.state, name)
        step.detail = "; ".join(details)
