"""A disk and its replica, both in reach of one proxy: equal after each run, and no more done than is needed."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.figures import DiskProgress
from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.mover.control import Verdict
from proxy_worker.mover.pacing import Pacing
from proxy_worker.replication.blocks import BLOCK_BYTES, PIECE_BLOCKS, block_count
from proxy_worker.replication.errors import (
    ReplicaBusyError,
    ReplicaDiskSizeError,
    ReplicaFailedOverError,
    ReplicaPoweredOnError,
    ReplicaTooLargeError,
    ReplicaUnwritableError,
    StaleSessionError,
)
from proxy_worker.replication.home import Marker
from proxy_worker.replication.messages import Open
from proxy_worker.replication.near_end import NearEnd
from proxy_worker.replication.replicating import SEND_BYTES
from proxy_worker.replication.session_lock import writing
from proxy_worker.transport.image import open_image
from tests.mover.disks import make_disk
from tests.replication.sites import KEY, Target, never, replicate_here, request, send
from tests.simulators.loop_devices import mounted

SECTOR = 512
MIB = 1 << 20


def noise(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target.made(tmp_path / "dr")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Eight blocks and a bit: zeros, data, a hole, data."""
    data = [(BLOCK_BYTES, noise(1, 2 * BLOCK_BYTES)), (6 * BLOCK_BYTES, noise(2, BLOCK_BYTES))]
    return make_disk(tmp_path / "disk.raw", 8 * BLOCK_BYTES + SECTOR, data)


def rewrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_new_replica_is_a_vmdk_that_is_equal_to_its_source_and_as_sparse(disk: Path, target: Target) -> None:
    result = replicate_here(disk, target, request("run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert target.flat.stat().st_blocks * 512 <= 4 * BLOCK_BYTES
    image = open_image(target.folder.datastore, target.disk_path)
    assert image.size_bytes == disk.stat().st_size
    image.close()
    assert result.report.stored_bytes == 3 * BLOCK_BYTES
    assert result.report.read_bytes == 3 * BLOCK_BYTES


def test_a_second_run_writes_what_changed_alone(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(disk, 6 * BLOCK_BYTES + 7, b"changed")
    rewrite(disk, BLOCK_BYTES, bytes(BLOCK_BYTES))

    with target.reception() as (reception, _):
        result = send(disk, NearEnd(reception), request("run-2"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert result.report.stored_bytes == BLOCK_BYTES
    assert reception.done.written_bytes == 2 * BLOCK_BYTES
    assert reception.done.compared_bytes == 0


def test_changed_areas_spare_reading_where_the_replica_is_as_the_run_before_left_it(
    disk: Path, target: Target
) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(disk, 6 * BLOCK_BYTES, b"changed")
    asked = request("run-2", areas=[(6 * BLOCK_BYTES, SECTOR)], parent="run-1")

    result = replicate_here(disk, target, asked)

    assert target.flat.read_bytes() == disk.read_bytes()
    assert (result.report.read_bytes, result.report.parent) == (BLOCK_BYTES, "run-1")
    assert result.report.unchanged_bytes == disk.stat().st_size - BLOCK_BYTES


@pytest.mark.parametrize("parent", ["run-0", None])
def test_changed_areas_since_another_run_are_not_counted_on(disk: Path, target: Target, parent: str) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(disk, 2 * BLOCK_BYTES, b"changed, and not in the areas")

    result = replicate_here(disk, target, request("run-2", areas=[(0, SECTOR)], parent=parent))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert result.report.parent is None
    assert result.report.full_read_reason == (
        "changed areas weren't used: the replica isn't of the run that they are since"
    )


def test_a_replica_that_was_changed_by_hand_is_compared(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    rewrite(target.flat, 2 * BLOCK_BYTES, b"by hand")

    with target.reception() as (reception, _):
        result = send(disk, NearEnd(reception), request("run-2", areas=[], parent="run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert "isn't as its last run left it" in (result.report.full_read_reason or "")
    assert reception.done.compared_bytes == 3 * BLOCK_BYTES
    assert reception.done.written_bytes == BLOCK_BYTES


def test_what_is_noted_and_was_damaged_is_not_believed(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    (digests,) = (target.state_dir / "replicas").glob("*.digests")
    rewrite(digests, 16, b"not the digest of block 1")

    with target.reception() as (reception, _):
        send(disk, NearEnd(reception), request("run-2"))

    assert reception.note == "what was noted of the replica is damaged"
    assert reception.done.written_bytes == 0
    assert target.flat.read_bytes() == disk.read_bytes()


def test_an_existing_disk_is_taken_as_it_is_and_only_what_differs_is_written(disk: Path, target: Target) -> None:
    target.open_folder()
    target.disk_path = "web01_replica/raw.img"
    target.flat.write_bytes(disk.read_bytes())
    rewrite(target.flat, 0, b"another guest's")

    with target.reception() as (reception, _):
        send(disk, NearEnd(reception), request("run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert reception.done.written_bytes == BLOCK_BYTES


def test_a_replica_grows_with_its_source(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    with disk.open("ab") as file:
        file.write(noise(3, BLOCK_BYTES))

    replicate_here(disk, target, request("run-2", areas=[], parent="run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    image = open_image(target.folder.datastore, target.disk_path)
    assert image.size_bytes == disk.stat().st_size
    image.close()


def test_a_source_that_shrank_is_refused_by_name(disk: Path, target: Target) -> None:
    replicate_here(disk, target, request("run-1"))
    before = target.flat.read_bytes()
    with disk.open("r+b") as file:
        file.truncate(BLOCK_BYTES)

    with pytest.raises(ReplicaDiskSizeError, match="and its source only 262144"):
        replicate_here(disk, target, request("run-2"))
    assert target.flat.read_bytes() == before


def test_a_datastore_without_room_is_refused_by_name_before_anything_is_written(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "large.raw", 20 * MIB, [(0, noise(5, 20 * MIB))])
    with mounted("ext4", tmp_path) as point:
        target = Target.made(point / "dr")

        with pytest.raises(ReplicaTooLargeError, match="doesn't fit into datastore ds-dr: it takes 20971520 bytes"):
            replicate_here(disk, target, request("run-1"))

        assert not target.flat.exists()


def test_a_state_folder_without_room_for_digests_is_an_error_by_name(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "huge.raw", 400 << 30, [])
    with mounted("ext4", tmp_path) as point:
        target = Target.made(tmp_path / "dr")
        target.state_dir = point / "state"

        with pytest.raises(
            ReplicaUnwritableError, match=r"the digests of disk scsi0:0 .* can't be kept: .*No space left"
        ):
            replicate_here(disk, target, request("run-1"))


def test_a_datastore_that_others_fill_meanwhile_ends_the_run_by_name_and_the_next_goes_on(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.raw", 6 * MIB, [(0, noise(5, 6 * MIB))])
    with mounted("ext4", tmp_path) as point:
        target = Target.made(point / "dr")
        with target.reception() as (reception, _):
            other = point / "other.img"
            reception.open(Open("session", 6 * MIB, 6 * MIB, None))
            with other.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, target.folder.free_bytes - 3 * MIB)
            with pytest.raises(ReplicaTooLargeError, match="only partly written"):
                send(disk, NearEnd(reception), request("run-1"))
        other.unlink()

        replicate_here(disk, target, request("run-1"))

        assert target.flat.read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(
    ("marker", "error"),
    [(Marker(ReplicaCondition.FAILED_OVER, "run-1"), ReplicaFailedOverError), (Marker(), ReplicaPoweredOnError)],
)
def test_a_replica_in_use_is_refused_with_the_reason(
    disk: Path, target: Target, marker: Marker, error: type[Exception]
) -> None:
    replicate_here(disk, target, request("run-1"))
    before = target.flat.read_bytes()
    rewrite(disk, 0, b"changed")
    target.folder.note(marker)
    if error is ReplicaPoweredOnError:
        (target.folder.path / "web01_replica.vmx.lck").mkdir()

    with pytest.raises(error):
        replicate_here(disk, target, request("run-2"))

    assert target.flat.read_bytes() == before


def test_a_session_waits_for_the_one_before_and_one_of_an_earlier_fence_never_writes(
    disk: Path, target: Target
) -> None:
    folder = target.folder
    target.open_folder()
    session = folder.session_file(KEY)

    with (
        writing(session, "disk", 7, patience_s=0, go_on=never),
        pytest.raises(ReplicaBusyError),
        writing(session, "disk", 8, patience_s=0.1, go_on=never),
    ):
        pass
    with pytest.raises(StaleSessionError, match="session 7 has had it since"), target.reception(6):
        pass

    asked = 0

    def end_the_former() -> None:
        nonlocal asked
        asked += 1
        former.close()

    former = ExitStack()
    former.enter_context(writing(session, "disk", 8, patience_s=0, go_on=never))
    with writing(session, "disk", 9, patience_s=60, go_on=end_the_former):
        assert asked == 1


class Stopping:
    """A control that stops a target after it was asked so often: before each block that it reads or writes."""

    def __init__(self, after: int) -> None:
        self._left = after

    def report(self, progress: DiskProgress) -> None: ...

    def checkpoint(self, sealed: str) -> None: ...

    def verdict(self) -> Verdict:
        self._left -= 1
        return Verdict.RUN if self._left > 0 else Verdict.STOP


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, target: Target) -> None:
    disk = make_disk(tmp_path / "large.raw", 64 * BLOCK_BYTES, [(0, noise(4, 64 * BLOCK_BYTES))])
    target.control = Stopping(after=64 + 20)
    with pytest.raises(CancelledError):
        replicate_here(disk, target, request("run-1", streams=1))
    target.control = Target.made(tmp_path / "other").control
    done = target.flat.stat().st_blocks * 512 // BLOCK_BYTES
    assert 0 < done < 64

    with target.reception() as (reception, _):
        send(disk, NearEnd(reception), request("run-1"))

    assert target.flat.read_bytes() == disk.read_bytes()
    assert reception.done.written_bytes <= (64 - done + 1) * BLOCK_BYTES


class StopsOnceItWaited:
    """A control that stops a source some time after its pace let nothing more through."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._left = 20

    def report(self, progress: DiskProgress) -> None: ...

    def checkpoint(self, sealed: str) -> None: ...

    def verdict(self) -> Verdict:
        if not self._pacing.ready():
            self._left -= 1
        return Verdict.RUN if self._left > 0 else Verdict.STOP


def test_many_streams_overdraw_their_pace_no_more_than_one(tmp_path: Path, target: Target) -> None:
    disk = make_disk(tmp_path / "large.raw", 24 * MIB, [(0, noise(6, 24 * MIB))])
    pacing = Pacing(1.0, clock=lambda: 0.0)

    with target.reception() as (reception, _), pytest.raises(CancelledError):
        send(
            disk,
            NearEnd(reception),
            request("run-1", streams=5),
            control=StopsOnceItWaited(pacing),
            pacing=pacing,
        )

    assert 0 < pacing.use().spent_bytes <= SEND_BYTES + PIECE_BLOCKS * BLOCK_BYTES


@st.composite
def days(draw: st.DrawFn) -> tuple[int, list[list[tuple[int, bytes]]]]:
    """A disk's size, and what is written to it on each of some days."""
    size = draw(st.integers(1, 12 * BLOCK_BYTES // SECTOR)) * SECTOR
    content = st.one_of(
        st.binary(min_size=1, max_size=600),
        st.builds(bytes, st.integers(1, 3 * BLOCK_BYTES)),
        st.builds(noise, st.integers(0, 9), st.integers(1, 2 * BLOCK_BYTES)),
    )
    write = st.tuples(st.integers(0, size - 1), content).map(lambda one: (one[0], one[1][: size - one[0]]))
    return size, draw(st.lists(st.lists(write, max_size=4), min_size=1, max_size=3))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days(), st.booleans(), st.sampled_from([1, 3]))
def test_a_replica_is_equal_to_its_source_after_every_run(
    tmp_path_factory: pytest.TempPathFactory,
    history: tuple[int, list[list[tuple[int, bytes]]]],
    tracked: bool,
    streams: int,
) -> None:
    size, writes_by_day = history
    folder = tmp_path_factory.mktemp("history")
    disk, target = make_disk(folder / "disk.raw", size, []), Target.made(folder / "dr")
    parent = None

    for number, writes in enumerate(writes_by_day):
        for offset, data in writes:
            rewrite(disk, offset, data)
        areas = [(offset, len(data)) for offset, data in writes] if tracked and parent else None
        asked = request(f"run-{number}", areas=areas, parent=parent, streams=streams)
        result = replicate_here(disk, target, asked)
        parent = asked.run

        assert target.flat.read_bytes() == disk.read_bytes()
        assert result.report.stored_bytes <= block_count(size) * BLOCK_BYTES
        assert result.report.parent == (None if areas is None else f"run-{number - 1}")
