"""What vCenter's faults mean: each becomes a named error that says what to do."""

from __future__ import annotations

from http.client import HTTPException
from typing import ClassVar, Final
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from proxy_worker.contract.errors import (
    ConflictError,
    CredentialError,
    NotFoundError,
    ProxyfleetError,
    SourceError,
)

UNREACHABLE: Final = (OSError, HTTPException, ExpatError)
"""What a connection that can't be made, breaks, or answers something else than vSphere, raises."""
FAULTS: Final = (vmodl.MethodFault,)


class VcenterUnreachableError(SourceError):
    """A vCenter doesn't answer, or the connection to it broke."""


class SessionLostError(SourceError):
    """A vCenter ends this account's sessions as soon as they are opened."""


class VsphereError(SourceError):
    """vCenter refused or failed what it was asked, for a reason that this version has no better name for."""


class MissingPrivilegeError(CredentialError):
    """The account may not do this in vCenter."""

    def __init__(self, what: str, *, privilege: str, on: str) -> None:
        self.privilege = privilege
        super().__init__(
            what,
            why=f"the account lacks the privilege {privilege} on {on}",
            remedy="Add it to the account's role; docs/vsphere.md lists all that are needed.",
        )


class VsphereObjectGoneError(NotFoundError):
    """A VM, snapshot or other object was deleted, or unregistered, in the meantime."""


class DiskLockedError(ConflictError):
    """A virtual disk is in use by another VM or backup."""

    retryable: ClassVar[bool] = True


class VmBusyError(ConflictError):
    """The VM does something else just now, e.g. another snapshot or a migration."""

    retryable: ClassVar[bool] = True


class DatastoreFullError(SourceError):
    """A datastore has no room for a snapshot or a disk."""

    retryable: ClassVar[bool] = False


class HostUnavailableError(SourceError):
    """The ESXi host is disconnected or in maintenance, or the VM's datastore is inaccessible."""


class VsphereTaskCancelledError(SourceError):
    """Somebody cancelled the task in vCenter."""


def translate(what: str, fault: Exception) -> ProxyfleetError:
    """The named error for what pyvmomi raised, or for the fault a vCenter task ended with, while doing `what`."""
    if isinstance(fault, UNREACHABLE):
        return VcenterUnreachableError(
            what,
            why="it takes connections but doesn't answer in time"
            if isinstance(fault, TimeoutError)
            else getattr(fault, "strerror", None) or str(fault) or type(fault).__name__,
            remedy="Check the vCenter's address, its service, and the network between.",
        )
    if isinstance(fault, vim.fault.NotAuthenticated):
        return SessionLostError(
            what,
            why="vCenter ended the session again right after the login",
            remedy="Check its limits on sessions, and whether somebody terminates them.",
        )
    if isinstance(fault, vim.fault.NoPermission):
        return MissingPrivilegeError(
            what, privilege=fault.privilegeId or "that is needed", on=_reference(fault.object)
        )
    for kinds, error, remedy in _MEANINGS:
        if isinstance(fault, kinds):
            return error(what, why=words_of(fault), remedy=remedy)
    return VsphereError(what, why=words_of(fault), remedy="vCenter's own task list and log say more.")


def is_locked_out(error: ProxyfleetError) -> bool:
    """Whether the account isn't let in, or the vCenter not trusted: logins are worth nothing then.

    One that merely lacks a privilege is let in.
    """
    return isinstance(error, CredentialError) and not isinstance(error, MissingPrivilegeError)


def words_of(fault: Exception) -> str:
    """A fault in a line: its type, and its message where it has one."""
    name = type(fault).__name__.rpartition(".")[2]
    message = getattr(fault, "msg", None)
    file = getattr(fault, "file", None)
    parts = (name, f"({file})" if file else "", f"- {message}" if message else "")
    return " ".join(" ".join(parts).split())


def _reference(target: object) -> str:
    return str(target).strip("'").removeprefix("vim.").replace(":", " ") if target is not None else "an object"


_Meaning = tuple[tuple[type[Exception], ...], type[ProxyfleetError], str]
_MEANINGS: Final[tuple[_Meaning, ...]] = (
    (
        (vmodl.fault.ManagedObjectNotFound,),
        VsphereObjectGoneError,
        "If it still exists, rescan the inventory.",
    ),
    (
        (vim.fault.FileLocked,),
        DiskLockedError,
        "Look for another backup's proxy that has it attached, or a migration; it is tried again.",
    ),
    (
        (vim.fault.NoDiskSpace,),
        DatastoreFullError,
        "Free space on the datastore: a snapshot grows with what the VM writes.",
    ),
    (
        (
            vim.fault.TaskInProgress,
            vim.fault.InvalidPowerState,
            vim.fault.ConcurrentAccess,
            vim.fault.QuestionPending,
        ),
        VmBusyError,
        "Wait for the task, or answer the question, that vCenter shows; it is tried again.",
    ),
    (
        (
            vim.fault.HostConnectFault,
            vim.fault.InvalidHostState,
            vim.fault.InvalidDatastoreState,
            vim.fault.InaccessibleDatastore,
            vmodl.fault.HostCommunication,
        ),
        HostUnavailableError,
        "Take the host out of maintenance, or mount the datastore.",
    ),
    ((vmodl.fault.RequestCanceled,), VsphereTaskCancelledError, "Start it again."),
)
