"""Restore points of a replica: whole or not there, gone back to in steps that may be cut and done again."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.replication.errors import (
    ReplicaBusyError,
    ReplicaPointMissingError,
    ReplicaPoweredOnError,
    ReplicaRevertingError,
    ReplicaTooLargeError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.replication.points import GoOn, Points
from proxy_worker.replication.session_lock import writing
from proxy_worker.replication.vmx_rewriting import Changes, rewritten
from proxy_worker.transport.vmx import parse_vmx, read_values
from tests.mover.disks import make_disk
from tests.replication.sites import KEY, VM, Target, never, replicate_here, request
from tests.simulators.loop_devices import mounted

MIB = 1 << 20
STANDBY, FAILED_OVER = ReplicaCondition.STANDBY, ReplicaCondition.FAILED_OVER


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.raw", 8 * MIB, [(0, b"first day" * 1000), (5 * MIB, b"more" * 100_000)])


@pytest.fixture
def target(tmp_path: Path, disk: Path) -> Target:
    """With a replica, and its VMX."""
    target = Target.made(tmp_path / "dr")
    replicate_here(disk, target, request("run-1"))
    write_vmx(target, "first")
    return target


def write_vmx(target: Target, words: str) -> None:
    (target.folder.path / "web01_replica.vmx").write_text(f'displayName = "{words}"\n')


def points(target: Target, go_on: GoOn = never) -> Points:
    return Points(target.folder, go_on)


def make(target: Target, run: str) -> None:
    points(target).make(run, [target.identity], never)


def second_day(target: Target, disk: Path) -> None:
    with disk.open("r+b") as file:
        file.write(b"second day" * 50_000)
    replicate_here(disk, target, request("run-2"))
    write_vmx(target, "second")


class KilledError(CancelledError):
    """Stands for a process that ends there."""


def killed_at(step: int) -> GoOn:
    left = step

    def go_on() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError("killed")

    return go_on


def test_a_point_keeps_what_the_replica_was_while_runs_write_it(target: Target, disk: Path) -> None:
    first = disk.read_bytes()
    make(target, "run-1")
    second_day(target, disk)
    make(target, "run-2")

    assert [point.run for point in points(target).all()] == ["run-1", "run-2"]
    assert points(target).all()[0].size_bytes == len(first)
    (stored,) = (target.folder.points / "run-1").glob("*-flat.vmdk")
    assert stored.read_bytes() == first
    assert stored.stat().st_blocks * 512 < 2 * MIB
    assert target.flat.read_bytes() == disk.read_bytes()


def test_a_point_shares_its_blocks_with_the_replica_where_the_file_system_can(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.raw", 64 * MIB, [(0, b"much of it" * 3 * MIB)])
    with mounted("xfs", tmp_path) as point:
        target = Target.made(point / "dr")
        replicate_here(disk, target, request("run-1"))
        free = target.folder.free_bytes

        make(target, "run-1")

        assert points(target).all()[0].reflinked
        assert free - target.folder.free_bytes < 2 * MIB
        points(target).revert("run-1", FAILED_OVER)
        assert target.flat.read_bytes() == disk.read_bytes()


def test_a_point_that_is_there_is_not_made_again(target: Target, disk: Path) -> None:
    make(target, "run-1")
    before = points(target).all()
    second_day(target, disk)

    make(target, "run-1")

    assert points(target).all() == before


def test_a_point_whose_making_was_killed_is_not_there_and_leaves_nothing_for_long(target: Target) -> None:
    with pytest.raises(KilledError):
        points(target, killed_at(1)).make("run-1", [target.identity], never)
    assert points(target).all() == ()
    assert len(list(target.folder.points.iterdir())) == 1

    make(target, "run-2")

    assert [point.run for point in points(target).all()] == ["run-2"]
    assert len(list(target.folder.points.iterdir())) == 1, "nothing is left of the other"


def test_a_point_that_was_removed_is_gone_and_may_be_removed_again(target: Target) -> None:
    make(target, "run-1")

    assert points(target).remove("run-1")
    assert not points(target).remove("run-1")
    assert list(target.folder.points.iterdir()) == []


def test_a_point_is_not_made_while_a_session_writes(target: Target) -> None:
    session = target.folder.session_file(KEY)

    with writing(session, "disk", 1 << 40, patience_s=0, go_on=never), pytest.raises(ReplicaBusyError):
        make(target, "run-1")


def test_a_copy_without_room_is_refused_before_anything_is_written(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.replication.folder.ReplicaFolder.free_bytes", 100)
    monkeypatch.setattr("proxy_worker.replication.points.can_share", lambda _: False)

    with pytest.raises(ReplicaTooLargeError, match="restore point run-1"):
        make(target, "run-1")

    assert list(target.folder.points.iterdir()) == []


def test_a_failover_and_its_undoing_go_back_to_the_point_and_a_repeated_step_changes_nothing(
    target: Target, disk: Path
) -> None:
    first = disk.read_bytes()
    target.flat.chmod(0o640)
    make(target, "run-1")
    second_day(target, disk)

    points(target).revert("run-1", FAILED_OVER)
    assert target.folder.marker() == Marker(FAILED_OVER, "run-1", original=VM.vm_id)
    assert target.flat.read_bytes() == first
    assert stat.S_IMODE(target.flat.stat().st_mode) == 0o640
    assert "first" in (target.folder.path / "web01_replica.vmx").read_text()
    with target.flat.open("r+b") as file:
        file.write(b"the guest's own")
    points(target).revert("run-1", FAILED_OVER)
    assert target.flat.read_bytes().startswith(b"the guest's own")

    points(target).revert("run-1", STANDBY)
    assert target.flat.read_bytes() == first
    replicate_here(disk, target, request("run-3"))
    assert target.folder.marker() == Marker(original=VM.vm_id)
    assert target.flat.read_bytes() == disk.read_bytes()


def test_a_reverting_that_was_killed_anywhere_keeps_runs_away_until_it_is_done_again(
    target: Target, disk: Path
) -> None:
    first = disk.read_bytes()
    make(target, "run-1")
    second_day(target, disk)
    step = 0
    while True:
        target.folder.note(Marker())
        try:
            points(target, killed_at(step)).revert("run-1", FAILED_OVER)
        except KilledError:
            with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
                replicate_here(disk, target, request("run-3"))
            with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
                points(target).remove("run-1")
            points(target).revert("run-1", FAILED_OVER)
            step += 1
            assert target.flat.read_bytes() == first
        else:
            break
    assert step > 0 or points(target).all()[0].reflinked


def test_a_replica_that_runs_is_not_reverted(target: Target) -> None:
    make(target, "run-1")
    (target.folder.path / "web01-1234.vswp").touch()

    with pytest.raises(ReplicaPoweredOnError, match=r"there is web01-1234\.vswp"):
        points(target).revert("run-1", STANDBY)


def test_a_point_that_is_not_there_is_named(target: Target) -> None:
    with pytest.raises(ReplicaPointMissingError, match="restore point run-9 of replica web01_replica"):
        points(target).revert("run-9", FAILED_OVER)


ORIGINAL = b"""\
.encoding = "UTF-8"
displayName = "web01"
uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"
uuid.location = "56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 00"
nvram = "web01.nvram"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "scratch.vmdk"
ethernet0.networkName = "production"
ethernet1.networkName = "backup"
annotation = "say |22hello|22"
"""


def test_a_replicas_vmx_has_its_own_name_uuid_networks_and_disks() -> None:
    changes = Changes(
        name='web01 "dr"',
        uuid="01234567-89ab-cdef-0123-456789abcdef",
        networks={"production": "dr-production"},
        disks={"scsi0:0": "web01_replica.vmdk"},
        nvram=None,
    )

    data, warnings = rewritten(ORIGINAL, "web01.vmx", changes)

    vmx, values = parse_vmx(data, "web01_replica.vmx"), read_values(data, "web01_replica.vmx")
    assert (vmx.name, vmx.uuid, vmx.nvram) == ('web01 "dr"', changes.uuid, None)
    assert [(disk.key, disk.file_name) for disk in vmx.disks] == [("scsi0:0", "web01_replica.vmdk")]
    assert (values["ethernet0.networkname"], values["ethernet1.networkname"]) == ("dr-production", "backup")
    assert values["annotation"] == 'say "hello"'
    assert "uuid.location" not in values
    assert len(warnings) == 2
