"""Copying restore points as tasks of a proxy: planned, copied, committed; and refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy_worker.contract.copying import CopyPlan, CopyPlanResult, CopyState, DiskCopy, PlannedCopy, PointToCopy
from proxy_worker.contract.disks import DiskBackupResult
from proxy_worker.contract.outcome import RepositoryCommitResult
from proxy_worker.contract.specification import FinishedDisk, RepositoryCommit
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.ledger import Claim, Fence, Share
from proxy_worker.mover.control import Unattended
from proxy_worker.mover.copy_planning import SameRepositoryError
from proxy_worker.node.bodies import perform
from proxy_worker.node.copying import OriginalGoneError
from proxy_worker.node.lease import LeaseKeeper
from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.errors import CannotReadError
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.rotation import rotate
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.withdrawal import end_point
from tests.mover.copies import make_source, make_target, write_key
from tests.repository.making import CHEAP, CREDENTIAL, PASSPHRASE

CLAIM = Claim(Fence("t1", 1, 1, "token"), "disk.copy web01 scsi0:0", b"", None, server_time=0, lease_s=30)
KEEPER = cast("LeaseKeeper", Unattended())


class Copier:
    """A proxy that has both repositories open, and no rule to keep to."""

    def __init__(self, source: Repository, target: Repository) -> None:
        self.source, self.target = source, target
        self.bench = cast("Any", self)
        self.identity = SimpleNamespace(name="proxy-1")
        self.ledger = SimpleNamespace(share=lambda *_, **__: Share(None))

    def repository(self, reference: RepositoryReference, _: str) -> Repository:
        return self.source if reference.name == "main" else self.target

    def reference(self, name: str) -> RepositoryReference:
        return RepositoryReference(name=name, location=self.repository(_named(name), "").access.store.location)

    def plan(self, *points: str) -> list[PlannedCopy]:
        asked = [(point.vm_id, point.vm_name, point.run) for point in self.source.points()]
        vm = VmIdentity(vm_id=asked[0][0], name=asked[0][1])
        wanted = points or tuple(run for *_, run in asked)
        body = CopyPlan(
            job="offsite",
            source=self.reference("main"),
            repository=self.reference("second"),
            points=tuple(PointToCopy(vm=vm, point=run) for run in wanted),
        )
        result = perform(body, self.bench, CLAIM, KEEPER)
        assert isinstance(result, CopyPlanResult)
        return list(result.points)

    def copy(self, planned: PlannedCopy) -> RepositoryCommitResult:
        """Copy and commit what is planned; it has one disk."""
        (disk,) = planned.disks
        assert planned.original is not None
        assert planned.run is not None
        body = DiskCopy(
            job="offsite",
            vm=planned.vm,
            disk_key=disk.key,
            source=self.reference("main"),
            original=planned.original,
            repository=self.reference("second"),
            run=planned.run,
        )
        copied = perform(body, self.bench, CLAIM, KEEPER)
        assert isinstance(copied, DiskBackupResult)
        finished = FinishedDisk(disk=disk, fence=CLAIM.fence.number, sealed_result=copied.sealed_result)
        commit = RepositoryCommit(
            repository=body.repository,
            run=planned.run,
            job="offsite",
            vm=planned.vm,
            disks=(finished,),
            started_at=planned.original.started_at,
            copy_of=planned.original,
        )
        committed = perform(commit, self.bench, CLAIM, KEEPER)
        assert isinstance(committed, RepositoryCommitResult)
        return committed


def _named(name: str) -> RepositoryReference:
    return RepositoryReference(name=name, location="/")


def _copier(folder: Path, *, twin: bool = False) -> Copier:
    source = make_source(folder / "main")
    return Copier(source, make_target(folder / "second", source, twin=twin))


@pytest.mark.parametrize("twin", [False, True])
def test_what_is_planned_is_copied_with_its_originals_place_in_time(tmp_path: Path, twin: bool) -> None:
    copier = _copier(tmp_path, twin=twin)

    for planned in copier.plan():
        assert planned.state is CopyState.MISSING
        committed = copier.copy(planned)
        original = copier.source.point(planned.vm.vm_id, planned.point)
        copy = copier.target.point(planned.vm.vm_id, planned.run or "")
        assert (copy.job, copy.sequence, copy.created_at, copy.started_at) == (
            "offsite",
            original.sequence,
            original.created_at,
            original.started_at,
        )
        assert committed.point.created_at == original.created_at

    assert [planned.state for planned in copier.plan()] == [CopyState.THERE, CopyState.THERE]


def test_what_went_from_either_side_is_told_apart(tmp_path: Path) -> None:
    copier = _copier(tmp_path)
    first, second = copier.plan()
    copier.copy(first)
    end_point(copier.target.access, vm_id=first.vm.vm_id, run=first.point)
    copier.target.abandon(vm_id=second.vm.vm_id, run=second.point, reason="its copy failed")

    removed, again, gone = copier.plan(first.point, second.point, "nosuch")

    assert (removed.state, gone.state) == (CopyState.REMOVED, CopyState.GONE)
    assert (again.state, again.run) == (CopyState.MISSING, f"{second.point}.2")
    end_point(copier.source.access, vm_id=again.vm.vm_id, run=again.point)
    with pytest.raises(OriginalGoneError, match="it was removed from repository main before it was copied"):
        copier.copy(again)


def test_a_write_key_copies_to_a_twin_until_either_is_rotated(tmp_path: Path) -> None:
    copier = _copier(tmp_path, twin=True)
    key = write_key(copier.source)
    opened = [
        Repository.open(LocalStore(tmp_path / name), Credential(key=key), cache_dir=None)
        for name in ("main", "second")
    ]
    writer = Copier(*opened)
    (planned, _) = writer.plan()
    assert planned.original is not None
    assert not planned.original.needs_read_key
    writer.copy(planned)

    rotate(LocalStore(tmp_path / "second"), [PASSPHRASE], cost=CHEAP)
    rotated = Copier(copier.source, Repository.open(LocalStore(tmp_path / "second"), CREDENTIAL))
    (_, later) = rotated.plan()
    assert later.original is not None
    assert later.original.needs_read_key


def test_a_write_key_copies_nothing_to_a_repository_with_keys_of_its_own(tmp_path: Path) -> None:
    copier = _copier(tmp_path)
    key = write_key(copier.source)
    writer = Copier(Repository.open(LocalStore(tmp_path / "main"), Credential(key=key)), copier.target)
    (planned, _) = writer.plan()
    assert planned.original is not None
    assert planned.original.needs_read_key

    with pytest.raises(CannotReadError, match="a write key may add them but not read them"):
        writer.copy(planned)


def test_a_repository_is_not_copied_to_itself_by_another_name(tmp_path: Path) -> None:
    source = make_source(tmp_path / "main")
    (tmp_path / "alias").symlink_to(tmp_path / "main")
    alias = Repository.open(LocalStore(tmp_path / "alias"), CREDENTIAL)

    with pytest.raises(SameRepositoryError, match="source and target are the same repository"):
        Copier(source, alias).plan()
