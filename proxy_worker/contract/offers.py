"""What a proxy offers the fleet, as it says when it starts. Nothing here is secret."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import Frozen, Name


class VsphereOffer(Frozen):
    """What a proxy can do with the disks of any vCenter whose password it has, wherever they lie."""

    modes: tuple[TransportMode, ...] = ()
    """Network mode and virtual appliance, as far as they were found to work when the proxy started."""
    refusals: dict[TransportMode, str] = Field(default_factory=dict)
    """Why not the others, e.g. that nbdkit has no vddk plug-in."""
    passwords: tuple[Name, ...] = ()
    """The credentials of which it has `<credential>.password`."""
    product_uuid: str | None = None
    """The BIOS uuid of the machine it runs on, by which vCenter finds its VM."""
    mounted: tuple[Name, ...] = ()
    """Datastores that are folders here, so that their disks can be written in place."""


class ReplicationOffer(Frozen):
    """How other proxies reach one for replication."""

    host: str


class UseOffer(Frozen):
    """What a proxy can do with restore points besides moving their disks."""

    boots: bool = False
    """Whether it has QEMU, to start VMs."""
    served_at: str | None = None
    """The name or address at which hosts mount what it serves by NFS; None: it serves nothing."""


class ProxyRegistration(Frozen):
    """What a proxy says of itself when it starts."""

    name: Name
    instance_id: str
    """Random, made at first start and kept in the proxy's state folder: a clone has it too, a namesake has not."""
    site: Name
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=256)]
    datastores: dict[Name, tuple[TransportMode, ...]]
    """Each connected datastore with the modes this proxy offers for it."""
    modes: tuple[TransportMode, ...]
    """Modes for disks that belong to no datastore, e.g. those behind an NBD URI."""
    credentials: dict[Name, Literal["read", "write"]]
    """Repository credentials it holds: a write key can't restore."""
    vsphere: VsphereOffer = VsphereOffer()
    left_out: tuple[TransportMode, ...] = ()
    """Modes that its proxy.toml doesn't allow it."""
    address: str | None = None
    """The IP address that traffic rules know it by."""
    replication: ReplicationOffer | None = None
    """How other proxies send it disks of replicas; None: not over the network, for want of a certificate."""
    tends_gateways: bool = False
    """Whether its certificate is a gateway's, which may remove what is behind gateways; proxies' only add."""
    use: UseOffer = UseOffer()
    version: str
    contract_version: int
