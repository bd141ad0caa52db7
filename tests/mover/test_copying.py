"""Restore points are copied from one repository to another: what the other lacks, once, and nothing damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy_worker.cli.copying import NotAllCopiedError
from proxy_worker.cli.repository import app
from proxy_worker.contract.errors import CancelledError
from proxy_worker.mover.control import Unattended, Verdict
from proxy_worker.mover.copying import CopyOutcome
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import CollectorSettings, collect
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.keyring import public_key_id
from proxy_worker.repository.packs import read_footer, read_table
from proxy_worker.repository.points import StoredFile
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import rotate
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.mover.copies import TODAY, YESTERDAY, copy_all, copy_point, make_source, make_target, write_key
from tests.repository.collecting import packs
from tests.repository.making import (
    CHEAP,
    CREDENTIAL,
    KEY,
    OTHER,
    PASSPHRASE,
    VM,
    back_up,
    commit,
    make_repository,
    noise,
    restore,
    store_one,
    write_disk,
)

BOTH = pytest.mark.parametrize("twin", [False, True], ids=["own keys", "twin"])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Repository]:
    with make_source(tmp_path / "source") as made:
        yield made


def stored_bytes(repository: Repository) -> int:
    return sum(repository.access.store.size(name) for name in repository.access.store.list("packs/"))


@BOTH
def test_copies_are_restore_points_like_their_originals(source: Repository, tmp_path: Path, twin: bool) -> None:
    with make_target(tmp_path / "target", source, twin=twin) as target:
        results = copy_all(source, target)

        assert [result.outcome for result in results] == [CopyOutcome.COPIED] * 2
        assert [result.sealed for result in results] == [twin] * 2
        copies = {point.run: point for point in target.points()}
        for original, content in zip(source.points(), (YESTERDAY, TODAY), strict=True):
            copy = copies[original.run]
            assert restore(target, copy) == content
            assert (copy.vm_name, copy.job, copy.sequence, copy.created_at, copy.started_at) == (
                original.vm_name,
                original.job,
                original.sequence,
                original.created_at,
                original.started_at,
            )
        assert check(target.access).findings == ()
        assert list(target.access.store.list("writers/")) == list(source.access.store.list("readers/")) == []


@BOTH
def test_only_what_the_target_lacks_is_read_and_stored(source: Repository, tmp_path: Path, twin: bool) -> None:
    yesterday, today = source.points()
    with make_target(tmp_path / "target", source, twin=twin) as target:
        copy_point(source, target, yesterday)
        before = stored_bytes(target)

        [report] = copy_point(source, target, today).reports

        assert stored_bytes(target) - before < 4 * 64 * 1024  # of three blocks, one of them text
        if twin:
            assert report.read_bytes < 4 * 64 * 1024
        else:
            assert report.parent == "yesterday"
            assert report.full_read_reason is None

        before = stored_bytes(target)
        assert [result.outcome for result in copy_all(source, target)] == [CopyOutcome.THERE] * 2
        assert stored_bytes(target) == before


@BOTH
def test_configuration_files_go_with_their_disk(tmp_path: Path, twin: bool) -> None:
    with make_repository(tmp_path / "source") as source:
        vmx = b"displayName = web01\n" * 5000  # of two blocks
        with source.begin_disk(vm_id=VM.vm_id, run="files", disk_key=KEY, fence=9) as writer:
            ids = tuple(store_one(writer, vmx[at : at + 65536]) for at in range(0, len(vmx), 65536))
            writer.wait_durable(writer.mark())
        file = StoredFile(name="web01.vmx", size_bytes=len(vmx), block_ids=ids)
        commit(source, write_disk(source, noise(2), run="files", configuration=[file]), run="files")
        with make_target(tmp_path / "target", source, twin=twin) as target:
            copy_all(source, target)

            [copy] = target.points()
            with target.reader(copy) as reader:
                assert [(file.name, reader.read_file(file)) for file in copy.configuration] == [("web01.vmx", vmx)]


def test_a_target_with_blocks_of_another_size_takes_copies(source: Repository, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "target")
    store.prepare()
    with Repository.create(store, passphrase=None, block_size=256 * 1024, blocks_per_segment=2) as target:
        later = copy_all(source, target)[-1].reports[0]
        assert (later.parent, later.full_read_reason) == ("yesterday", None)
        with target.reader(target.points()[-1]) as reader:
            content = bytearray(len(TODAY))
            assert reader.read_range_into(KEY, 0, memoryview(content))
        assert content == TODAY
        with make_repository(tmp_path / "back") as back:  # and from larger blocks to smaller ones
            copy_all(target, back)
            assert restore(back, back.points()[-1]) == TODAY


def test_a_write_key_copies_to_a_twin_and_nowhere_else(source: Repository, tmp_path: Path) -> None:
    make_target(tmp_path / "twin", source, twin=True).close()
    key = write_key(source)
    store = source.access.store
    with (
        Repository.open(store, Credential(key=key)) as sealed,
        Repository.open(LocalStore(tmp_path / "twin"), Credential(key=key)) as target,
        make_target(tmp_path / "other", source, twin=False) as other,
    ):
        assert not sealed.can_read
        assert {result.outcome for result in copy_all(sealed, target)} == {CopyOutcome.COPIED}
        with pytest.raises(CannotReadError):
            copy_all(sealed, other)
    with Repository.open(LocalStore(tmp_path / "twin"), CREDENTIAL) as target:
        assert restore(target, target.points()[-1]) == TODAY


@BOTH
@pytest.mark.parametrize("can_read", [True, False], ids=["read key", "write key"])
def test_a_block_that_is_damaged_in_the_source_is_named_and_never_stored(
    source: Repository, tmp_path: Path, twin: bool, can_read: bool
) -> None:
    if not can_read and not twin:
        return
    make_target(tmp_path / "target", source, twin=twin).close()
    key = write_key(source)
    credential = CREDENTIAL if can_read else Credential(key=key)
    block_id = source.access.keyring.block_id(noise(1, 1))
    [copy] = source.access.index.find(block_id)
    path = tmp_path / "source" / copy.pack.name
    content = bytearray(path.read_bytes())
    content[copy.offset + 100] ^= 1
    path.write_bytes(content)
    with (
        Repository.open(source.access.store, credential) as original,
        Repository.open(LocalStore(tmp_path / "target"), CREDENTIAL) as target,
    ):
        results = copy_all(original, target)

        assert [result.outcome for result in results] == [CopyOutcome.FAILED] * 2
        assert f"disk {KEY} of web01 in restore point yesterday" in str(results[0].error)
        assert copy.pack.name in str(results[0].error)
        target.access.index.refresh()
        assert target.access.index.find(target.access.keyring.block_id(noise(1, 1))) == []
        assert target.points() == []
        stored = stored_bytes(target)
        copy_all(original, target)
        assert stored_bytes(target) == stored  # what was whole was stored, once
        assert check(target.access).findings == ()


@BOTH
def test_what_was_removed_from_the_target_is_not_brought_back(
    source: Repository, tmp_path: Path, twin: bool
) -> None:
    with make_target(tmp_path / "target", source, twin=twin) as target:
        copy_all(source, target)
        assert end_point(target.access, vm_id=VM.vm_id, run="yesterday")
        assert collect(target, CollectorSettings()).points == 1

        outcomes = {result.point.run: result.outcome for result in copy_all(source, target)}

        assert outcomes == {"yesterday": CopyOutcome.REMOVED, "today": CopyOutcome.THERE}
        assert restore(target, target.points()[0]) == TODAY


@BOTH
def test_a_copy_that_a_collector_gave_up_is_made_under_a_name_of_its_own(
    source: Repository, tmp_path: Path, twin: bool
) -> None:
    with make_target(tmp_path / "target", source, twin=twin) as target:
        target.abandon(vm_id=VM.vm_id, run="yesterday", reason="it never ended")

        assert [result.run for result in copy_all(source, target)] == ["yesterday.2", "today"]
        assert [result.outcome for result in copy_all(source, target)] == [CopyOutcome.THERE] * 2
        assert [restore(target, point) for point in target.points()] == [YESTERDAY, TODAY]


class RemovesIt(Unattended):
    """Removes the point and collects, in the middle of its copy."""

    def __init__(self, source: Repository) -> None:
        self._source = source
        self.done = False

    def verdict(self) -> Verdict:
        if not self.done:
            self.done = True
            for point in self._source.points():
                end_point(self._source.access, vm_id=point.vm_id, run=point.run)
            collect(self._source, CollectorSettings(unused_percent=0))
        return Verdict.RUN


@BOTH
def test_a_point_that_is_removed_while_it_is_copied_is_copied_whole_or_not_at_all(
    source: Repository, tmp_path: Path, twin: bool
) -> None:
    yesterday, today = source.points()
    with make_target(tmp_path / "target", source, twin=twin) as target:
        result = copy_point(source, target, today, RemovesIt(source))

        assert result.outcome is CopyOutcome.COPIED  # the copy's mark as a reader has kept what it needs
        assert restore(target, target.points()[0]) == TODAY
        assert copy_point(source, target, yesterday).outcome is CopyOutcome.GONE
        assert check(target.access).findings == ()


class Stops(Unattended):
    def verdict(self) -> Verdict:
        return Verdict.STOP


@BOTH
def test_a_copy_that_is_stopped_leaves_nothing_that_others_wait_for(
    source: Repository, tmp_path: Path, twin: bool
) -> None:
    with make_target(tmp_path / "target", source, twin=twin) as target:
        with pytest.raises(CancelledError):
            copy_point(source, target, source.points()[0], Stops())

        assert list(target.access.store.list("writers/")) == list(source.access.store.list("readers/")) == []
        assert copy_all(source, target)[0].outcome is CopyOutcome.COPIED


@pytest.mark.parametrize("rotated", ["source", "target"])
def test_after_a_rotation_data_keys_are_sealed_to_the_newest_pair_of_the_twin(rotated: str, tmp_path: Path) -> None:
    with make_source(tmp_path / "source") as source:
        make_target(tmp_path / "target", source, twin=True).close()
    rotate(LocalStore(tmp_path / rotated), [PASSPHRASE], cost=CHEAP)
    with (
        Repository.open(LocalStore(tmp_path / "source"), CREDENTIAL) as source,
        Repository.open(LocalStore(tmp_path / "target"), CREDENTIAL) as target,
    ):
        back_up(source, noise(3, 7), run="rotated")

        assert {result.outcome for result in copy_all(source, target)} == {CopyOutcome.COPIED}
        assert restore(target, target.points()[-1]) == noise(3, 7)
        access = target.access
        tables = [
            read_table(access.store, access.sealer, one, read_footer(access.store, one))[0] for one in packs(target)
        ]
        newest = public_key_id(access.keyring.data_public_key)
        assert {key.recipient for table in tables for key in table.data_keys} == {newest}


def test_the_command_copies_what_it_is_told(tmp_path: Path) -> None:
    with make_source(tmp_path / "source") as source:
        make_target(tmp_path / "target", source, twin=False).close()
    phrase = tmp_path / "phrase"
    phrase.write_bytes(PASSPHRASE + b"\n")
    call = ["copy", str(tmp_path / "source"), str(tmp_path / "target")]
    keys = ["--source-passphrase-file", str(phrase), "--target-passphrase-file", str(phrase)]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    runner = CliRunner(env=environment)

    newest = runner.invoke(app, [*call, *keys, "--newest", "--vm", "web01", "--json"])
    rest = runner.invoke(app, [*call, *keys, "--all"])

    assert [row["point"] for row in json.loads(newest.stdout)] == ["today"]
    assert "web01 yesterday: " in rest.stdout
    assert "stored sealed anew" in rest.stdout
    assert "web01 today: is there already" in rest.stdout
    assert "--point, --newest and --all" in str(runner.invoke(app, [*call, *keys]).exception)
    assert "VM nobody" in str(runner.invoke(app, [*call, *keys, "--all", "--vm", "nobody"]).exception)


def test_points_that_cannot_be_read_are_named_unless_others_were_asked_for(tmp_path: Path) -> None:
    with make_source(tmp_path / "source") as source:
        back_up(source, noise(1), run="other", vm=OTHER)
        make_target(tmp_path / "target", source, twin=True).close()
    (tmp_path / "source" / "points" / VM.vm_id / "today").write_bytes(b"no point")
    phrase = tmp_path / "phrase"
    phrase.write_bytes(PASSPHRASE)
    keys = ["--source-passphrase-file", str(phrase), "--target-passphrase-file", str(phrase)]
    call = ["copy", str(tmp_path / "source"), str(tmp_path / "target"), *keys, "--newest"]
    runner = CliRunner(env={"XDG_CACHE_HOME": str(tmp_path / "cache")})

    assert runner.invoke(app, [*call, "--vm", "db01"]).exit_code == 0
    ran = runner.invoke(app, call)

    assert isinstance(ran.exception, NotAllCopiedError)
    assert f"points/{VM.vm_id}/today" in str(ran.exception)
    assert "web01 yesterday: " in ran.stdout
    assert "db01 other: is there already" in ran.stdout
