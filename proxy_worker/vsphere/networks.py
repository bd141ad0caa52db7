"""Networks that a VM's cards can be connected to, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from proxy_worker.vsphere.inventory import unescaped
from proxy_worker.vsphere.properties import reference, retrieve
from proxy_worker.vsphere.session import Session


@dataclass(frozen=True, slots=True)
class Network:
    """A standard network, or a port group of a distributed switch."""

    ref: str
    name: str
    parent: str | None
    """The folder it is in, below its datacentre."""
    portgroup_key: str | None = None
    switch: str | None = None
    """Managed object id of the distributed switch."""
    is_uplink: bool = False


def read_networks(session: Session) -> tuple[Network, ...]:
    """Every network of this vCenter, port groups for uplinks left out; two calls, and one per page."""
    paths: dict[type[vim.ManagedEntity], tuple[str, ...]] = {
        vim.Network: ("name", "parent"),
        vim.dvs.DistributedVirtualPortgroup: (
            "name",
            "parent",
            "key",
            "config.distributedVirtualSwitch",
            "config.uplink",
        ),
    }

    def ask() -> tuple[Network, ...]:
        found = {one.ref: one for one in retrieve(session, paths)}
        return tuple(
            Network(
                ref=one.ref,
                name=unescaped(one["name"] or one.ref),
                parent=reference(one["parent"]),
                portgroup_key=one["key"],
                switch=reference(one["config.distributedVirtualSwitch"]),
                is_uplink=bool(one["config.uplink"]),
            )
            for one in found.values()
        )

    networks = session.call(f"reading the networks of vCenter {session.endpoint.name}", ask, repeatable=True)
    return tuple(network for network in networks if not network.is_uplink)


def backing(session: Session, network: Network, switches: Mapping[str, str]) -> Any:
    """How a card names the network it is connected to; `switches` has distributed switches' uuids by object id."""
    card = vim.vm.device.VirtualEthernetCard
    if network.portgroup_key is not None and network.switch is not None:
        port = vim.dvs.PortConnection(portgroupKey=network.portgroup_key, switchUuid=switches[network.switch])
        return card.DistributedVirtualPortBackingInfo(port=port)
    return card.NetworkBackingInfo(deviceName=network.name, network=vim.Network(network.ref, session.stub))


def switch_uuids(session: Session) -> Mapping[str, str]:
    """The uuids of distributed switches, by managed object id."""
    return session.call(
        f"reading the switches of vCenter {session.endpoint.name}",
        lambda: {one.ref: one["uuid"] for one in retrieve(session, {vim.DistributedVirtualSwitch: ("uuid",)})},
        repeatable=True,
    )
