"""What kind of machine a server is, and whether it can be a proxy."""

from __future__ import annotations

import importlib.resources
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from scheduler.deployment.errors import DeploymentStepError, NotRootError, UnfitServerError
from scheduler.deployment.layout import Layout
from scheduler.deployment.server import ConnectedDatastore, ProxyServer
from scheduler.deployment.ssh import Machine
from scheduler.deployment.wheelhouse import Kind

ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
OLDEST_PYTHON: Final = (3, 11)
LEAST_FREE_BYTES: Final = 1 << 30
LEAST_MEMORY_BYTES: Final = 512 << 20
MOST_SKEW_S: Final = 60.0
TASKS_PER_CORE: Final = 2
BYTES_PER_TASK: Final = 1 << 30
_NBD_PORT: Final = 10809
_NFS_PORT: Final = 2049
_REDIS_PORT: Final = 6379
REDIS: Final = "redis:"
"""What Redis is called among what is to be reached; no datastore can have that name."""
_WINDOWS: Final = ("windows", "mingw", "msys", "cygwin")


@dataclass(frozen=True)
class System:
    """What any Unix shell could say of a machine."""

    name: str
    architecture: str
    python: str
    """The newest interpreter that is new enough."""
    version: tuple[int, int, int]
    user: str
    root: bool
    sudo: bool

    @property
    def description(self) -> str:
        """E.g. `Debian GNU/Linux 12 (bookworm), x86_64, Python 3.11.2`."""
        return f"{self.name}, {self.architecture}, Python {'.'.join(map(str, self.version))}"


class Found(BaseModel):
    """What the agent saw."""

    cores: int
    memory_bytes: int
    free_bytes: int
    clock: float
    libc: tuple[str, str]
    systemd: bool
    release: str | None
    proxy: str | None
    running: str | None
    """A digest of the release and configuration that was last started and registered."""
    certificate: str | None
    unreached: dict[str, str | None]
    folders: dict[str, list[str]]
    mounts: list[str]
    others: list[str]
    """What is to be the proxy's own and has something in it."""
    skew_s: float = 0.0
    """How far its clock is ahead of this machine's."""

    @property
    def slots(self) -> int:
        """At most 2 tasks per core and one per GiB of memory."""
        return max(1, min(TASKS_PER_CORE * self.cores, round(self.memory_bytes / BYTES_PER_TASK)))

    def places(self, datastore: str) -> list[str]:
        """Folders that look like a datastore of that name."""
        mounted = [mount for mount in self.mounts if mount.rpartition("/")[2] == datastore]
        return [*dict.fromkeys([*mounted, *self.folders.get(datastore, [])])]


class Agent:
    """The agent on a machine, as root wherever that is possible."""

    def __init__(self, machine: Machine, system: System, layout: Layout) -> None:
        self.machine, self.system, self.layout = machine, system, layout
        self._text = (importlib.resources.files(__package__) / "agent.py").read_text()

    def call(self, verb: str, asked: Mapping[str, Any], archive: bytes = b"", timeout_s: float = 60.0) -> Any:
        """Have it do something; raises `DeploymentStepError` with what went wrong there."""
        sudo = ("sudo", "-n", "--") if self.layout.privileged and not self.system.root else ()
        given = json.dumps(asked).encode() + b"\n" + archive
        python = (self.system.python, "-I", "-c", self._text, verb)
        done = self.machine.run(*sudo, *python, given=given, timeout_s=timeout_s)
        if done.code:
            last = done.err.splitlines()[-1] if done.err else f"it ended with code {done.code}"
            raise DeploymentStepError(
                f"server {self.machine.server.address}: {verb.replace('_', ' ')}",
                why=last,
                remedy="Put that right and do it again: what is done already stays as it is.",
            )
        return json.loads(done.out)


def system_of(machine: Machine) -> System:
    """Raises `UnfitServerError` for what can't be a proxy."""
    server = machine.server
    script = (importlib.resources.files(__package__) / "look.sh").read_bytes()
    done = machine.run("sh", "-s", given=script)
    said = [line.partition("=") for line in done.out.decode(errors="replace").splitlines()]
    facts = {key: value for key, _, value in reversed(said)}
    kind = facts.get("os", "")
    if any(word in f"{machine.banner} {kind} {done.err}".lower() for word in _WINDOWS):
        raise _unfit(
            server,
            "it runs Windows, where the proxy's software doesn't run: it needs Linux's file locks, process control "
            "and NBD tools",
            "Use a Linux machine. It reads Windows VMs' disks just as well.",
        )
    if kind != "Linux":
        raise _unfit(server, f"it runs {kind or 'a system that has no sh'}, not Linux", "Use a Linux machine.")
    architecture = ARCHITECTURES.get(facts.get("architecture", ""))
    if architecture is None:
        raise _unfit(
            server,
            f"its processor is {facts.get('architecture')}, for which there are no packages",
            "Use a machine with x86_64 or arm64.",
        )
    pythons = [_python(value) for key, _, value in said if key == "python"]
    python, version = max(pythons, key=lambda one: one[1], default=("", (0, 0, 0)))
    if version[:2] < OLDEST_PYTHON:
        found = f"its newest Python is {'.'.join(map(str, version))}" if python else "it has no Python"
        raise _unfit(
            server,
            f"{found}, and 3.11 is the least",
            "Install one, on Debian 12 and Ubuntu 24.04 with `apt-get install python3`, on RHEL 9 with "
            "`dnf install python3.11`.",
        )
    return System(
        facts.get("name") or "Linux",
        architecture,
        python,
        version,
        facts.get("user", server.user),
        facts.get("uid") == "0",
        facts.get("sudo") == "yes",
    )


