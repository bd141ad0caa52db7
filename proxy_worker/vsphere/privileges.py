"""The least that an account needs in vCenter, and what of it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from proxy_worker.vsphere.properties import reference
from proxy_worker.vsphere.session import Session


class Purpose(StrEnum):
    """What a privilege is needed for."""

    BACKUP = "backup"
    HOT_ADD = "virtual appliance mode"
    RESTORE = "restore"
    INSTANT_RESTORE = "instant restore"
    REPLICA = "replicas"


@dataclass(frozen=True, slots=True)
class Privilege:
    """One entry of the role."""

    id: str
    label: str
    """As the vSphere Client shows it."""
    purpose: Purpose


def _of(purpose: Purpose, *entries: tuple[str, str]) -> tuple[Privilege, ...]:
    return tuple(Privilege(entry, label, purpose) for entry, label in entries)


ROLE: Final[tuple[Privilege, ...]] = (
    *_of(
        Purpose.BACKUP,
        ("System.Read", "(in every role)"),
        ("Global.DisableMethods", "Global > Disable methods"),
        ("Global.EnableMethods", "Global > Enable methods"),
        ("Global.Licenses", "Global > Licenses"),
        ("Datastore.Browse", "Datastore > Browse datastore"),
        ("Datastore.FileManagement", "Datastore > Low level file operations"),
        (
            "VirtualMachine.Config.ChangeTracking",
            "Virtual machine > Change configuration > Toggle disk change tracking",
        ),
        ("VirtualMachine.Config.DiskLease", "Virtual machine > Change configuration > Acquire disk lease"),
        (
            "VirtualMachine.Provisioning.DiskRandomRead",
            "Virtual machine > Provisioning > Allow read-only disk access",
        ),
        (
            "VirtualMachine.Provisioning.GetVmFiles",
            "Virtual machine > Provisioning > Allow virtual machine download",
        ),
        ("VirtualMachine.State.CreateSnapshot", "Virtual machine > Snapshot management > Create snapshot"),
        ("VirtualMachine.State.RemoveSnapshot", "Virtual machine > Snapshot management > Remove snapshot"),
    ),
    *_of(
        Purpose.HOT_ADD,
        ("VirtualMachine.Config.AddExistingDisk", "Virtual machine > Change configuration > Add existing disk"),
        ("VirtualMachine.Config.RemoveDisk", "Virtual machine > Change configuration > Remove disk"),
    ),
    *_of(
        Purpose.RESTORE,
        ("Datastore.AllocateSpace", "Datastore > Allocate space"),
        ("Network.Assign", "Network > Assign network"),
        ("Resource.AssignVMToPool", "Resource > Assign virtual machine to resource pool"),
        ("VirtualMachine.Config.AddNewDisk", "Virtual machine > Change configuration > Add new disk"),
        ("VirtualMachine.Config.AddRemoveDevice", "Virtual machine > Change configuration > Add or remove device"),
        ("VirtualMachine.Config.AdvancedConfig", "Virtual machine > Change configuration > Advanced configuration"),
        ("VirtualMachine.Config.CPUCount", "Virtual machine > Change configuration > Change CPU count"),
        ("VirtualMachine.Config.EditDevice", "Virtual machine > Change configuration > Modify device settings"),
        ("VirtualMachine.Config.Memory", "Virtual machine > Change configuration > Change memory"),
        ("VirtualMachine.Config.Resource", "Virtual machine > Change configuration > Change resource"),
        ("VirtualMachine.Config.Settings", "Virtual machine > Change configuration > Change settings"),
        ("VirtualMachine.Interact.PowerOff", "Virtual machine > Interaction > Power off"),
        ("VirtualMachine.Interact.PowerOn", "Virtual machine > Interaction > Power on"),
        ("VirtualMachine.Inventory.Create", "Virtual machine > Edit inventory > Create new"),
        ("VirtualMachine.Inventory.Delete", "Virtual machine > Edit inventory > Remove"),
        ("VirtualMachine.Inventory.Register", "Virtual machine > Edit inventory > Register"),
        ("VirtualMachine.Inventory.Unregister", "Virtual machine > Edit inventory > Unregister"),
        ("VirtualMachine.Provisioning.DiskRandomAccess", "Virtual machine > Provisioning > Allow disk access"),
        (
            "VirtualMachine.Provisioning.PutVmFiles",
            "Virtual machine > Provisioning > Allow virtual machine files upload",
        ),
    ),
    *_of(
        Purpose.INSTANT_RESTORE,
        ("Host.Config.Storage", "Host > Configuration > Storage partition configuration"),
        ("Resource.ColdMigrate", "Resource > Migrate powered off virtual machine"),
        ("Resource.HotMigrate", "Resource > Migrate powered on virtual machine"),
    ),
    *_of(
        Purpose.REPLICA,
        ("VirtualMachine.State.RevertToSnapshot", "Virtual machine > Snapshot management > Revert to snapshot"),
    ),
)


@dataclass(frozen=True, slots=True)
class Missing:
    """A privilege that the account lacks, and where."""

    privilege: Privilege
    on: str
    """Managed object id."""

    def __str__(self) -> str:
        return f"{self.privilege.id} on {self.on} ({self.privilege.label}; needed for {self.privilege.purpose})"


def missing_privileges(
    session: Session, purposes: Sequence[Purpose] = tuple(Purpose), on: Sequence[Any] = ()
) -> tuple[Missing, ...]:
    """What the session's account lacks for these purposes, in one call.

    `on` are managed objects, by default the root folder: give VMs and datastores where the role is granted on some
    folders only.
    """
    content = session.content
    wanted = {privilege.id: privilege for privilege in ROLE if privilege.purpose in purposes}
    entities = list(on) or [content.rootFolder]

    def ask() -> list[Any]:
        key = content.sessionManager.currentSession.key
        answers: list[Any] = content.authorizationManager.HasPrivilegeOnEntities(entities, key, list(wanted))
        return answers

    answers = session.call(f"checking privileges at vCenter {session.endpoint.name}", ask, repeatable=True)
    return tuple(
        Missing(wanted[found.privId], str(reference(answer.entity)))
        for answer in answers
        for found in answer.privAvailability
        if not found.isGranted
    )
