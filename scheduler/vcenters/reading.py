"""What a vCenter shows, as jobs are planned from it."""

from __future__ import annotations

from collections.abc import Mapping

from proxy_worker.vsphere.devices import VirtualDisk
from proxy_worker.vsphere.identity import problem_of, split_path, vm_identity
from proxy_worker.vsphere.model import Inventory
from proxy_worker.vsphere.selection import VmFacts, facts
from proxy_worker.vsphere.tags import Tag
from scheduler.planning.inventory import ScannedDisk, ScannedVm


def scanned_vms(inventory: Inventory, tags: Mapping[str, tuple[Tag, ...]]) -> tuple[ScannedVm, ...]:
    """Every VM and template with all that is kept of it; `tags` as `read_tags` gives them."""
    return tuple(_vm(inventory, found) for found in facts(inventory, tags))


def _vm(inventory: Inventory, found: VmFacts) -> ScannedVm:
    vm = found.vm
    return ScannedVm(
        ref=vm.ref,
        vm_id=vm_identity(vm).vm_id,
        name=vm.name,
        datacenter=found.datacenter,
        folder=found.folder,
        cluster=found.cluster,
        pool=found.pool,
        host=found.host,
        datastores=found.datastores,
        tags=tuple(f"{tag.category}/{tag.name}" for tag in found.tags),
        attributes=dict(vm.attributes),
        template=vm.template,
        powered_on=vm.powered_on,
        tools_running=vm.tools_running,
        windows=vm.guest_id.startswith("win"),
        encrypted=vm.encrypted,
        tracks_changes=vm.tracks_changes,
        can_track_changes=vm.can_track_changes,
        snapshots=len(vm.snapshots),
        configuration_path=vm.configuration_path,
        disks=tuple(_disk(inventory, disk) for disk in vm.disks),
        problem=problem_of(inventory, vm),
    )


def _disk(inventory: Inventory, disk: VirtualDisk) -> ScannedDisk:
    datastore, path = split_path(disk.path) if disk.path is not None else (None, None)
    known = inventory.datastores.get(disk.datastore or "")
    return ScannedDisk(
        key=disk.place,
        device_key=disk.key,
        controller=disk.controller,
        label=disk.label,
        size_bytes=disk.size_bytes,
        provisioning=disk.provisioning.value,
        mode=disk.mode,
        datastore=known.name if known is not None else datastore,
        path=path,
        datastore_type=known.type if known is not None else "unknown",
        uuid=disk.uuid,
        encrypted=disk.encrypted,
        obstacle=disk.obstacle,
    )
