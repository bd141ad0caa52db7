"""The files that a proxy is given: proxy.toml, its secrets, and what keeps it running."""

from __future__ import annotations

import base64
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import tomlkit

from scheduler.deployment.given import CA, CERTIFICATE, KEY, PASSWORD, RedisLogin
from scheduler.deployment.layout import Layout
from scheduler.deployment.server import ProxyServer
from scheduler.fleet.values import one_line

SECRET_MODE: Final = 0o600
_READABLE, _OPEN = 0o640, 0o644
_PRIVATE_FOLDER, _READABLE_FOLDER = 0o700, 0o750
_LOW_PORTS: Final = "CAP_NET_BIND_SERVICE"
"""What the portmapper's port takes, which hosts ask where restore points are served."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as it is to be on the machine."""

    path: str
    content: bytes | None
    """None: it is not to be there."""
    mode: int
    owner: str | None = None
    """`user:group`; None: whoever deploys."""
    secret: bool = False

    @property
    def as_json(self) -> dict[str, Any]:
        """As the agent wants it."""
        content = None if self.content is None else base64.b64encode(self.content).decode()
        return {
            "path": self.path,
            "content": content,
            "mode": self.mode,
            "owner": self.owner,
            "secret": self.secret,
        }


@dataclass(frozen=True)
class Settings:
    """What goes into proxy.toml."""

    name: str
    site: str
    max_concurrent_tasks: int
    transport_modes: Sequence[str] | None
    """None: all it can."""
    public_key: str
    server: ProxyServer
    redis: RedisLogin
    writes: Sequence[str]
    """Folders that it writes beside its own."""


def proxy_toml(settings: Settings, layout: Layout) -> str:
    """The text of a deployed proxy's proxy.toml; it has no secrets in it."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `scheduler proxy deploy`: change the fleet file, and deploy again."))
    document["name"] = settings.name
    document["site"] = settings.site
    document["max_concurrent_tasks"] = settings.max_concurrent_tasks
    document["state_dir"] = layout.state
    document["secrets_dir"] = layout.secrets
    document["scheduler_public_keys"] = [settings.public_key]
    if settings.transport_modes is not None:
        document["transport_modes"] = list(settings.transport_modes)
    if not settings.server.failover_to_network:
        document["failover_to_network"] = False
    if settings.server.encryption_to_host:
        document["encryption_to_host"] = True
    if settings.server.instant_restore is not None:
        table = settings.server.instant_restore.model_dump(mode="json", exclude_defaults=True)
        document["instant_restore"] = table
    document["redis"] = _redis(settings.redis, layout)
    document["datastores"] = {
        name: store.model_dump(mode="json", exclude_defaults=True)
        for name, store in sorted(settings.server.datastores.items())
    }
    return tomlkit.dumps(document)


def _redis(login: RedisLogin, layout: Layout) -> dict[str, str]:
    table = {"url": login.url}
    if login.username is not None:
        table["username"] = login.username
    if PASSWORD in login.files:
        table["credential"] = PASSWORD
    if CA in login.files:
        table["ca_file"] = f"{layout.secrets}/{CA}"
    if login.certified:
        table |= {"certificate": f"{layout.secrets}/{CERTIFICATE}", "key": f"{layout.secrets}/{KEY}"}
    return table


def folders(layout: Layout) -> list[dict[str, Any]]:
    """The folders that a proxy needs, as the agent wants them."""
    return [
        {"path": layout.software, "mode": None, "owner": None},
        {"path": layout.supervisor, "mode": _PRIVATE_FOLDER, "owner": None},
        {"path": layout.config, "mode": _READABLE_FOLDER, "owner": _owned(layout, layout.readable)},
        {"path": layout.secrets, "mode": _PRIVATE_FOLDER, "owner": _owned(layout, layout.owner)},
        {"path": layout.state, "mode": _PRIVATE_FOLDER, "owner": _owned(layout, layout.owner)},
    ]


def files(settings: Settings, layout: Layout, secrets: Mapping[str, bytes], *, systemd: bool) -> list[RemoteFile]:
    """Every file that a proxy is to have beside its software."""
    owner = _owned(layout, layout.owner)
    return [
        RemoteFile(f"{layout.software}/name", f"{settings.name}\n".encode(), _OPEN),
        RemoteFile(
            f"{layout.config}/proxy.toml",
            proxy_toml(settings, layout).encode(),
            _READABLE,
            _owned(layout, layout.readable),
        ),
        *(
            RemoteFile(f"{layout.secrets}/{name}", content, SECRET_MODE, owner, secret=True)
            for name, content in sorted({**secrets, **settings.redis.files}.items())
        ),
        *(_unit(settings, layout) if systemd else _supervisor(layout)),
    ]


def _unit(settings: Settings, layout: Layout) -> list[RemoteFile]:
    """The unit as it is for every proxy, and what is special of this one beside it."""
    special = string.Template(_text("deployed.conf")).substitute(
        account=layout.account,
        program=_word(f"{layout.software}/current/bin/proxy-worker"),
        config=_word(f"{layout.config}/proxy.toml"),
        writes=" ".join(map(_word, [layout.state, *(f"-{path}" for path in _written(settings))])),
        capabilities="" if settings.server.instant_restore is None else _LOW_PORTS,
    )
    return [
        RemoteFile(layout.unit_file, _text("proxyfleet-proxy.service").encode(), _OPEN),
        RemoteFile(f"{layout.unit_file}.d/deployed.conf", special.encode(), _OPEN),
    ]


def _word(path: str) -> str:
    """A word of a unit, whatever is in it but control characters, which are refused: systemd.syntax(7)."""
    quoted = one_line(path).replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return f'"{quoted}"'


def _written(settings: Settings) -> Sequence[str]:
    """Folders beside its own; that of what VMs write may be one."""
    instant = settings.server.instant_restore
    if instant is None or not instant.folder.is_absolute():
        return settings.writes
    return (*settings.writes, str(instant.folder))


def _supervisor(layout: Layout) -> list[RemoteFile]:
    command = [f"{layout.software}/current/bin/proxy-worker", "run", "--config", f"{layout.config}/proxy.toml"]
    special = {"command": command, "account": layout.account if layout.privileged else None}
    return [
        RemoteFile(f"{layout.supervisor}/supervisor.py", _text("supervisor.py").encode(), _OPEN),
        RemoteFile(f"{layout.supervisor}/supervisor.json", json.dumps(special).encode(), _OPEN),
    ]


def _owned(layout: Layout, owner: str) -> str | None:
    return owner if layout.privileged else None


def _text(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text()
