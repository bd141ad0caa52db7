"""Datastores that a host mounts by NFS for a while, found again by their names, which nobody else makes."""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import vim, vmodl

from proxy_worker.contract.errors import ConflictError
from proxy_worker.vsphere.faults import VsphereObjectGoneError
from proxy_worker.vsphere.properties import read, reference
from proxy_worker.vsphere.session import Session

_TYPE: Final = "NFS"


class DatastoreInUseError(ConflictError):
    """A datastore can't be unmounted, since something on it is in use."""

    retryable = True


def mount(session: Session, host: str, name: str, *, server: str, path: str) -> str:
    """Have a host mount `path` of `server`; one that it has by this name is taken for it. Its managed object id."""
    there = find(session, host, name)
    if there is not None:
        return there
    volume = vim.host.NasVolume.Specification(
        remoteHost=server, remotePath=path, localPath=name, accessMode="readWrite", type=_TYPE
    )
    system = _system(session, host)
    made = session.call(
        f"mounting {path} of {server} as datastore {name}", lambda: system.CreateNasDatastore(volume)
    )
    return str(reference(made))


def unmount(session: Session, host: str, name: str) -> bool:
    """Have a host unmount it; False if it isn't there. Raises `DatastoreInUseError`."""
    try:
        there = find(session, host, name)
    except VsphereObjectGoneError:
        return False  # the host has gone, and its mounts with it
    if there is None:
        return False
    system = _system(session, host)
    what = f"unmounting datastore {name}"

    def ask() -> None:
        try:
            system.RemoveDatastore(vim.Datastore(there, session.stub))
        except vim.fault.ResourceInUse as fault:
            raise DatastoreInUseError(
                what, why=f"{fault.name or 'something on it'} is in use", remedy="It is tried again."
            ) from fault
        except vmodl.fault.ManagedObjectNotFound:
            return

    session.call(what, ask)
    return True


def find(session: Session, host: str, name: str) -> str | None:
    """The managed object id of a host's datastore of that name."""

    def ask() -> str | None:
        stores = read(session, [vim.HostSystem(host, session.stub)], ["datastore"])[0]["datastore"] or ()
        found = read(session, list(stores), ["name"])
        return next((one.ref for one in found if one["name"] == name), None)

    return session.call(f"looking for datastore {name} of host {host}", ask, repeatable=True)


def _system(session: Session, host: str) -> Any:
    path = "configManager.datastoreSystem"
    return session.call(
        f"looking at the datastores of host {host}",
        lambda: read(session, [vim.HostSystem(host, session.stub)], [path])[0][path],
        repeatable=True,
    )
