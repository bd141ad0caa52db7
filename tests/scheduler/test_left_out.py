"""A restore point that doesn't hold all of its VM's disks says so to whoever restores the VM from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.outcome import PointDisk
from scheduler.planning.places import VcenterPlace
from scheduler.restores.asking import ask_for_vm_restore
from scheduler.restores.left_out import left_out
from scheduler.state.models import Point, Priority, Repository, RestoreWishes, Run, Site, Vcenter, VmRun
from scheduler.state.store import open_state


def add_point(session: Session, point: str, *keys: str, created_at: float, excluded: tuple[str, ...] = ()) -> Point:
    """A restore point, and the VM run that it comes from."""
    disks = tuple(PointDisk(key=key, size_bytes=1 << 30, stored_bytes=1) for key in keys)
    added = Point(
        repository="main", vm_id="id-web", point=point, vm_name="web", job="nightly", created_at=created_at,
        disks=disks,
    )  # fmt: skip
    session.add(added)
    run = Run(
        id=f"run-{point}", job="nightly", created_at=created_at, repository="main", level=CompressionLevel.OPTIMAL,
        transport_mode="automatic", failover_to_network=True, priority=Priority.REGULAR, retry_count=0,
        retry_wait_seconds=0.0, vms=("web",),
    )  # fmt: skip
    session.add(run)
    place = VcenterPlace(vcenter="vc1", ref="vm-1", datacenter="DC0", datastores=("ds1",), excluded_disks=excluded)
    session.flush()
    session.add(
        VmRun(id=f"{point}.1", run_id=run.id, vm_id="id-web", name="web", repository_run=point, place=place,
              started_at=1.0)
    )  # fmt: skip
    session.flush()
    return added


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Session]:
    """With a repository and a vCenter."""
    state = open_state(f"sqlite:///{tmp_path}/scheduler.db", migrate=True)
    with state.write() as session:
        session.add(Site(name="primary"))
        session.add(Repository(name="main", location="/backup", site="primary", credential="main"))
        session.add(Vcenter(name="vc1", host="vc1", user="backup", credential="vc1", site="primary"))
        session.flush()
        yield session
    state.close()


def warnings(database: Session, point: str, wishes: RestoreWishes | None = None) -> tuple[str, ...]:
    """Those of a restore from a point, under a name of its own."""
    wishes = wishes or RestoreWishes()
    name = f"{point}-{wishes.disks}"
    restore = ask_for_vm_restore(database, vm="web", point=point, name=name, wishes=wishes, now=9.0)
    database.flush()
    return restore.warnings


def test_a_restore_without_a_disk_says_which_point_holds_it(database: Session) -> None:
    add_point(database, "whole", "scsi0:0", "scsi0:1", created_at=1.0)
    partial = add_point(database, "partial", "scsi0:0", created_at=2.0, excluded=("scsi0:1",))

    assert left_out(database, partial) == ("scsi0:1",)
    assert warnings(database, "partial") == (
        "restore point partial doesn't hold scsi0:1: its job left that out; "
        "point whole in repository main holds it",
    )


def test_a_disk_that_no_point_holds_is_lost_by_name(database: Session) -> None:
    add_point(database, "partial", "scsi0:0", created_at=2.0, excluded=("scsi0:1", "scsi0:2"))
    (only,) = warnings(database, "partial")
    assert only.endswith(
        "doesn't hold scsi0:1, scsi0:2: its job left that out, and no other point of the VM holds it"
    )


def test_a_whole_point_and_disks_that_were_chosen_need_no_warning(database: Session) -> None:
    add_point(database, "whole", "scsi0:0", "scsi0:1", created_at=1.0)
    add_point(database, "partial", "scsi0:0", created_at=2.0, excluded=("scsi0:1",))

    assert warnings(database, "whole") == ()
    assert warnings(database, "partial", RestoreWishes(disks=("scsi0:0",))) == ()
