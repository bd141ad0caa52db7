"""Putting one proxy on its machine: every step is looked at before it is done, so that all can be done again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.contract.names import AUTOMATIC
from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.errors import NoServerError, NotRegisteredError, ServerTakenError
from scheduler.deployment.fleet_watch import FleetWatch
from scheduler.deployment.given import CERTIFICATE, KEY, RedisLogin, credential_files, reached_by, redis_login
from scheduler.deployment.layout import Layout
from scheduler.deployment.progress import Steps
from scheduler.deployment.recording import record, remembered
from scheduler.deployment.server import ProxyServer
from scheduler.deployment.settings import RemoteFile, Settings, files, folders
from scheduler.deployment.ssh import Machine
from scheduler.deployment.survey import Agent, Found, agent_on, look, require_fit, require_reach, system_of
from scheduler.deployment.wheelhouse import Kind, packed
from scheduler.signing import signing_key
from scheduler.state.models import DeploymentState, Proxy

INSTALL_TIMEOUT_S: Final = 600.0
GOING_BACK_S: Final = 60.0
"""How long the release before may take to register again, however little the new one was given."""
SERVICE_TIMEOUT_S: Final = 180.0
"""Stopping includes what a proxy does at its end: `drain_timeout_s`, and handing back."""


@dataclass(frozen=True)
class Waiting:
    """How long a deployment waits, in seconds."""

    registration_s: float = 60.0
    drain_s: float = 3600.0
    """After that, what still runs there is handed back with its checkpoints."""


@dataclass(frozen=True)
class Deployed:
    """What a deployment came to."""

    release: str
    before: str | None
    """The release that ran there until then."""
    restarted: bool


class Deployment:
    """One proxy's deployment. `before_stopping` may raise to keep a proxy that runs from being stopped."""

    def __init__(
        self,
        configuration: SchedulerConfiguration,
        watch: FleetWatch,
        declared: Proxy,
        steps: Steps,
        *,
        waiting: Waiting,
        before_stopping: Callable[[], None],
    ) -> None:
        """Raises `NoServerError` for a proxy of which no machine is declared."""
        self._configuration, self._watch, self._declared = configuration, watch, declared
        self._steps, self._waiting, self._before_stopping = steps, waiting, before_stopping
        self._server = server_of(declared, watch)
        self._name = declared.name

    def run(self) -> Deployed:
        """Do every step that isn't done yet; raises `scheduler.deployment.errors`, and the ledger's."""
        steps, state = self._steps, self._watch.state
        with steps.step("connect") as step:
            machine = Machine(self._server, self._configuration.secrets_dir)
            step.detail = f"{self._server.user}@{self._server.address}, {machine.fingerprint}"
        with machine:
            with steps.step("check the system") as step:
                agent, found, kind = self._checked(machine)
                step.detail = agent.system.description
                record(state, self._name, system=step.detail, host_key=machine.fingerprint)
            with steps.step("collect what it is given") as step:
                settings, wanted = self._files(agent.layout, found)
                step.detail = (
                    ", ".join(sorted(one.path.rpartition("/")[2] for one in wanted if one.secret)) or "none"
                )
            with steps.step("prepare packages") as step:
                wheels = packed(self._configuration.state_dir / "wheelhouse", kind)
                step.detail = f"release {wheels.release}"
            with steps.step("install the release") as step:
                step.detail = self._installed(agent, wheels.release, wheels.archive)
            goal = digest(wheels.release, settings, wanted)
            if found.running == goal and service(agent, found, "look")["running"]:
                write(agent, wanted)  # what it reads anew while it runs, such as a renewed certificate
                self._enable_again()
                record(state, self._name, state=DeploymentState.DEPLOYED, step="", release=wheels.release)
                return Deployed(wheels.release, found.release, restarted=False)
            self._replace(agent, found, wheels.release, wanted, goal)
            return Deployed(wheels.release, found.release, restarted=True)

    def _checked(self, machine: Machine) -> tuple[Agent, Found, Kind]:
        agent = agent_on(machine, self._name, system_of(machine))
        redis_url = self._server.redis_url or self._configuration.redis.url
        found = look(agent, self._server, redis_url)
        kind = require_fit(self._server, agent.system, found)
        require_reach(self._server, found)
        if found.proxy is not None and found.proxy != self._name:
            raise ServerTakenError(
                f"server {self._server.address}",
                why=f"it has proxy {found.proxy!r} in {agent.layout.software}",
                remedy=f"Remove that one first (`scheduler proxy remove {found.proxy}`), or give --install-dir.",
            )
        if found.proxy is None and found.others:
            raise ServerTakenError(
                f"server {self._server.address}",
                why=f"{' and '.join(found.others)} exists there, and no proxy made it",
                remedy="Move it away, or give --install-dir a folder of the proxy's own.",
            )
        known = self._watch.proxy(self._name)
        if found.proxy is None and known is not None and known.live:
            raise ServerTakenError(
                f"proxy {self._name!r}",
                why=f"one of that name runs already, and it is not the one on {self._server.address}",
                remedy="Give this one another name, or stop and uninstall the other first.",
            )
        return agent, found, kind

    def _files(self, layout: Layout, found: Found) -> tuple[Settings, list[RemoteFile]]:
        declared, configuration = self._declared, self._configuration
        site = declared.site or configuration.local_proxy.site
        login: RedisLogin = redis_login(
            configuration, self._server, name=self._name, site=site, has=found.certificate
        )
        with self._watch.state.read() as session:
            reached = reached_by(session, self._name, site)
        signing_key(configuration)
        settings = Settings(
            self._name,
            site,
            declared.max_concurrent_tasks or found.slots,
            None if declared.transport_mode == AUTOMATIC else [declared.transport_mode],
            configuration.public_key_path.read_text().strip(),
            self._server,
            login,
            (*reached.writes, *self._server.writes),
        )
        secrets = credential_files(configuration, self._server.credentials, reached)
        return settings, files(settings, layout, secrets, systemd=found.systemd and layout.privileged)

    def _installed(self, agent: Agent, release: str, archive: bytes) -> str:
        software = agent.layout.software
        folder, wheels = f"{software}/releases/{release}", f"{software}/.wheels"
        if agent.call("has_release", {"folder": folder})["installed"]:
            return "it is there already"
        agent.call("unpack", {"folder": wheels}, archive, INSTALL_TIMEOUT_S)
        agent.call("install", {"folder": folder, "wheels": wheels}, timeout_s=INSTALL_TIMEOUT_S)
        return f"{len(archive) >> 20} MiB carried there"

    def _replace(self, agent: Agent, found: Found, release: str, wanted: list[RemoteFile], goal: str) -> None:
        """Bring what runs to rest, put the new in its place, and see it register; or go back to what was."""
        layout, state = agent.layout, self._watch.state
        kept_running_by = "systemd" if found.systemd and layout.privileged else "supervisor"
        record(state, self._name, kept_running_by=kept_running_by, account=layout.account)
        mark = RemoteFile(f"{layout.software}/running", goal.encode(), 0o644)
        self._drain()
        written: dict[str, str | None] = {}
        try:
            with self._steps.step("write its configuration") as step:
                name = [one for one in wanted if one.path == f"{layout.software}/name"]  # from now on all is ours
                write(agent, [*name, replace(mark, content=None)])  # what runs is known once it has registered
                service(agent, found, "stop")
                if layout.privileged:
                    agent.call("account", {"account": layout.account, "state": layout.state})
                written |= write(agent, wanted, folders(layout))
                step.detail = ", ".join(path.rpartition("/")[2] for path in written) or "unchanged"
            with self._steps.step("start") as step:
                self._start(agent, found, release)
                step.detail = f"as {layout.account}, kept running by {kept_running_by}"
            with self._steps.step("wait for its registration") as step:
                proxy = self._watch.registered(self._name, self._waiting.registration_s)
                if proxy is None:
                    raise self._not_registered(agent, found, release)
                step.detail = f"version {proxy.registration.version}, {proxy.slots} slots"
        except ProxyfleetError as error:
            same = found.release == release and not written
            if found.release is None or (same and isinstance(error, NotRegisteredError)):
                raise  # there is nothing else to go back to
            outcome = self._gone_back(agent, found, found.release, wanted, written)
            raise type(error)(error.what, why=error.why, remedy=f"{outcome}. {error.remedy}") from error
        write(agent, [mark])
        agent.call("prune", {"releases": f"{layout.software}/releases", "keep": [release, found.release]})
        self._enable_again()
        record(state, self._name, state=DeploymentState.DEPLOYED, step="", release=release)

    def _drain(self) -> None:
        proxy = self._watch.proxy(self._name)
        if proxy is None or not proxy.live:
            return
        self._before_stopping()
        with self._steps.step("drain") as step:
            at_rest = drain(self._watch, self._name, self._steps, self._waiting.drain_s)
            step.detail = "its tasks have ended" if at_rest else "those that still run are handed back"

    def _start(self, agent: Agent, found: Found, release: str) -> None:
        software = agent.layout.software
        links = {"releases": f"{software}/releases", "current": f"{software}/current", "release": release}
        agent.call("activate", links)
        service(agent, found, "start")

    def _not_registered(self, agent: Agent, found: Found, release: str) -> NotRegisteredError:
        why = service(agent, found, "look")["log"].strip().rpartition("\n")[2] or "it said nothing"
        log = (
            f"journalctl -u {agent.layout.unit}"
            if found.systemd and agent.layout.privileged
            else f"{agent.layout.supervisor}/proxy.log"
        )
        return NotRegisteredError(
            f"proxy {self._name!r} on {self._server.address} has not registered",
            why=f"release {release}: its log ends: {why}",
            remedy=f"See {log} there, and deploy it again when that is put right.",
        )

    def _gone_back(
        self, agent: Agent, found: Found, before: str, wanted: list[RemoteFile], written: Mapping[str, str | None]
    ) -> str:
        """Start the release before with its files, as far as they aren't secret; what came of it, for people."""
        old = [
            replace(one, content=base64.b64decode(content))
            for one in wanted
            if (content := written.get(one.path)) is not None
        ]
        try:
            with self._steps.step(f"go back to {before}"):
                service(agent, found, "stop")
                write(agent, old)
                self._start(agent, found, before)
                back = self._watch.registered(self._name, max(self._waiting.registration_s, GOING_BACK_S))
            self._enable_again()
        except ProxyfleetError as error:
            return f"Going back to {before} failed too: {str(error).rstrip('.')}"
        outcome = f"{before} runs again" if back is not None else f"{before} did not register either"
        secrets = [one.path.rpartition("/")[2] for one in wanted if one.secret and one.path in written]
        return f"{outcome}, with the new secrets ({', '.join(secrets)})" if secrets else outcome

    def _enable_again(self) -> None:
        known = remembered(self._watch.state, self._name)
        if known is not None and known.enable_again:
            self._watch.set_enabled(self._name, enabled=True)
            record(self._watch.state, self._name, enable_again=False)


