"""Disks through real proxies: backed up, committed, restored equal, within the slots, whatever is killed."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.disks import DiskBackup, DiskBackupResult, DiskRestore, DiskRestoreResult
from proxy_worker.contract.names import proxy_lane
from proxy_worker.contract.outcome import RepositoryCommitResult
from proxy_worker.contract.specification import FinishedDisk, RepositoryCheck, RepositoryCommit, RepositoryList
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    RepositoryReference,
    TransportPreference,
    VmIdentity,
)
from proxy_worker.ledger import FinishedTask, TaskState, TaskVerdict
from proxy_worker.repository.repository import Repository, new_run_id
from proxy_worker.repository.store.local import LocalStore
from tests.repository.making import CHEAP
from tests.tasks.fleet import Fleet, Proxy, wait_until

MIB = 1 << 20
PASSPHRASE = "correct horse"
SLOW_BITS_PER_S = "120M"
"""About 15 MB/s: a disk of 48 MiB takes three seconds."""
WEB01 = VmIdentity(vm_id="web01", name="web01")


class DiskFleet(Fleet):
    """With a repository, and a datastore whose disks are read slowly on request."""

    def prepare(self) -> None:
        (self.folder / "ds1").mkdir()
        self.repository = self.make_repository("main", PASSPHRASE.encode())

    def make_repository(self, name: str, passphrase: bytes | None) -> RepositoryReference:
        store = LocalStore(self.folder / name)
        Repository.create(store, passphrase=passphrase, kdf_cost=CHEAP).close()
        return RepositoryReference(name=name, location=store.location, credential=name if passphrase else None)

    def add_disk_proxy(
        self, name: str, *, slots: int = 2, slow: bool = False, drain_timeout_s: float = 30
    ) -> Proxy:
        datastore = f'path = "{self.folder / "ds1"}"'
        if slow:
            command = ["nbdkit", "--foreground", "--unix", "{socket}", "--readonly", "--filter=rate", "file"]
            command += [f"{self.folder / 'ds1'}/{{path}}", f"rate={SLOW_BITS_PER_S}", "burstiness=0.1"]
            datastore = f"network_command = {command}"
        proxy = self.add_proxy(
            name,
            slots=slots,
            settings=[f"drain_timeout_s = {drain_timeout_s}"],
            tables=f"[datastores.ds1]\n{datastore}",
        )
        (proxy.folder / "secrets/main.passphrase").write_text(PASSPHRASE)
        return proxy

    def disk(self, name: str, size_bytes: int) -> DiskIdentity:
        (self.folder / "ds1" / name).write_bytes(os.urandom(size_bytes))
        address = DiskAddress(datastore="ds1", path=name)
        return DiskIdentity(key="scsi0:0", address=address, size_bytes=size_bytes)

    def backup(self, disk: DiskIdentity, vm: VmIdentity = WEB01) -> DiskBackup:
        return DiskBackup(
            run=new_run_id(),
            job="nightly",
            vm=vm,
            disk=disk,
            transport=TransportPreference(),
            repository=self.repository,
        )

    def commit(self, body: DiskBackup, ended: FinishedTask, *, proxy: str) -> str:
        """Commit a finished backup of one disk and return the point's run."""
        assert isinstance(ended.result, DiskBackupResult), ended
        assert ended.fence_number is not None
        stored = FinishedDisk(disk=body.disk, fence=ended.fence_number, sealed_result=ended.result.sealed_result)
        commit = RepositoryCommit(
            repository=self.repository, run=body.run, job=body.job, vm=body.vm, disks=(stored,), started_at=0
        )
        committed = self.run(commit, proxy=proxy)
        assert isinstance(committed.result, RepositoryCommitResult), committed
        return committed.result.point.run

    def assert_restores(self, body: DiskBackup, *, proxy: str) -> None:
        """Restore the run's disk through a proxy and compare it with its source."""
        target = self.folder / f"restored-{body.run}"
        restore = DiskRestore(
            repository=self.repository, vm=body.vm, run=body.run, disk_key=body.disk.key, target_path=str(target)
        )
        restored = self.run(restore, proxy=proxy)
        assert isinstance(restored.result, DiskRestoreResult), restored
        source = self.folder / "ds1" / str(body.disk.address.path)
        assert _digest(target) == _digest(source)


@pytest.fixture
def disks(tmp_path: Path, valkey: EmbeddedValkey) -> Iterator[DiskFleet]:
    """A fleet with a repository and without proxies yet."""
    made = DiskFleet(tmp_path, valkey)
    made.prepare()
    yield made
    made.end()


