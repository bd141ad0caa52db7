"""Backups under a traffic rule, into one repository of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.process import folder_bytes
from benchmarks.traffic_load import PROXIES, Task, add_proxy, made_disk
from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.subjects import RepositoryReference, TransportPreference
from proxy_worker.ledger import Flow
from proxy_worker.repository.repository import Repository, new_run_id
from proxy_worker.repository.store.local import LocalStore
from tests.tasks.fleet import Fleet


class Backups:
    """Two proxies that back up into `far` in the fleet's folder, which a gateway offers at `location`, if given."""

    def __init__(self, fleet: Fleet, location: str | None) -> None:
        self.fleet = fleet
        self.flows: Sequence[Flow] = [Flow(TrafficKind.BACKUP, "remote", name) for name in PROXIES]
        self._far = fleet.folder / "far"
        store = LocalStore(self._far)
        store.prepare()
        Repository.create(store, passphrase=None).close()
        self._repository = RepositoryReference(name="remote", location=location or store.location)
        for name in PROXIES:
            add_proxy(fleet, name, slots=4)
        fleet.start()

    def task(self, job: str, number: int, size_bytes: int) -> Task:
        """A backup of a new disk."""
        vm, disk = made_disk(self.fleet, number, size_bytes)
        body = DiskBackup(
            run=new_run_id(),
            job=job,
            vm=vm,
            disk=disk,
            transport=TransportPreference(),
            repository=self._repository,
        )
        return Task(body, PROXIES[number % len(PROXIES)])

    def moved_bytes(self, tasks: Sequence[Task]) -> int:
        """What they say that they have stored."""
        self.fleet.ledger.reap()
        seen = self.fleet.ledger.view().tasks
        progress = [seen[task.task_id].progress for task in tasks]
        return sum(one.stored_bytes for one in progress if one is not None)

    def arrived_bytes(self) -> int:
        """What is in the repository."""
        return folder_bytes(self._far)
