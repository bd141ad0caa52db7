"""What steps at vCenters wait for, as the database has it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from proxy_worker.contract.names import CompressionLevel
from scheduler.planning.window import Window
from scheduler.runs.waiting import SNAPSHOT, step_id, survey
from scheduler.state.models import (
    DispatchSettings,
    Priority,
    RestoreWishes,
    Run,
    Site,
    SnapshotEntry,
    SnapshotState,
    Vcenter,
    VcenterStep,
    VmRestore,
    VmRestoreKind,
    VmRestoreState,
    VmRun,
)
from scheduler.state.store import open_state

STEP = step_id(SNAPSHOT, "point-1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Session]:
    """With a VM that is to be frozen."""
    state = open_state(f"sqlite:///{tmp_path}/scheduler.db", migrate=True)
    with state.write() as session:
        session.add(Site(name="primary"))
        session.add(Vcenter(name="vc1", host="vc.example", user="backup", credential="vc1", site="primary"))
        session.add(
            SnapshotEntry(
                id="point-1", vcenter="vc1", vm_ref="vm-1", vm_id="id-1", vm_name="web", datastores=("ds",),
                state=SnapshotState.PLANNED, created_at=1.0,
            )
        )  # fmt: skip
        session.add(
            VcenterStep(
                id=STEP, kind=SNAPSHOT, vcenter="vc1", title="snapshot of web", request="{}", vm_ref="vm-1",
                subject="point-1", created_at=1.0,
            )
        )  # fmt: skip
        yield session
    state.close()


def restore_of(vm_ref: str, state: VmRestoreState, vcenter: str = "vc1") -> VmRestore:
    """A restore that writes over a VM."""
    return VmRestore(
        id="restore-1", kind=VmRestoreKind.OVERWRITE, repository="main", vm_id="id-1", vm_name="web",
        point="point-0", vcenter=vcenter, target_name="web", wishes=RestoreWishes(), instance_uuid="id-1",
        state=state, vm_ref=vm_ref, created_at=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "state",
    [VmRestoreState.CREATING, VmRestoreState.WRITING, VmRestoreState.FINISHING, VmRestoreState.UNDOING],
)
def test_a_vm_that_is_being_restored_is_not_frozen(database: Session, state: VmRestoreState) -> None:
    database.add(restore_of("vm-1", state))
    database.flush()

    choice = survey(database, now=2.0)

    assert choice.start == ()
    assert choice.waiting == {STEP: "waiting: VM web is being restored (restore-1)"}


@pytest.mark.parametrize(
    "restore",
    [
        restore_of("vm-1", VmRestoreState.PLACING),
        restore_of("vm-1", VmRestoreState.SUCCEEDED),
        restore_of("vm-2", VmRestoreState.WRITING),
        restore_of("vm-1", VmRestoreState.WRITING, vcenter="vc2"),
    ],
    ids=["nothing is written yet", "it has ended", "another VM", "another vCenter"],
)
def test_other_restores_keep_nobody(database: Session, restore: VmRestore) -> None:
    database.add(restore)
    database.flush()

    assert survey(database, now=2.0).start == (STEP,)


def test_a_vm_is_frozen_only_while_the_window_is_open(database: Session) -> None:
    window = Window(hours=("Mon-Fri 20:00-6:00",))
    database.add(DispatchSettings(window=window))
    database.add(
        Run(
            id="run-1", job="nightly", repository="main", level=CompressionLevel.OPTIMAL,
            transport_mode="automatic", failover_to_network=True, priority=Priority.REGULAR,
            retry_count=0, retry_wait_seconds=0.0, vms=(),
            created_at=1.0,
        )
    )  # fmt: skip
    database.add(VmRun(id="run-1.web", run_id="run-1", name="web", repository_run="point-1", started_at=1.0))
    database.flush()
    monday_noon = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()

    at_noon = survey(database, monday_noon)
    at_night = survey(database, window.next_open(monday_noon))

    assert at_noon.start == ()
    assert at_noon.waiting == {
        STEP: "waiting: jobs may run Mon-Fri 20:00-6:00 (UTC), next from Mon 2026-11-23 20:00"
    }
    assert at_night.start == (STEP,)
