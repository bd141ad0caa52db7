"""Writes the folder that a fleet's Redis is configured with, and the kits of those who connect to it.

    redis.conf, users.acl           for the server
    tls/{ca,redis,redis-key}.pem    its certificate
    kits/<user>/                    redis (the password), redis-ca.pem, redis-certificate.pem, redis-key.pem, and
                                    redis.toml: what goes below [redis] of that machine's configuration

Done again, it keeps passwords, and certificates that are far from their end, so that running programs go on.
"""

from __future__ import annotations

import importlib.resources
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tomlkit
from cryptography import x509

from proxy_worker.contract.errors import ConfigurationError
from scheduler.pki.authority import EXPIRES_SOON, Authority
from scheduler.pki.certificates import Peer, Role, now_utc
from scheduler.pki.files import PRIVATE, private_folder, write_whole
from scheduler.redis_setup.users import FLOWER, MONITOR, NOBODY, SCHEDULER, User, users_of

_ROLES: Final = {SCHEDULER: Role.SCHEDULER, FLOWER: Role.FLOWER, MONITOR: Role.MONITOR}
PASSWORD_BYTES: Final = 32


class RedisFolderError(ConfigurationError):
    """The configuration of Redis can't be written where it was asked for."""


@dataclass(frozen=True)
class RedisPlan:
    """What is asked for."""

    out: Path
    sites: tuple[str, ...]
    host: str
    """What clients call the server; its certificate names it."""
    addresses: tuple[str, ...] = ()
    """Further names and addresses in its certificate."""
    port: int = 6379
    bind: str = "* -::*"
    place: Path | None = None
    """Where `out` will lie on the server; None: where it is now."""
    data: Path = Path("/var/lib/redis")
    kits_place: Path = Path("/etc/proxyfleet/secrets")
    """The `secrets_dir` of the machines that get the kits."""
    require_certificates: bool = False
    """Whether the server refuses clients without a certificate of the fleet's."""
    new_passwords: bool = False


@dataclass(frozen=True)
class Configured:
    """What was written."""

    users: tuple[User, ...]
    made: tuple[str, ...]
    """Names that got a new certificate."""
    url: str


def configure(plan: RedisPlan, authority: Authority) -> Configured:
    """Write the folder; raises `SiteNamesError`, `RedisFolderError`, and the authority's errors."""
    users = users_of(plan.sites)
    made: list[str] = []
    try:
        private_folder(plan.out)
        server = Peer(plan.host, Role.REDIS, addresses=(*plan.addresses, "localhost", "127.0.0.1"))
        _certificate(authority, server, private_folder(plan.out / "tls"), ("redis.pem", "redis-key.pem"), made)
        write_whole(plan.out / "tls/ca.pem", authority.trust)
        lines = [
            NOBODY,
            *(_kit(plan, one, authority, made) for one in users),
        ]
        write_whole(plan.out / "users.acl", ("\n".join(lines) + "\n").encode(), PRIVATE)
        write_whole(plan.out / "redis.conf", _redis_conf(plan).encode())
    except OSError as error:
        raise RedisFolderError(
            f"folder {plan.out}",
            why=f"{error.filename or plan.out}: {error.strerror or error}",
            remedy="Give a folder that you may write, with --out.",
        ) from error
    return Configured(users, tuple(made), _url(plan))


def _kit(plan: RedisPlan, user: User, authority: Authority, made: list[str]) -> str:
    """Write a user's kit; its line of the ACL file."""
    folder = private_folder(private_folder(plan.out / "kits") / user.name)
    password = folder / "redis"
    if plan.new_passwords or not password.exists():
        write_whole(password, f"{secrets.token_urlsafe(PASSWORD_BYTES)}\n".encode(), PRIVATE)
    peer = Peer(f"redis-{user.name}", _ROLES.get(user.name, Role.PROXY), user.site)
    _certificate(authority, peer, folder, ("redis-certificate.pem", "redis-key.pem"), made)
    write_whole(folder / "redis-ca.pem", authority.trust)
    write_whole(folder / "redis.toml", _table(plan, user).encode())
    return user.line(password.read_text().strip())


def _certificate(authority: Authority, peer: Peer, folder: Path, files: tuple[str, str], made: list[str]) -> None:
    certificate, key = (folder / name for name in files)
    if key.exists() and _still_good(certificate, peer, authority):
        return
    bundle = authority.issue_or_renew(peer)
    write_whole(key, bundle.key, PRIVATE)
    write_whole(certificate, bundle.certificate)
    made.append(peer.name)


def _still_good(path: Path, peer: Peer, authority: Authority) -> bool:
    if not path.exists():
        return False
    serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
    known = next((one for one in authority.issued() if one.serial == serial), None)
    if known is None or known.revoked_at is not None or known.until - now_utc() < EXPIRES_SOON:
        return False
    return (known.peer.role, known.peer.site) == (peer.role, peer.site) and (
        {known.peer.name, *known.peer.addresses} == {peer.name, *peer.addresses}
    )


def _redis_conf(plan: RedisPlan) -> str:
    text = (importlib.resources.files(__package__) / "redis.conf").read_text()
    return string.Template(text).substitute(
        port=plan.port,
        bind=plan.bind,
        place=plan.place or plan.out.resolve(),
        data=plan.data,
        clients="yes" if plan.require_certificates else "optional",
    )


def _table(plan: RedisPlan, user: User) -> str:
    document = tomlkit.document()
    document.add(tomlkit.comment(f"For the configuration of a machine that has this kit in {plan.kits_place}."))
    redis = tomlkit.table()
    redis["url"] = _url(plan)
    redis["username"] = user.name
    redis["credential"] = "redis"
    for key, name in _FILES.items():
        redis[key] = str(plan.kits_place / name)
    document["redis"] = redis
    return tomlkit.dumps(document)


_FILES: Final = {"ca_file": "redis-ca.pem", "certificate": "redis-certificate.pem", "key": "redis-key.pem"}


def _url(plan: RedisPlan) -> str:
    return f"rediss://{plan.host}:{plan.port}/0"


def names_of(users: Iterable[User]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(user.name for user in users)
