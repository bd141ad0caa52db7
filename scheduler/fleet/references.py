"""Pure checks between declarations: names that are taken twice, references to what isn't declared."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Collection, Iterator

from scheduler.fleet.hardening import ONLY, hardened_on
from scheduler.fleet.models import KINDS, Datastore, Fleet, Job, Proxy, Repository, declarations
from scheduler.state.declared import DatastoreKind


def problems_of(fleet: Fleet) -> list[str]:
    """Every duplicate name and broken reference, one line each; empty when the fleet holds together."""
    return [*_duplicates(fleet), *_broken_references(fleet)]


def warnings_of(fleet: Fleet) -> list[str]:
    """What is allowed and perhaps not meant: a hardened repository without upkeep."""
    return [
        f"repository {repository.name!r} is hardened and has no 'collect': each backup then looks up and renews "
        "all that its restore point needs"
        for repository in fleet.repository
        if repository.hardened and repository.collect is None
    ]


def absent_proxies(fleet: Fleet, registered: Collection[str] = ()) -> list[str]:
    """Names and patterns that fit no proxy, declared or `registered`: allowed, as proxies may join at any time."""
    there = {*declarations(fleet, "proxy"), *registered}
    return [
        f"{where}: no proxy {wanted!r} is declared or has registered; it counts once one does"
        for where, patterns in _named_proxies(fleet)
        for wanted in patterns
        if not fnmatch.filter(there, wanted)
    ]


def _named_proxies(fleet: Fleet) -> Iterator[tuple[str, Collection[str]]]:
    for kind, named in (("repository", fleet.repository), ("job", fleet.job)):
        for declared in named:
            yield f"{kind} {declared.name!r}, key 'proxies'", declared.proxies or ()
            yield f"{kind} {declared.name!r}, key 'preferred_proxies'", declared.preferred_proxies
    for job in fleet.job:
        if job.replica is not None:
            yield f"job {job.name!r}, key 'replica.proxies'", job.replica.proxies or ()


def _duplicates(fleet: Fleet) -> Iterator[str]:
    for kind in KINDS:
        counts = Counter(declared.name for declared in getattr(fleet, kind))
        yield from (f"{kind} {name!r}: declared {count} times" for name, count in counts.items() if count > 1)
    for vm in fleet.vm:
        keys = Counter(disk.key for disk in vm.disks)
        yield from (
            f"vm {vm.name!r}: disk {key!r} declared {count} times" for key, count in keys.items() if count > 1
        )
    owners = Counter(
        (store.vcenter, store.vsphere_name or store.name) for store in fleet.datastore if store.vcenter
    )
    yield from (
        f"vcenter {vcenter!r}: its datastore {name!r} declared {count} times"
        for (vcenter, name), count in owners.items()
        if count > 1
    )


def _broken_references(fleet: Fleet) -> Iterator[str]:
    sites, vcenters, datastores, repositories = (
        declarations(fleet, kind).keys() for kind in ("site", "vcenter", "datastore", "repository")
    )
    for kind in ("vcenter", "datastore", "repository", "proxy"):
        for declared in getattr(fleet, kind):
            if declared.site is not None and declared.site not in sites:
                yield f"{kind} {declared.name!r}, key 'site': {_undeclared('site', declared.site, sites)}"
    for datastore in fleet.datastore:
        if datastore.vcenter is not None and datastore.vcenter not in vcenters:
            wrong = _undeclared("vcenter", datastore.vcenter, vcenters)
            yield f"datastore {datastore.name!r}, key 'vcenter': {wrong}"
    for proxy in fleet.proxy:
        for name in proxy.datastores or ():
            if name not in datastores:
                yield f"proxy {proxy.name!r}, key 'datastores': {_undeclared('datastore', name, datastores)}"
        yield from _wrong_modes(proxy, fleet.repository)
    for repository in fleet.repository:
        for name in repository.linked:
            if name not in repositories or name == repository.name:
                wrong = _undeclared("repository", name, repositories - {repository.name})
                yield f"repository {repository.name!r}, key 'linked': {wrong}"
    for job in fleet.job:
        yield from _broken_references_of_replicas(job, fleet.datastore, repositories)
        yield from _broken_references_of(job, repositories, vcenters)


def _broken_references_of(job: Job, repositories: Collection[str], vcenters: Collection[str]) -> Iterator[str]:
    if job.repository is not None and job.repository not in repositories:
        yield f"job {job.name!r}, key 'repository': {_undeclared('repository', job.repository, repositories)}"
    if job.copy_from is not None:
        source = job.copy_from.repository
        if source not in repositories:
            yield f"job {job.name!r}, key 'copy_from.repository': {_undeclared('repository', source, repositories)}"
        elif source == job.repository:
            yield f"job {job.name!r}, key 'copy_from.repository': it is {source!r}, which the job copies to"
    for key, selectors in (("select", job.select), ("exclude", job.exclude)):
        for index, selector in enumerate(selectors):
            if selector.vcenter is not None and selector.vcenter not in vcenters:
                wrong = _undeclared("vcenter", selector.vcenter, vcenters)
                yield f"job {job.name!r}, key '{key}[{index}].vcenter': {wrong}"


def _wrong_modes(proxy: Proxy, repositories: Collection[Repository]) -> Iterator[str]:
    kept = hardened_on([proxy.server.host], repositories) if proxy.server is not None else None
    if kept is not None and proxy.transport_mode is not ONLY:
        yield (
            f"proxy {proxy.name!r}, key 'transport_mode': {proxy.transport_mode.value!r} is not possible on the "
            f"machine of hardened repository {kept.name!r}; expected '{ONLY.value}'"
        )


def _broken_references_of_replicas(
    job: Job, datastores: Collection[Datastore], repositories: Collection[str]
) -> Iterator[str]:
    if job.replica is None:
        return
    kinds = {store.name: store.kind for store in datastores}
    wanted, seed = job.replica.datastore, job.replica.seed
    if wanted not in kinds:
        yield f"job {job.name!r}, key 'replica.datastore': {_undeclared('datastore', wanted, kinds)}"
    for key in ("mapped", "seed") if kinds.get(wanted) is DatastoreKind.VSPHERE else ():
        if getattr(job.replica, key):
            yield (
                f"job {job.name!r}, key 'replica.{key}': datastore {wanted!r} is a vCenter's, where replicas are "
                "made anew; expected no such key"
            )
    if seed is not None and seed not in repositories:
        yield f"job {job.name!r}, key 'replica.seed': {_undeclared('repository', seed, repositories)}"


def _undeclared(kind: str, name: str, declared: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, declared, n=1)
    if nearest:
        return f"{kind} {name!r} is not declared; did you mean {nearest[0]!r}?"
    return (
        f"{kind} {name!r} is not declared; expected {' or '.join(sorted(declared)) or f'a [[{kind}]] of that name'}"
    )
