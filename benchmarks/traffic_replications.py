"""Replications under a traffic rule: each of two proxies sends disks to the other, and receives that one's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from benchmarks.far import HERE
from benchmarks.traffic_load import DATASTORE, PROXIES, Task, add_proxy, made_disk
from ops.demo.valkey import free_port
from proxy_worker.contract.figures import Receiver
from proxy_worker.contract.names import TrafficKind
from proxy_worker.contract.replication import DiskReceive, DiskReplicate, ReplicaOpen, ReplicaPlace, ReplicaTarget
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, TransportPreference
from proxy_worker.ledger import Flow
from proxy_worker.repository.repository import new_run_id
from tests.surviving.relay import Relay
from tests.tasks.fleet import Fleet, wait_until

SLOTS = 8
"""Of each proxy: four tasks that send, and four that receive."""


class Replications:
    """Two proxies; what crosses between them is counted on its way."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        one, other = PROXIES
        self.flows: Sequence[Flow] = [
            Flow(TrafficKind.REPLICATION, target, source) for source, target in ((one, other), (other, one))
        ]
        self._relays: list[Relay] = []
        self._crossed: dict[str, list[int]] = {}

    @classmethod
    @contextmanager
    def prepared(cls, fleet: Fleet) -> Iterator[Self]:
        """Start the proxies; ends what counts between them, but not them."""
        for name in PROXIES:
            first = free_port()
            settings = f'host = "{HERE}"\nlisten = "{HERE}"\nports = [{first}, {min(first + 50, 65_535)}]'
            add_proxy(fleet, name, slots=SLOTS, lines=[f"[replication]\n{settings}"])
        fleet.start()
        made = cls(fleet)
        try:
            yield made
        finally:
            for relay in made._relays:
                relay.close()

    def task(self, job: str, number: int, size_bytes: int) -> Task:
        """A replication of a new disk, to a target that listens."""
        source, target = PROXIES if number % 2 == 0 else reversed(PROXIES)
        vm, disk = made_disk(self.fleet, number, size_bytes)
        receiving = self._receiving(job, f"replica-{number}", source)
        opened = self.fleet.run(ReplicaOpen(replica=receiving.target.place, vm=vm), proxy=target)
        if opened.failure is not None:
            raise RuntimeError(opened.failure)
        listens = self._listening(Task(receiving, target))
        relay = Relay(listens.port)
        self._relays.append(relay)
        body = DiskReplicate(
            job=job,
            run=receiving.run,
            session=receiving.session,
            vm=vm,
            disk=disk,
            transport=TransportPreference(),
            receiver=listens.model_copy(update={"port": relay.port}),
        )
        task = Task(body, source)
        crossed = self._crossed[task.task_id] = []
        relay.overheard = lambda data: crossed.append(len(data))
        return task

    def moved_bytes(self, tasks: Sequence[Task]) -> int:
        """What has crossed for them, in both directions and all told."""
        return sum(sum(self._crossed[task.task_id]) for task in tasks)

    def arrived_bytes(self) -> int:
        """What has crossed for all."""
        return sum(map(sum, self._crossed.values()))

    def _receiving(self, job: str, name: str, source: str) -> DiskReceive:
        address = DiskAddress(datastore=DATASTORE, path=f"{name}/{name}.vmdk")
        return DiskReceive(
            job=job,
            run=new_run_id(),
            session=secrets.token_hex(8),
            source=source,
            target=ReplicaTarget(
                place=ReplicaPlace(datastore=DATASTORE, folder=name),
                disk=DiskIdentity(key="scsi0:0", address=address),
            ),
        )

    def _listening(self, receiving: Task) -> Receiver:
        """Begin a receiving, and wait until it listens; where."""
        receiving.begin(self.fleet)
        found: list[Receiver] = []

        def listens() -> bool:
            self.fleet.ledger.reap()
            progress = self.fleet.ledger.view().tasks[receiving.task_id].progress
            found.extend([progress.ready] if progress is not None and progress.ready is not None else [])
            return bool(found)

        wait_until(listens, "the target listens")
        return found[0]
