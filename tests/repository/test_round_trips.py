"""What was stored comes back, whatever the disk."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.repository.check import check
from proxy_worker.repository.maps import load_map
from proxy_worker.repository.points import StoredDisk, StoredFile
from proxy_worker.repository.repository import Repository, open_store
from proxy_worker.repository.scrub import scrub
from proxy_worker.repository.writer import open_sealed
from tests.repository.making import (
    BLOCK,
    BLOCKS_PER_SEGMENT,
    CREDENTIAL,
    KEY,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    report_of,
    restore,
    store_content,
    store_one,
    text,
    write_disk,
)

pieces = st.lists(
    st.one_of(
        st.integers(0, 5).map(lambda seed: noise(1, seed)),
        st.integers(0, 5).map(lambda seed: text(1, seed)),
        st.just(bytes(BLOCK)),
        st.binary(min_size=1, max_size=8).map(lambda end: bytes(BLOCK - len(end)) + end),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(days=st.lists(st.tuples(pieces, st.integers(0, BLOCK - 1)), min_size=1, max_size=3), encrypted=st.booleans())
def test_every_day_of_a_disk_comes_back(days: list[tuple[list[bytes], int]], encrypted: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, make_repository(Path(folder), encrypted=encrypted) as repository:
        contents = [b"".join(blocks) + b"\x07" * tail for blocks, tail in days]
        points = [back_up(repository, content, run=f"run-{day}") for day, content in enumerate(contents)]

        assert [restore(repository, point) for point in points] == contents
        report = check(repository.access)
        assert (report.findings, report.points) == ((), len(days))


@pytest.mark.parametrize("level", CompressionLevel)
def test_every_level_restores(tmp_path: Path, level: CompressionLevel) -> None:
    with make_repository(tmp_path) as repository:
        content = text(3) + noise(2) + bytes(BLOCK)
        result = write_disk(repository, content, run="run-1", level=level)

        assert restore(repository, commit(repository, result, run="run-1")) == content


def test_the_newest_point_is_the_last_committed_whatever_the_vm_is_called(tmp_path: Path) -> None:
    """Changed areas are relative to it: an older one in its place would make wrong data of them."""
    with make_repository(tmp_path) as repository:
        for number, name in enumerate(("zeta", "alpha", "mike", "alpha"), start=1):
            vm = VmIdentity(vm_id="vm-1", name=name)
            assert back_up(repository, text(number), run=f"run-{number}", vm=vm).sequence == number
            newest = repository.newest_point("vm-1")
            assert newest is not None
            assert newest.run == f"run-{number}"
        back_up(repository, text(1), run="other", vm=VmIdentity(vm_id="vm-0", name="lima"))

        assert [point.run for point in repository.points()] == ["run-1", "run-2", "run-3", "run-4", "other"]


def test_the_map_of_a_very_large_disk_comes_back(tmp_path: Path) -> None:
    """Some ten thousand segments, or packs, come to more than the buffer of a pack."""
    segments = [random.Random(number).randbytes(32) for number in range(40_000)]
    size_bytes = len(segments) * BLOCKS_PER_SEGMENT * BLOCK
    with make_repository(tmp_path) as repository:
        with repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1) as writer:
            result = writer.finish(size_bytes=size_bytes, segments=segments, report=report_of(writer, size_bytes))
        stored = open_sealed(repository.access.sealer, f"result/{VM.vm_id}/run-1/{KEY}", result, StoredDisk)
        repository.access.index.refresh()

        assert list(load_map(repository.chunks, stored.map_id).segments) == segments
        assert scrub(repository.access.store).findings == ()


def test_the_vms_configuration_comes_back(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        vmx = b'displayName = "web01"\n' * 5000
        with repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1) as writer:
            ids = tuple(store_one(writer, vmx[at : at + BLOCK]) for at in range(0, len(vmx), BLOCK))
            result = writer.finish(
                size_bytes=BLOCK,
                segments=store_content(writer, text(1)),
                report=report_of(writer, BLOCK),
                configuration=[StoredFile("web01.vmx", len(vmx), ids)],
            )
        point = commit(repository, result, run="run-1")

        with repository.reader(point) as reader:
            assert [reader.read_file(file) for file in point.configuration] == [vmx]


def test_an_unchanged_disk_adds_next_to_nothing(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        content = noise(10)
        first = back_up(repository, content, run="run-1")
        second = back_up(repository, content, run="run-2")

        assert first.disks[0].stored_bytes > len(content)
        assert second.disks[0].stored_bytes < 4096


def test_a_later_process_finds_what_an_earlier_stored(tmp_path: Path) -> None:
    """The index is read anew, from the fragments and not from the writer's memory."""
    with make_repository(tmp_path / "repository") as repository:
        back_up(repository, noise(10), run="run-1")
    for run in ("run-2", "run-3"):
        with Repository.open(
            open_store(str(tmp_path / "repository")), CREDENTIAL, cache_dir=tmp_path / "cache"
        ) as again:
            assert back_up(again, noise(10), run=run).disks[0].stored_bytes < 4096


def test_a_checkpoint_is_durable_and_taken_up_by_the_next_attempt(tmp_path: Path) -> None:
    with make_repository(tmp_path) as repository:
        first, second = noise(4, 1), noise(4, 2)
        with repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1) as writer:
            [segment] = store_content(writer, first)
            assert writer.wait_durable(writer.mark(), timeout_s=120)
            sealed = writer.seal_checkpoint(segment)
            store_content(writer, second)  # never becomes durable

        with repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=2) as writer:
            resumed = [writer.open_checkpoint(sealed), *store_content(writer, second)]
            result = writer.finish(size_bytes=8 * BLOCK, segments=resumed, report=report_of(writer, 8 * BLOCK))
        point = commit(repository, result, run="run-1", fence=2)

        assert restore(repository, point) == first + second
        assert check(repository.access).findings == ()


def test_marks_become_durable_in_order(tmp_path: Path) -> None:
    with (
        make_repository(tmp_path) as repository,
        repository.begin_disk(vm_id=VM.vm_id, run="run-1", disk_key=KEY, fence=1) as writer,
    ):
        assert writer.durable_mark == writer.mark() == 0
        store_content(writer, noise(2, 1))
        early = writer.mark()
        store_content(writer, noise(2, 2))
        assert early < writer.mark()
        assert writer.wait_durable(early, timeout_s=120)
        assert writer.durable_mark >= early