def server_of(declared: Proxy, watch: FleetWatch) -> ProxyServer:
    """What is declared of a proxy's machine, with the host key that it was pinned by earlier where none is."""
    server = declared.server
    if server is None:
        raise NoServerError(
            f"server of proxy {declared.name!r}",
            why="no machine is declared for it",
            remedy="Add `server = { host = … }` to its [[proxy]] in the fleet file.",
        )
    known = remembered(watch.state, declared.name)
    if server.host_key is None and known is not None and known.host_key:
        return server.model_copy(update={"host_key": known.host_key})
    return server


def drain(watch: FleetWatch, name: str, steps: Steps, timeout_s: float) -> bool:
    """Give a proxy no more tasks and wait until it has none; whether it came to rest. It is enabled again later."""
    if watch.set_enabled(name, enabled=False):
        record(watch.state, name, enable_again=True)
    return watch.drained(name, timeout_s, steps.say)


def service(agent: Agent, found: Found, what: str) -> Any:
    """Start, stop or look at what keeps the proxy running; `running`, and the end of its `log`."""
    if found.systemd and agent.layout.privileged:
        return agent.call("systemd", {"unit": agent.layout.unit, "what": what}, timeout_s=SERVICE_TIMEOUT_S)
    script = f"{agent.layout.supervisor}/supervisor.py"
    return agent.call("supervisor", {"script": script, "what": what}, timeout_s=SERVICE_TIMEOUT_S)


def write(agent: Agent, wanted: list[RemoteFile], needed: Sequence[dict[str, Any]] = ()) -> dict[str, str | None]:
    """Make folders and files what they are to be; what changed, with what it was unless that is secret or new."""
    asked = {"folders": list(needed), "files": [one.as_json for one in wanted]}
    changed: dict[str, str | None] = agent.call("write", asked)["changed"]
    return changed


def digest(release: str, settings: Settings, wanted: list[RemoteFile]) -> str:
    """Of everything that a running proxy was started with; certificates are read at every connection."""
    made = hashlib.sha256(f"{release} {settings.max_concurrent_tasks}".encode())
    for file in (one for one in wanted if one.path.rpartition("/")[2] not in {CERTIFICATE, KEY}):
        made.update(f"{file.path} {file.mode} {file.owner}".encode() + (file.content or b""))
    return made.hexdigest()
