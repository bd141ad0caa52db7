"""The secrets that a proxy is given: files of the backup server's, its way to Redis, a certificate of its own."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.errors import MissingSecretError
from scheduler.deployment.server import ProxyServer
from scheduler.pki.authority import EXPIRES_SOON, Authority
from scheduler.pki.certificates import Peer, Role, now_utc
from scheduler.state.models import Repository, Vcenter

_OPENING: Final = (".key", ".passphrase")
"""What opens a repository: one of them is enough."""
_BESIDE: Final = (".password", ".s3")
"""What logs in to a vCenter, or to a repository's object store."""
PASSWORD: Final = "redis"  # noqa: S105 - the name of its file
CA, CERTIFICATE, KEY = "redis-ca.pem", "redis-certificate.pem", "redis-key.pem"
_SITE: Final = "site-"


@dataclass(frozen=True)
class RedisLogin:
    """How a proxy connects to Redis."""

    url: str
    username: str | None
    files: dict[str, bytes]
    """Secrets by the names of their files there: password, authority, certificate, key."""
    certified: bool
    """Whether it shows a certificate; one that is there already and still good is not among `files`."""


@dataclass(frozen=True)
class Reached:
    """What a proxy of a site works with, as far as it is declared."""

    writes: tuple[str, ...]
    """Folders of repositories."""
    credentials: tuple[str, ...]
    """Of repositories and vCenters."""


def reached_by(session: Session, name: str, site: str) -> Reached:
    """What the proxy `name` at `site` reaches."""
    repositories = [
        one
        for one in session.scalars(select(Repository).order_by(Repository.name))
        if (one.site == site if one.proxies is None else any(fnmatchcase(name, pattern) for pattern in one.proxies))
    ]
    vcenters = session.scalars(select(Vcenter.credential).where(Vcenter.site == site)).all()
    named = [one.credential for one in repositories if one.credential is not None]
    folders = tuple(one.location for one in repositories if "://" not in one.location)
    return Reached(folders, tuple(dict.fromkeys([*named, *vcenters])))


def credential_files(
    configuration: SchedulerConfiguration, names: Sequence[str] | None, reached: Reached
) -> dict[str, bytes]:
    """The secrets of these names by their files; of a repository's, the key rather than the passphrase.

    Without names those that it can use, as far as they are there, and no passphrases: whoever has one can read
    every backup. Raises `MissingSecretError`.
    """
    folder = configuration.deployment.secrets_dir or configuration.secrets_dir
    opening_kinds = _OPENING[:1] if names is None else _OPENING
    found: dict[str, bytes] = {}
    for name in reached.credentials if names is None else names:
        opening = [path for kind in opening_kinds if (path := folder / f"{name}{kind}").exists()][:1]
        wanted = [*opening, *(path for kind in _BESIDE if (path := folder / f"{name}{kind}").exists())]
        if names is not None and all(path.suffix == ".s3" for path in wanted):
            raise MissingSecretError(
                f"secret {name!r} for proxies",
                why=f"{folder} has no {name}.key, {name}.passphrase or {name}.password",
                remedy="Make a key that only backs up with `proxy-worker repository keys export-write … --out "
                f"{folder / name}.key`, or leave it out of its credentials.",
            )
        found |= {path.name: _read(path) for path in wanted}
    return found


def redis_login(
    configuration: SchedulerConfiguration, server: ProxyServer, *, name: str, site: str, has: str | None
) -> RedisLogin:
    """How the proxy `name` connects; `has` is the certificate that lies on its machine, kept if it is still good.

    Where the fleet has an authority, each proxy gets a certificate of its own, so that one alone can be revoked.
    Raises `MissingSecretError`, and the authority's errors.
    """
    redis = configuration.redis
    kits = configuration.deployment.redis_kits_dir
    url, username, folder = redis.url, redis.username, None
    files: dict[str, bytes] = {}
    if kits is not None:
        folder = kits / f"{_SITE}{site}"
        table = tomllib.loads(_read(folder / "redis.toml").decode())["redis"]
        url, username = table["url"], table["username"]
        files = {one: _read(folder / one) for one in (PASSWORD, CA)}
    else:
        if username is not None:
            raise MissingSecretError(
                f"user of Redis for site {site!r}",
                why=f"the scheduler connects as {username!r}, whose rights no proxy should have",
                remedy="Name the kits that `scheduler redis configure` wrote: `redis_kits_dir` below [deployment] "
                "of scheduler.toml.",
            )
        password = redis.password(configuration.secrets_dir)
        files = {PASSWORD: password.encode() + b"\n"} if password is not None else {}
        if redis.ca_file is not None:
            files[CA] = _read(redis.ca_file)
    url = server.redis_url or url
    certified = CA in files and (folder is not None or (configuration.pki_dir / "ca.key").exists())
    if certified:
        files |= _certificate(configuration.pki_dir, Peer(name, Role.PROXY, site, (server.host,)), has, folder)
    return RedisLogin(url, username, files, certified)


def _certificate(pki_dir: Path, peer: Peer, has: str | None, kit: Path | None) -> dict[str, bytes]:
    """A certificate and its key: its own, or its site's where there is no authority; none if it has a good one."""
    if kit is not None and not (pki_dir / "ca.key").exists():
        return {one: _read(kit / one) for one in (CERTIFICATE, KEY)}
    authority = Authority(pki_dir)
    if has is not None and _still_good(authority, peer, has):
        return {}
    bundle = authority.issue_or_renew(peer)
    return {CERTIFICATE: bundle.certificate, KEY: bundle.key}


def _still_good(authority: Authority, peer: Peer, certificate: str) -> bool:
    try:
        serial = x509.load_pem_x509_certificate(certificate.encode()).serial_number
    except ValueError:
        return False
    known = next((one for one in authority.issued() if one.serial == serial), None)
    return (
        known is not None
        and (known.peer.role, known.peer.site) == (peer.role, peer.site)
        and {known.peer.name, *known.peer.addresses} == {peer.name, *peer.addresses}
        and known.revoked_at is None
        and known.until - now_utc() > EXPIRES_SOON
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingSecretError(
            f"{path} for proxies",
            why=error.strerror or str(error),
            remedy="Put it there, readable by whoever runs this command.",
        ) from error
