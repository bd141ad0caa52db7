"""What two proxies do under a rule, and what is seen of it: what backups and replications have in common."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from benchmarks.far import identity
from proxy_worker.contract.specification import TaskBody
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from proxy_worker.ledger import Flow
from tests.tasks.fleet import Fleet

PROXIES: Final = ("proxy-1", "proxy-2")
DATASTORE: Final = "ds1"
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Task:
    """A task that isn't begun yet."""

    body: TaskBody
    proxy: str
    task_id: str = field(default_factory=lambda: secrets.token_hex(6))

    def begin(self, fleet: Fleet) -> None:
        """Have its proxy work on it."""
        fleet.submit(self.body, task_id=self.task_id)
        if fleet.dispatch(self.task_id, self.body, proxy=self.proxy) is None:
            raise RuntimeError(f"{self.task_id} was not dispatched")


class Load(Protocol):
    """Backups, or replications, by two proxies that run."""

    fleet: Fleet
    flows: Sequence[Flow]
    """What the rule holds for."""

    def task(self, job: str, number: int, size_bytes: int) -> Task:
        """A task with all that it needs, a new disk of so many bytes among it; `number` counts all jobs' tasks."""

    def moved_bytes(self, tasks: Sequence[Task]) -> int:
        """What these have stored or sent until now."""

    def arrived_bytes(self) -> int:
        """What has come to the other side until now."""


def add_proxy(fleet: Fleet, name: str, *, slots: int, lines: Sequence[str] = ()) -> None:
    """Configure a proxy that has the datastore and a certificate; `lines` are further tables."""
    folder = fleet.folder / DATASTORE
    folder.mkdir(exist_ok=True)
    shown = identity(fleet.folder, name)
    files = {"certificate": shown.certificate, "key": shown.key, "ca_file": shown.ca_file}
    link = ["[link]", *(f'{key} = "{path}"' for key, path in files.items())]
    tables = [f'[datastores.{DATASTORE}]\npath = "{folder}"', *link, *lines]
    fleet.add_proxy(name, slots=slots, tables="\n".join(tables))


def made_disk(fleet: Fleet, number: int, size_bytes: int) -> tuple[VmIdentity, DiskIdentity]:
    """A VM with a disk of random bytes, a multiple of a MiB."""
    path = fleet.folder / DATASTORE / f"{number}.img"
    with path.open("wb") as file:
        for _ in range(size_bytes // _MIB):
            file.write(os.urandom(_MIB))
    address = DiskAddress(datastore=DATASTORE, path=path.name)
    name = f"vm-{number}"
    return VmIdentity(vm_id=name, name=name), DiskIdentity(key="scsi0:0", address=address, size_bytes=size_bytes)
