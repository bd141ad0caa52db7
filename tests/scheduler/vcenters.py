"""A scheduler whose VMs a simulated vCenter has, and what that shows before and after."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import SnapshotNode, Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import tree
from scheduler.state.asking import ask_for_run
from scheduler.state.models import Job, LedgerTask, Repository, Run, Site, StepState, Vcenter, VcenterStep, VmRun
from scheduler.state.store import State, open_state
from tests.simulators.vsphere.program import USER, VsphereSimulator
from tests.vsphere.conftest import certificate_of

if TYPE_CHECKING:  # whose fixtures make what is here
    from tests.scheduler.conftest import World

OFFER = VsphereOffer(modes=(TransportMode.NETWORK,), passwords=("vc1",))


@dataclass
class VsphereWorld:
    """A world with one vCenter, `vc1`, and the job `nightly`."""

    world: World
    simulator: VsphereSimulator
    session: Session
    """The test's own login."""
    watching: State | None = None

    def declare(self, *vms: str, **changes: object) -> None:
        """The vCenter, and a job for those VMs."""
        state = open_state(self.world.url, migrate=True)
        with state.write() as database:
            database.add(Site(name="primary"))
            database.flush()
            database.add(Repository(name="main", location="/backup", site="primary", credential="main"))
            database.add(
                Vcenter(
                    name="vc1",
                    host=self.simulator.host,
                    port=self.simulator.port,
                    user=USER,
                    credential="vc1",
                    thumbprint=hashlib.sha256(certificate_of(self.simulator)).hexdigest(),
                    site="primary",
                )
            )
            database.flush()
            job: dict[str, object] = {"name": "nightly", "vms": vms, "repository": "main"}
            database.add(Job(**{**job, **changes}))
        state.close()
        self.world.fleet.join("proxy-1", datastores={}, vsphere=OFFER)

    def ask(self, job: str = "nightly") -> str:
        """Ask for a run."""
        state = open_state(self.world.url)
        with state.write() as database:
            run_id = ask_for_run(database, job, now=self.world.clock()).id
        state.close()
        return run_id

    def open(self) -> State:
        """The scheduler's database, for another life."""
        return open_state(self.world.url)

    def read(self) -> Database:
        """The scheduler's database."""
        if self.watching is None:
            self.watching = self.open()
        return Database(self.watching.engine)

    def settled(self, run_id: str) -> bool:
        """Whether a run has ended, and nothing is left to be done by anybody."""
        with self.read() as database:
            open_steps = select(VcenterStep.id).where(
                VcenterStep.state.not_in((StepState.SUCCEEDED, StepState.FAILED))
            )
            return (
                database.get_one(Run, run_id).state.final
                and database.scalar(select(LedgerTask.id).limit(1)) is None
                and database.scalar(open_steps.limit(1)) is None
            )

    def vm_run(self, name: str) -> VmRun:
        """The newest VM run of that name."""
        with self.read() as database:
            found = database.scalars(select(VmRun).where(VmRun.name == name).order_by(VmRun.started_at.desc()))
            return found.first() or pytest.fail(f"there is no VM run {name}")

    def backups(self) -> list[DiskBackup]:
        """What proxies were told to back up, in order."""
        return [one.body for one in self.world.fleet.specifications if isinstance(one.body, DiskBackup)]

    def snapshots(self, vm: Vm) -> tuple[SnapshotNode, ...]:
        """What a VM has."""
        return tree(self.session, vm.ref)

    def again(self, vm: Vm) -> Vm:
        """A VM as it is now."""
        return read_vm(self.session, vm.ref)
