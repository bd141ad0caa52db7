"""The users of a fleet's Redis and their rights, as lines of an ACL file. Pure.

Scripts run with the rights of whoever calls them, so that a proxy's user needs what the ledger's scripts touch.
Keys are given for reading (R), writing (W) or both, by what the scripts do with each; the tests of these rights run
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import is_name

SCHEDULER: Final = "scheduler"
FLOWER: Final = "flower"
MONITOR: Final = "monitor"
NOBODY: Final = "user default off resetpass ~* &* +@all"
"""The default user, whom nobody can be: off and without a password. Its rights are those that Redis replays its own
append-only file with: without them it would lose, at a restart, everything that was written in transactions."""
_SITE: Final = "site-"

_EVENTS: Final = "&/0.celeryev*"
_EVENTS_WATCHED: Final = "&/0.celeryev/*"
_QUESTIONS: Final = "&/0.celery.pidbox"
_CONNECTING: Final = "+@connection -@dangerous"
"""What clients say when they connect; by group, since servers differ in which commands there are."""
_TRANSACTIONS: Final = ("multi", "exec", "watch", "unwatch", "discard")
_LISTENING: Final = ("subscribe", "unsubscribe", "psubscribe", "punsubscribe")
_BINDINGS: Final = ("%RW~_kombu.binding.*", "%RW~_kombu.binding_permanent.*", "%RW~_kombu.binding_deadlines")
_LEDGER_OF_A_PROXY: Final = (
    "%RW~{pf}:",
    "%RW~{pf}:meta",
    "%W~{pf}:tasks",
    "%RW~{pf}:task:*",
    "%RW~{pf}:deadlines",
    "%RW~{pf}:leases",
    "%W~{pf}:finished",
    "%W~{pf}:proxies",
    "%RW~{pf}:proxy:*",
    "%R~{pf}:orders:*",
    "%RW~{pf}:slots:*",
    "%RW~{pf}:residue:*",
    "%W~{pf}:caps",
    "%RW~{pf}:cap:*",
    "%W~{pf}:bell",
    "%R~{pf}:traffic",
    "%RW~{pf}:shares",
)
_SCRIPTS_OF_A_PROXY: Final = (
    *("evalsha", "script|load", "script|exists", "time"),
    *("hget", "hmget", "hgetall", "hset", "hdel", "hincrby", "sadd", "srem", "scard"),
    *("zadd", "zrem", "zrange", "zcard", "zremrangebyscore", "lpush", "ltrim"),
)
_CELERY_OF_A_PROXY: Final = (
    "brpop",
    "rpush",
    "rpop",
    "llen",
    "exists",
    "smembers",
    "zrangebyscore",
    "zrevrangebyscore",
)
_LOCKING: Final = ("get", "set", "del", "pexpire")


class SiteNamesError(ConfigurationError):
    """Sites that Redis can't keep apart by name."""


@dataclass(frozen=True)
class User:
    """A user of Redis; its password is a secret of whoever connects as it."""

    name: str
    site: str | None = None

    def line(self, password: str) -> str:
        """Its line in the ACL file, which holds a digest of the password only."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        return f"user {self.name} on #{digest} resetkeys resetchannels -@all {self._rights()}"

    def _rights(self) -> str:
        if self.site is not None:
            return _of_proxies(self.site)
        return {SCHEDULER: _of_the_scheduler, FLOWER: _of_flower, MONITOR: _of_a_monitor}[self.name]()


def users_of(sites: Iterable[str]) -> tuple[User, ...]:
    """Everyone's, the sites' last; raises `SiteNamesError`.

    A lane is named `disk.<site>.…`: where one site were `a` and another `a.b`, the first would see the second's.
    """
    sites = tuple(dict.fromkeys(sites))
    for site in sites:
        if not is_name(site):
            raise SiteNamesError(
                f"site {site!r}",
                why="names have up to 63 letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
            )
    for one, other in permutations(sites, 2):
        if other.startswith(f"{one}."):
            raise SiteNamesError(
                f"sites {one} and {other}",
                why="their lanes begin alike, so that Redis can't keep them apart",
                remedy="Give one of them another name.",
            )
    return (User(SCHEDULER), User(FLOWER), User(MONITOR), *(User(f"{_SITE}{site}", site) for site in sites))


def _of_proxies(site: str) -> str:
    keys = (
        *_LEDGER_OF_A_PROXY,
        *(f"%RW~{kind}.{site}.*" for kind in ("disk", "proxy")),
        "%RW~repository.*",
        *_unacknowledged(site),
        *_BINDINGS,
        "%R~proxy@*.celery.pidbox*",
        "%RW~*.reply.celery.pidbox*",
    )
    commands = (*_TRANSACTIONS, *_LISTENING, *_SCRIPTS_OF_A_PROXY, *_CELERY_OF_A_PROXY)
    return f"{' '.join(keys)} {_QUESTIONS} {_CONNECTING} {_allowed(commands)} (+publish {_EVENTS}) {_locking(site)}"


def _of_the_scheduler() -> str:
    # The server's own proxy runs with the scheduler's configuration, and so as its user.
    lanes = ("~disk.*", "~proxy.*", "~repository.*", "~unacked*", "~proxy@*.celery.pidbox*")
    groups = "+@read +@write +@pubsub +@scripting +@transaction +@connection +@blocking +time -@dangerous +info"
    return (
        f"~{{pf}}:* {' '.join(lanes)} {' '.join(_BINDINGS)} ~*.reply.celery.pidbox* {_QUESTIONS} {_EVENTS} {groups}"
    )


def _of_flower() -> str:
    keys = (
        *_BINDINGS,
        *_unacknowledged(FLOWER),
        "%RW~*.reply.celery.pidbox*",
        "%RW~celeryev.*",
        *(f"%R~{kind}.*" for kind in ("disk", "proxy", "repository")),
    )
    commands = (
        *(*_TRANSACTIONS, *_LISTENING, "publish"),
        *("brpop", "lpush", "rpush", "llen", "exists", "sadd", "srem", "smembers", "hset", "hget", "hdel"),
        *("evalsha", "script|load", "script|exists", "time"),
        *("zadd", "zrem", "zrange", "zrangebyscore", "zrevrangebyscore"),
    )
    channels = f"{_QUESTIONS} {_EVENTS} {_EVENTS_WATCHED}"
    return f"{' '.join(keys)} {channels} {_CONNECTING} {_allowed(commands)} {_locking(FLOWER, '%RW~celeryev.*')}"


def _of_a_monitor() -> str:
    return f"{_CONNECTING} +info"


def _unacknowledged(holder: str) -> tuple[str, ...]:
    return tuple(f"%RW~{key}.{holder}" for key in ("unacked", "unacked_index"))


def _locking(holder: str, *more: str) -> str:
    """A selector: what would destroy any key is for these alone."""
    keys = (f"%RW~unacked_mutex.{holder}", "%RW~_kombu.binding.*", "%RW~*.reply.celery.pidbox*", *more)
    return f"({_allowed((*_LOCKING, 'evalsha'))} {' '.join(keys)})"


def _allowed(commands: Iterable[str]) -> str:
    return " ".join(f"+{command}" for command in commands)
