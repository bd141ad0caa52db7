"""The catalogue says what each vCenter showed last, and jobs are planned from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.planning.inventory import ScannedDisk, ScannedVm
from scheduler.state.models import Datastore, DatastoreKind, Site, Vcenter, VcenterVm
from scheduler.state.scanning import catalogued_candidates, store_scan
from scheduler.state.store import open_state

DISK = ScannedDisk(
    key="scsi0:0",
    device_key=2000,
    controller="scsi",
    label="Hard disk 1",
    size_bytes=1 << 30,
    provisioning="thin",
    mode="persistent",
    datastore="Fast Store (1)",
    path="web/web.vmdk",
    datastore_type="VMFS",
    uuid="6000C29a",
    encrypted=False,
    obstacle=None,
)


def scanned(known_as: str, **changes: Any) -> ScannedVm:
    vm = ScannedVm(
        ref=f"vm-{known_as}",
        vm_id=f"id-{known_as}",
        name=known_as,
        datacenter="Europe/DC0",
        folder="Europe/DC0/Linux",
        cluster="C0",
        pool="",
        host="esx1",
        datastores=("Fast Store (1)",),
        tags=("Backup/gold",),
        attributes={"Owner": "ops"},
        template=False,
        powered_on=True,
        tools_running=True,
        windows=False,
        encrypted=False,
        tracks_changes=True,
        can_track_changes=True,
        snapshots=1,
        configuration_path="[Fast Store (1)] web/web.vmx",
        disks=(DISK,),
        problem=None,
    )
    return vm.model_copy(update=changes)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    state = open_state(f"sqlite:///{tmp_path / 'scheduler.db'}", migrate=True)
    with state.write() as opened:
        opened.add(Site(name="primary"))
        opened.flush()
        for name in ("vc1", "vc2"):
            opened.add(Vcenter(name=name, host=name, user="backup", credential=name, site="primary"))
        opened.flush()
        yield opened
    state.close()


def names(session: Session, vcenter: str) -> list[str]:
    return list(
        session.scalars(select(VcenterVm.name).where(VcenterVm.vcenter == vcenter).order_by(VcenterVm.name))
    )


def test_a_scan_replaces_what_that_vcenter_showed_before_and_nothing_else(session: Session) -> None:
    store_scan(session, "vc2", [scanned("other")], 1.0)
    assert store_scan(session, "vc1", [scanned("a"), scanned("b")], 1.0) == "2 VMs: 2 new, 0 gone"
    renamed = scanned("b", name="b2", disks=(), problem="it has no disks")
    assert store_scan(session, "vc1", [renamed, scanned("c")], 2.0) == "2 VMs: 1 new, 1 gone"
    session.flush()
    assert (names(session, "vc1"), names(session, "vc2")) == (["b2", "c"], ["other"])
    assert session.get_one(VcenterVm, ("vc1", "vm-b")).problem == "it has no disks"
    assert session.get_one(Vcenter, "vc1").scanned_at == 2.0


def test_what_is_unchanged_is_not_written_again(session: Session) -> None:
    store_scan(session, "vc1", [scanned("a")], 1.0)
    session.flush()
    session.expire_all()
    with session.no_autoflush:
        store_scan(session, "vc1", [scanned("a")], 2.0)
    assert [type(row) for row in session.dirty] == [Vcenter]


def test_a_vcenter_that_is_no_longer_declared_is_left_out(session: Session) -> None:
    assert store_scan(session, "gone", [scanned("a")], 1.0) == "it is not declared any more"
    assert session.scalars(select(VcenterVm)).all() == []


def test_its_vms_go_with_a_vcenter(session: Session) -> None:
    store_scan(session, "vc1", [scanned("a")], 1.0)
    session.flush()
    session.delete(session.get_one(Vcenter, "vc1"))
    session.flush()
    assert names(session, "vc1") == []


@pytest.mark.parametrize("vsphere_name", ["Fast Store (1)", "Europe/DC0/Fast Store (1)"])
def test_disks_carry_their_place_in_vcenter_and_the_declared_datastore(session: Session, vsphere_name: str) -> None:
    kind = DatastoreKind.VSPHERE
    session.add(Datastore(name="fast", kind=kind, site="primary", vcenter="vc1", vsphere_name=vsphere_name))
    session.add(Datastore(name="Fast", kind=kind, site="primary", vcenter="vc2", vsphere_name="Fast Store (1)"))
    store_scan(session, "vc1", [scanned("web")], 1.0)
    session.flush()
    (candidate,) = catalogued_candidates(session, ["vc1"])
    (disk,) = candidate.disks
    address = disk.identity.address
    assert (address.datastore, address.path) == ("fast", "web/web.vmdk")
    assert address.vsphere is not None
    assert address.vsphere.path == "[Fast Store (1)] web/web.vmdk"
    assert (address.vsphere.vm, address.vsphere.key, address.vsphere.snapshot) == ("vm-web", 2000, None)
    assert (address.vsphere.vcenter.host, address.vsphere.earlier_snapshots) == ("vc1", True)
    assert candidate.datastores == ("Fast Store (1)", "fast")
    (file,) = (one.vsphere_file for one in candidate.configuration)
    assert file is not None
    assert (file.datacenter, file.path) == ("Europe/DC0", "[Fast Store (1)] web/web.vmx")


def test_a_datastore_that_is_not_declared_has_no_name_for_proxies(session: Session) -> None:
    store_scan(session, "vc1", [scanned("web")], 1.0)
    session.flush()
    (candidate,) = catalogued_candidates(session, ["vc1"])
    assert candidate.disks[0].identity.address.datastore is None
    assert catalogued_candidates(session, []) == []