@pytest.fixture
def disks_own_server(tmp_path: Path, own_valkey: EmbeddedValkey) -> Iterator[DiskFleet]:
    """The same on a server that may be killed."""
    made = DiskFleet(tmp_path, own_valkey)
    made.prepare()
    yield made
    made.end()


def test_disk_is_backed_up_committed_listed_checked_and_restored(disks: DiskFleet) -> None:
    disks.add_disk_proxy("proxy-1")
    disks.start()
    body = disks.backup(disks.disk("a.raw", 5 * MIB + 17))

    ended = disks.run(body, proxy="proxy-1")
    run = disks.commit(body, ended, proxy="proxy-1")

    listed = disks.run(RepositoryList(repository=disks.repository), proxy="proxy-1").result
    assert listed is not None
    assert [point.run for point in listed.points] == [run]  # type: ignore[union-attr]
    checked = disks.run(RepositoryCheck(repository=disks.repository), proxy="proxy-1").result
    assert checked is not None
    assert checked.damage == ()  # type: ignore[union-attr]
    disks.assert_restores(body, proxy="proxy-1")


def test_a_repository_in_clear_needs_no_secret_and_an_encrypted_one_is_not_taken_for_one(
    disks: DiskFleet,
) -> None:
    proxy = disks.add_disk_proxy("proxy-1")
    (proxy.folder / "secrets/main.passphrase").unlink()
    disks.start()
    encrypted = disks.repository.model_copy(update={"credential": None})
    disks.repository = disks.make_repository("clear", None)
    body = disks.backup(disks.disk("a.raw", MIB))

    disks.commit(body, disks.run(body, proxy="proxy-1"), proxy="proxy-1")
    disks.assert_restores(body, proxy="proxy-1")

    refused = disks.run(RepositoryList(repository=encrypted), proxy="proxy-1").failure
    assert refused is not None
    assert "it is encrypted" in refused.why


def test_a_proxy_never_moves_more_disks_than_it_has_slots(disks: DiskFleet) -> None:
    disks.add_disk_proxy("proxy-1", slots=2, slow=True)
    disks.start()
    lane = "disk.primary.network.ds1"
    disks.ledger.set_proxy("proxy-1", lanes=[lane], enabled=True)
    bodies = [disks.backup(disks.disk(f"{i}.raw", 8 * MIB)) for i in range(5)]
    tasks = {disks.submit(body): body for body in bodies}
    most = 0

    def all_ended() -> bool:
        nonlocal most
        disks.ledger.reap()
        view = disks.ledger.view()
        running = [task for task in view.tasks.values() if task.state is TaskState.RUNNING]
        most = max(most, len(running))
        assert view.proxies["proxy-1"].slots_used <= 2
        for task in view.tasks.values():
            if task.state is TaskState.READY:  # a dispatcher that doesn't count: the ledger has to
                disks.dispatch(task.task_id, tasks[task.task_id], lane=lane)
        return not view.tasks

    wait_until(all_ended, "five disks in two slots")

    assert most == 2
    assert {task.state for task in disks.ledger.finished()} == {TaskState.DONE}


def test_disk_of_a_killed_process_goes_on_at_once(disks: DiskFleet) -> None:
    proxy = disks.add_disk_proxy("proxy-1", slow=True)
    disks.start()
    body = disks.backup(disks.disk("a.raw", 48 * MIB))
    task_id = _begin(disks, body, "proxy-1")

    _kill_busy_child(disks, proxy, task_id)

    wait_until(lambda: _state(disks, task_id) is TaskState.READY, "task ready again")
    assert disks.ledger.view().tasks[task_id].note.startswith("its process on proxy-1 was killed by SIGKILL")
    disks.dispatch(task_id, body, proxy="proxy-1")
    ended = disks.outcome(task_id)
    assert (ended.state, ended.attempts) == (TaskState.DONE, 2)
    disks.commit(body, ended, proxy="proxy-1")
    disks.assert_restores(body, proxy="proxy-1")


def test_killed_proxy_takes_its_processes_along_and_gives_its_tasks_back_when_it_returns(disks: DiskFleet) -> None:
    proxy = disks.add_disk_proxy("proxy-1", slow=True)
    disks.start()
    body = disks.backup(disks.disk("a.raw", 48 * MIB))
    task_id = _begin(disks, body, "proxy-1")
    children = proxy.children()

    proxy.kill()
    wait_until(
        lambda: not any(child.is_running() and child.status() != "zombie" for child in children), "orphans end"
    )
    disks.start("proxy-1")

    assert f"task {task_id}, which this proxy's former life had, is ready again" in proxy.log
    disks.dispatch(task_id, body, proxy="proxy-1")
    ended = disks.outcome(task_id)
    assert (ended.state, ended.attempts) == (TaskState.DONE, 2)
    disks.commit(body, ended, proxy="proxy-1")
    disks.assert_restores(body, proxy="proxy-1")


