"""The role: what is missing is listed, in one call, and the list is what vSphere knows."""

from __future__ import annotations

import re
from pathlib import Path

from pyVmomi import vim

from proxy_worker.vsphere.privileges import ROLE, Purpose, missing_privileges
from proxy_worker.vsphere.session import Session
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.machines import MIB, make_vm


def test_an_account_with_the_role_misses_nothing(vsphere: VsphereSimulator, session: Session) -> None:
    assert missing_privileges(session) == ()
    assert vsphere.calls()["HasPrivilegeOnEntities"] == 1


def test_each_missing_privilege_is_listed_with_what_it_is_for(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.revoke(["VirtualMachine.State.RemoveSnapshot", "VirtualMachine.Inventory.Create"])
    root = session.content.rootFolder._moId
    assert [str(missing) for missing in missing_privileges(session)] == [
        f"VirtualMachine.State.RemoveSnapshot on {root} "
        "(Virtual machine > Snapshot management > Remove snapshot; needed for backup)",
        f"VirtualMachine.Inventory.Create on {root} "
        "(Virtual machine > Edit inventory > Create new; needed for restore)",
    ]
    assert len(missing_privileges(session, [Purpose.BACKUP])) == 1


def test_privileges_are_checked_where_the_role_is_granted(vsphere: VsphereSimulator, session: Session) -> None:
    vms = [vim.VirtualMachine(make_vm(session, MIB).ref, session.stub) for _ in range(3)]
    vsphere.revoke(["Datastore.Browse"])
    vsphere.go_wrong("HasPrivilegeOnEntities", "refuse", "NotAuthenticated")
    found = missing_privileges(session, on=vms)
    assert [missing.on for missing in found] == [vm._moId for vm in vms]


def test_the_guide_lists_every_privilege() -> None:
    guide = (Path(__file__).parents[2] / "docs/vsphere.md").read_text()
    listed = re.findall(r"`(?:[A-Z][A-Za-z]+)?(?:\.[A-Za-z]+)*\.([A-Za-z]+)`", guide)
    assert {entry.id.rpartition(".")[2] for entry in ROLE} - {*listed, "Read"} == set()


def test_vsphere_knows_every_privilege_of_the_role(session: Session) -> None:
    roles = session.content.authorizationManager.roleList
    known = set(next(role for role in roles if role.name == "Admin").privilege)
    assert {privilege.id for privilege in ROLE} - known == set()
    assert len({privilege.id for privilege in ROLE}) == len(ROLE)
