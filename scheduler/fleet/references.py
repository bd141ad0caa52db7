"""Pure checks between declarations: names that are taken twice, references to what isn't declared."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator

from scheduler.fleet.models import KINDS, Fleet, declarations


def problems_of(fleet: Fleet) -> list[str]:
    """Every duplicate name and broken reference, one line each; empty when the fleet holds together."""
    return [*_duplicates(fleet), *_broken_references(fleet)]


def warnings_of(fleet: Fleet) -> list[str]:
    """What is allowed and perhaps not meant: naming a proxy that isn't declared, as proxies register themselves."""
    declared = declarations(fleet, "proxy")
    return [
        f"repository {repository.name!r}: proxy {name!r} is not declared; it counts once one of that name registers"
        for repository in fleet.repository
        for name in repository.proxies or ()
        if name not in declared
    ]


def _duplicates(fleet: Fleet) -> Iterator[str]:
    for kind in KINDS:
        counts = Counter(declared.name for declared in getattr(fleet, kind))
        yield from (f"{kind} {name!r}: declared {count} times" for name, count in counts.items() if count > 1)
    for vm in fleet.vm:
        keys = Counter(disk.key for disk in vm.disks)
        yield from (
            f"vm {vm.name!r}: disk {key!r} declared {count} times" for key, count in keys.items() if count > 1
        )


def _broken_references(fleet: Fleet) -> Iterator[str]:
    sites, datastores, repositories = (
        declarations(fleet, kind).keys() for kind in ("site", "datastore", "repository")
    )
    for kind in ("datastore", "repository", "proxy"):
        for declared in getattr(fleet, kind):
            if declared.site is not None and declared.site not in sites:
                yield f"{kind} {declared.name!r}, key 'site': {_undeclared('site', declared.site, sites)}"
    for proxy in fleet.proxy:
        for name in proxy.datastores or ():
            if name not in datastores:
                yield f"proxy {proxy.name!r}, key 'datastores': {_undeclared('datastore', name, datastores)}"
    for job in fleet.job:
        if job.repository not in repositories:
            wrong = _undeclared("repository", job.repository, repositories)
            yield f"job {job.name!r}, key 'repository': {wrong}"


def _undeclared(kind: str, name: str, declared: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, declared, n=1)
    if nearest:
        return f"{kind} {name!r} is not declared; did you mean {nearest[0]!r}?"
    return (
        f"{kind} {name!r} is not declared; expected {' or '.join(sorted(declared)) or f'a [[{kind}]] of that name'}"
    )
