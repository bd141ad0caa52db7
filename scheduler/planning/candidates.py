"""The VMs that a job can choose from, with all that it may choose them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity


@dataclass(frozen=True)
class CandidateDisk:
    """A disk of a candidate."""

    identity: DiskIdentity
    obstacle: str | None = None
    """Why no snapshot covers it, so that it can only be left out; None: one does, or none is needed."""
    independent: bool = False
    """Whether its mode leaves it out of snapshots."""
    encrypted: bool = False
    """Whether vSphere encrypts it, so that proxies can't read it."""


@dataclass(frozen=True)
class Candidate:
    """A VM or template. Whoever has no vCenter has no folder, pool, cluster, tags or attributes."""

    identity: VmIdentity
    disks: tuple[CandidateDisk, ...]
    configuration: tuple[DiskAddress, ...] = ()
    problem: str | None = None
    """Why it can't be protected as it stands."""
    vcenter: str | None = None
    ref: str | None = None
    """Its managed object id in that vCenter."""
    template: bool = False
    folder: str | None = None
    pool: str | None = None
    cluster: str | None = None
    datastores: tuple[str, ...] = ()
    """By every name that they go by."""
    tags: tuple[str, ...] = ()
    """`Category/name`."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_inventory(cls, vm: InventoryVm) -> Candidate:
        """A VM that was found in a folder, or that is declared."""
        return cls(
            identity=vm.identity,
            disks=tuple(CandidateDisk(disk) for disk in vm.disks),
            configuration=vm.configuration,
            problem=vm.problem,
            datastores=tuple(
                dict.fromkeys(disk.address.datastore for disk in vm.disks if disk.address.datastore is not None)
            ),
        )
