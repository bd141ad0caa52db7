"""Versions of the contract: which proxies a scheduler serves while a fleet is upgraded one by one.

The scheduler is upgraded first. It serves proxies of its own version and of older ones down to `OLDEST_SERVED`,
and writes specifications no newer than the oldest proxy that may read them. A proxy that is newer than its
scheduler gets nothing until the scheduler is upgraded too: it may say what nobody here understands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import TaskKind

CONTRACT_VERSION: Final = 3
"""Of this program. 2: a specification says which version it is written in, and may have the keys of `BROUGHT`.
3: the kinds of `SINCE`."""
SINCE: Final[Mapping[TaskKind, int]] = {
    TaskKind.DISK_COPY: 3,
    TaskKind.COPY_PLAN: 3,
    TaskKind.POINT_BOOT: 3,
    TaskKind.POINT_SERVE: 3,
    TaskKind.POINT_RELEASE: 3,
    TaskKind.DISK_RECEIVE: 3,
    TaskKind.DISK_REPLICATE: 3,
    TaskKind.REPLICA_OPEN: 3,
    TaskKind.REPLICA_POINT: 3,
    TaskKind.REPLICA_REMOVE_POINT: 3,
    TaskKind.REPLICA_REVERT: 3,
    TaskKind.REPLICA_MARK: 3,
}
"""Kinds of tasks that a version brought: a proxy of an older one isn't given any."""
BROUGHT: Final = {2: frozenset({"areas_in_use", "authorities"}), 3: frozenset({"machines", "preferred_networks"})}
"""Keys of specifications that a version brought: a proxy of an older one refuses them, and does without."""
INSTEAD: Final = {3: {("level", "auto"): "optimal"}}
"""Values of keys that a version brought, and what older ones are told in their place."""
OLDEST_SERVED: Final = 1
"""The oldest that a scheduler of this version still gives tasks to."""


class ContractVersionError(ConflictError):
    """A task's specification is written in a version of the contract that this proxy doesn't speak."""

    retryable = True


def why_not_served(version: int) -> str:
    """Why a proxy that speaks `version` gets no tasks from this scheduler; empty when it does."""
    if version > CONTRACT_VERSION:
        return (
            f"it speaks version {version} of the contract and this scheduler {CONTRACT_VERSION}: "
            "upgrade the scheduler"
        )
    if version < OLDEST_SERVED:
        return (
            f"it speaks version {version} of the contract, and this scheduler serves {OLDEST_SERVED} to "
            f"{CONTRACT_VERSION}: upgrade the proxy"
        )
    return ""


def in_words_of(version: int, content: Any) -> Any:
    """A specification, as JSON's dictionaries and lists, without what `version` doesn't know."""
    unknown = {key for since, keys in BROUGHT.items() if since > version for key in keys}
    instead = {said: told for since, pairs in INSTEAD.items() if since > version for said, told in pairs.items()}
    if isinstance(content, dict):
        return {
            key: instead.get((key, value), value) if isinstance(value, str) else in_words_of(version, value)
            for key, value in content.items()
            if key not in unknown
        }
    return [in_words_of(version, one) for one in content] if isinstance(content, list) else content


def written_for(versions: Iterable[int]) -> int:
    """The version to write specifications in, so that each of the proxies that is served at all can read them."""
    return min((version for version in versions if not why_not_served(version)), default=CONTRACT_VERSION)
