"""Which VM a restore over an existing one is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from proxy_worker.contract.outcome import PointDisk
from scheduler.restores.asking import NoSuchTargetError, WhichVcenterError, ask_for_vm_restore
from scheduler.state.models import Point, Repository, RestoreWishes, Site, Vcenter, VmRestore
from scheduler.state.scanning import store_scan
from scheduler.state.store import open_state
from tests.scheduler.state.test_scanning import scanned


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Session]:
    """With a restore point of VM `id-web`, and two vCenters that show nothing yet."""
    state = open_state(f"sqlite:///{tmp_path}/scheduler.db", migrate=True)
    with state.write() as session:
        session.add(Site(name="primary"))
        session.add(Repository(name="main", location="/backup", site="primary", credential="main"))
        for vcenter in ("vc1", "vc2"):
            session.add(Vcenter(name=vcenter, host=vcenter, user="backup", credential=vcenter, site="primary"))
        disks = (PointDisk(key="scsi0:0", size_bytes=1 << 30, stored_bytes=1),)
        session.add(
            Point(
                repository="main", vm_id="id-web", point="point-1", vm_name="web", job="nightly", created_at=1.0,
                disks=disks,
            )
        )  # fmt: skip
        session.flush()
        yield session
    state.close()


def overwrite(database: Session, **how: str) -> VmRestore:
    """Ask for it."""
    return ask_for_vm_restore(database, vm="web", wishes=RestoreWishes(), now=2.0, overwrite=True, **how)


def test_over_the_original_wherever_it_is_and_whatever_it_is_called_now(database: Session) -> None:
    store_scan(database, "vc2", (scanned("web", name="web-renamed"),), 1.0)
    store_scan(database, "vc1", (scanned("other", name="web"),), 1.0)

    restore = overwrite(database)

    assert (restore.vcenter, restore.instance_uuid) == ("vc2", "id-web")


def test_in_the_vcenter_that_was_named_and_in_no_other(database: Session) -> None:
    for vcenter in ("vc1", "vc2"):
        store_scan(database, vcenter, (scanned("web", name="web"),), 1.0)

    assert overwrite(database, vcenter="vc2").vcenter == "vc2"


def test_never_over_the_original_when_another_vcenter_was_named(database: Session) -> None:
    store_scan(database, "vc1", (scanned("web", name="web"),), 1.0)

    with pytest.raises(NoSuchTargetError):
        overwrite(database, vcenter="vc2")


def test_two_vcenters_that_show_it_have_to_be_told_apart(database: Session) -> None:
    for vcenter in ("vc1", "vc2"):
        store_scan(database, vcenter, (scanned("web", name="web"),), 1.0)

    with pytest.raises(WhichVcenterError, match="id-web in vc1, id-web in vc2"):
        overwrite(database)
