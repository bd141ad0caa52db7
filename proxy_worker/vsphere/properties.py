"""Reading through the PropertyCollector: many objects in pages, or a few by reference, never one call per object.

Properties are read as leaf paths. That is what a large vCenter wants, and a `task.info` read whole doesn't always
parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pyVmomi import vim, vmodl

from proxy_worker.vsphere.session import Session

Managed = TypeVar("Managed", bound=vim.ManagedEntity)

PAGE: Final = 500
"""Objects per answer: a VM with its devices is about 10 KiB of XML."""


@dataclass(frozen=True, slots=True)
class ObjectProperties:
    """What was read of one managed object."""

    kind: str
    """E.g. `VirtualMachine`."""
    ref: str
    """The managed object id, e.g. `vm-42`: unique in this vCenter, meaningless in another or on its hosts."""
    values: Mapping[str, Any]
    """By path; a property that isn't set is absent."""
    unreadable: Mapping[str, str]
    """Paths that the account may not read, or that failed, with the fault's name."""

    def __getitem__(self, path: str) -> Any:
        return self.values.get(path)


def reference(target: Any) -> str | None:
    """The managed object id of a reference that a property holds, or None."""
    return None if target is None else str(target._moId)  # pyvmomi offers no other way


def retrieve(
    session: Session, paths: Mapping[type[vim.ManagedEntity], Sequence[str]], *, page: int = PAGE
) -> Iterator[ObjectProperties]:
    """Every object of these types below the root folder that the account sees, in pages of `page` objects.

    Not repeatable by itself: pages belong to one login. Use it inside `Session.call`.
    """
    content = session.content
    view = content.viewManager.CreateContainerView(content.rootFolder, list(paths), True)
    try:
        traversal = vmodl.query.PropertyCollector.TraversalSpec(
            name="view", path="view", skip=False, type=vim.view.ContainerView
        )
        start = vmodl.query.PropertyCollector.ObjectSpec(obj=view, skip=True, selectSet=[traversal])
        yield from _pages(content, [start], paths, page)
    finally:
        view.DestroyView()


def read(
    session: Session, targets: Sequence[Any], paths: Sequence[str], *, page: int = PAGE
) -> tuple[ObjectProperties, ...]:
    """These paths of these managed objects, all of one type, in one call per page.

    Not repeatable by itself, as `retrieve`. Raises vCenter's ManagedObjectNotFound if one no longer exists.
    """
    if not targets:
        return ()
    specs = [vmodl.query.PropertyCollector.ObjectSpec(obj=target, skip=False) for target in targets]
    return tuple(_pages(session.content, specs, {type(targets[0]): paths}, page))


def _pages(
    content: Any, objects: list[Any], paths: Mapping[Any, Sequence[str]], page: int
) -> Iterator[ObjectProperties]:
    collector = content.propertyCollector
    wanted = [
        vmodl.query.PropertyCollector.PropertySpec(type=kind, pathSet=list(names), all=False)
        for kind, names in paths.items()
    ]
    filters = [vmodl.query.PropertyCollector.FilterSpec(objectSet=objects, propSet=wanted)]
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=page)
    answer = collector.RetrievePropertiesEx(filters, options)
    while answer is not None:
        for found in answer.objects:
            yield _properties(found)
        answer = collector.ContinueRetrievePropertiesEx(answer.token) if answer.token else None


def _properties(found: Any) -> ObjectProperties:
    unreadable = {}
    for missing in found.missingSet or ():
        fault = missing.fault.fault if isinstance(missing.fault, vmodl.LocalizedMethodFault) else missing.fault
        if isinstance(fault, vim.fault.NotAuthenticated):
            raise fault  # an expired session, told object by object
        unreadable[missing.path] = type(fault).__name__.rpartition(".")[2]
    values = {entry.name: entry.val for entry in found.propSet or ()}
    return ObjectProperties(type(found.obj)._wsdlName, found.obj._moId, values, unreadable)