def agent_on(machine: Machine, name: str, system: System) -> Agent:
    """The agent for a proxy; raises `NotRootError` for a login that can't become root and has no folder to use."""
    server = machine.server
    privileged = system.root or system.sudo
    if not privileged and server.install_dir is None:
        raise NotRootError(
            f"server {server.address}",
            why=f"{system.user} is not root there, and `sudo` asks for a password",
            remedy="Log in as root, let sudo ask that user no password, or give --install-dir: then the proxy runs "
            "as that user, from that folder.",
        )
    return Agent(machine, system, Layout.of(name, server, privileged=privileged))


def look(agent: Agent, server: ProxyServer, redis_url: str, datastores: Sequence[str] = ()) -> Found:
    """What the machine has and reaches; `datastores` are looked for, those of `server` tried."""
    layout = agent.layout
    reach = {name: way for name, store in server.datastores.items() if (way := way_to(store)) is not None}
    before = time.time()
    answer = agent.call(
        "look",
        {
            "software": layout.software,
            "config": layout.config,
            "account": layout.account,
            "own": [layout.config, layout.state],
            "reach": {REDIS: _way_to_redis(redis_url), **reach},
            "places": {name: _usual_places(name) for name in datastores},
        },
    )
    found = Found.model_validate(answer)
    return found.model_copy(update={"skew_s": found.clock - (before + time.time()) / 2})


def require_fit(server: ProxyServer, system: System, found: Found) -> Kind:
    """The kind of machine it is; raises `UnfitServerError`."""
    library, version = found.libc
    if library != "glibc":
        raise _unfit(
            server,
            f"its C library is {library or 'not glibc'}, for which there are no packages",
            "Use a distribution with glibc, such as Debian, Ubuntu, RHEL or SLES.",
        )
    if found.free_bytes < LEAST_FREE_BYTES:
        raise _unfit(
            server, f"{found.free_bytes >> 20} MiB are free for the software, and 1 GiB is the least", "Free some."
        )
    if found.memory_bytes < LEAST_MEMORY_BYTES:
        raise _unfit(server, f"it has {found.memory_bytes >> 20} MiB of memory, and 512 is the least", "Add some.")
    if abs(found.skew_s) > MOST_SKEW_S:
        ahead = "ahead of" if found.skew_s > 0 else "behind"
        raise _unfit(
            server,
            f"its clock is {abs(found.skew_s):.0f} s {ahead} this machine's, and certificates go by time",
            "Have both clocks set by NTP.",
        )
    major, minor = (int(part) for part in version.split(".")[:2])
    return Kind(system.architecture, system.version, (major, minor))


def require_reach(server: ProxyServer, found: Found) -> None:
    """Raises `UnfitServerError` for what the machine doesn't reach and has to."""
    for name, problem in found.unreached.items():
        if problem is None:
            continue
        if name == REDIS:
            raise _unfit(
                server,
                f"it doesn't reach Redis: {problem}",
                "Open the way to it, or say with --redis-url where Redis is as seen from there.",
            )
        raise _unfit(
            server,
            f"it doesn't reach datastore {name}: {problem}",
            f"Mount or export it there, or leave {name} out of its datastores.",
        )


def way_to(store: ConnectedDatastore) -> dict[str, Any] | None:
    """What can be tried of a connection from there; None when only a backup can tell."""
    if store.path is not None:
        return {"path": store.path}
    if store.nfs_uri is not None:
        return {"host": urlsplit(store.nfs_uri).hostname, "port": _NFS_PORT}
    if store.network_command:
        return {"command": store.network_command[0]}
    address = urlsplit((store.network_uri or "").partition("{")[0])
    return {"host": address.hostname, "port": address.port or _NBD_PORT} if address.hostname else None


def _way_to_redis(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"path": parts.path.rpartition("/")[0] or "/"}
    return {"host": parts.hostname or "127.0.0.1", "port": parts.port or _REDIS_PORT}


def _usual_places(name: str) -> list[str]:
    return [f"{parent}/{name}" for parent in ("/datastores", "/vmfs/volumes", "/mnt", "/media", "/srv")]


def _python(value: str) -> tuple[str, tuple[int, int, int]]:
    path, _, version = value.partition(" ")
    major, minor, micro = (int(part) for part in version.split("."))
    return path, (major, minor, micro)


def _unfit(server: ProxyServer, why: str, remedy: str) -> UnfitServerError:
    return UnfitServerError(f"server {server.address} can't be a proxy", why=why, remedy=remedy)