def test_killed_server_pauses_disks_and_loses_none(disks_own_server: DiskFleet) -> None:
    disks = disks_own_server
    proxy = disks.add_disk_proxy("proxy-1", slow=True)
    disks.start()
    body = disks.backup(disks.disk("a.raw", 64 * MIB))
    task_id = _begin(disks, body, "proxy-1")

    disks.server.kill()
    wait_until(lambda: "paused, its lease can't be renewed" in proxy.log, "pause")
    disks.server.start()

    ended = disks.outcome(task_id)
    assert (ended.state, ended.attempts) == (TaskState.DONE, 1)
    disks.commit(body, ended, proxy="proxy-1")
    disks.assert_restores(body, proxy="proxy-1")
    assert "Traceback" not in proxy.log


def test_frozen_proxy_that_wakes_up_wastes_work_and_does_no_damage(disks: DiskFleet) -> None:
    frozen = disks.add_disk_proxy("proxy-1", slow=True)
    disks.add_disk_proxy("proxy-2")
    disks.start()
    body = disks.backup(disks.disk("a.raw", 64 * MIB))
    task_id = _begin(disks, body, "proxy-1")

    processes = [psutil.Process(frozen.process.pid), *frozen.children()]  # type: ignore[union-attr]
    for process in processes:
        process.suspend()
    wait_until(lambda: disks.ledger.reap().requeued, "its lease runs out")
    disks.dispatch(task_id, body, proxy="proxy-2")
    ended = disks.outcome(task_id)
    for process in processes:
        process.resume()

    wait_until(lambda: "stopped, its lease was lost" in frozen.log, "it gives up")
    assert (ended.state, ended.proxy, ended.attempts) == (TaskState.DONE, "proxy-2", 2)
    disks.commit(body, ended, proxy="proxy-2")
    disks.assert_restores(body, proxy="proxy-2")
    assert "Traceback" not in frozen.log


def test_sigterm_lets_a_disk_finish(disks: DiskFleet) -> None:
    proxy = disks.add_disk_proxy("proxy-1", slow=True)
    disks.start()
    task_id = _begin(disks, disks.backup(disks.disk("a.raw", 48 * MIB)), "proxy-1")

    proxy.signal(signal.SIGTERM)

    assert proxy.wait() == 0
    assert disks.outcome(task_id).state is TaskState.DONE
    view = disks.view("proxy-1")
    assert view is not None
    assert not view.live


def test_sigterm_hands_a_long_disk_back(disks: DiskFleet) -> None:
    proxy = disks.add_disk_proxy("proxy-1", slow=True, drain_timeout_s=0.5)
    disks.start()
    task_id = _begin(disks, disks.backup(disks.disk("a.raw", 160 * MIB)), "proxy-1")

    proxy.signal(signal.SIGTERM)

    assert proxy.wait() == 0
    task = disks.ledger.view().tasks[task_id]
    assert (task.state, task.note) == (TaskState.READY, "handed back by proxy-1, which stops")
    assert "Traceback" not in proxy.log


def test_running_disk_is_paused_and_cancelled(disks: DiskFleet) -> None:
    disks.add_disk_proxy("proxy-1", slow=True)
    disks.start()
    task_id = _begin(disks, disks.backup(disks.disk("a.raw", 160 * MIB)), "proxy-1")

    disks.ledger.set_verdict(task_id, TaskVerdict.PAUSE)
    wait_until(lambda: (p := disks.ledger.view().tasks[task_id].progress) and p.paused, "pause is shown")
    disks.ledger.cancel(task_id)

    assert disks.outcome(task_id).state is TaskState.CANCELLED


def _begin(disks: DiskFleet, body: DiskBackup, proxy: str) -> str:
    """Dispatch a disk and return once its data moves."""
    task_id = disks.submit(body)
    assert disks.dispatch(task_id, body, lane=proxy_lane("primary", proxy), proxy=proxy)
    wait_until(lambda: disks.ledger.view().tasks[task_id].progress, "progress")
    return task_id


def _kill_busy_child(disks: DiskFleet, proxy: Proxy, task_id: str) -> None:
    """The pool process that has a child of its own: the server of the slow disk."""
    assert _state(disks, task_id) is TaskState.RUNNING
    assert proxy.process is not None
    busy = [child for child in proxy.children() if child.ppid() == proxy.process.pid and child.children()]
    assert len(busy) == 1
    busy[0].kill()


def _state(disks: DiskFleet, task_id: str) -> TaskState:
    return disks.ledger.view().tasks[task_id].state


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
