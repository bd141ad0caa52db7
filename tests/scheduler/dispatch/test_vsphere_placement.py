"""Which proxy a vCenter's disk goes to, and what is said when none can take it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from proxy_worker.contract.disks import DiskBackup
from proxy_worker.contract.names import TaskKind, TransportMode
from proxy_worker.contract.offers import VsphereOffer
from proxy_worker.contract.selection import DiskTraits, Home
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    RepositoryReference,
    TransportPreference,
    VcenterReference,
    VmIdentity,
    VsphereDisk,
)
from scheduler.dispatch.fleet import Fleet, FleetProxy, FleetRepository, PendingTask, Placement, Urgency
from scheduler.dispatch.limits import Limits
from scheduler.dispatch.pending import placement_of
from scheduler.dispatch.policy import decide

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
NOW = 1_000_000.0


def proxy(
    name: str, vsphere: VsphereOffer | None = None, *, used: int = 0, ds1: tuple[TransportMode, ...] = ()
) -> FleetProxy:
    return FleetProxy(name, "primary", 2, used, {"ds1": ds1} if ds1 else {}, (NETWORK,), {}, vsphere=vsphere)


def fleet(*proxies: FleetProxy) -> Fleet:
    return Fleet(proxies, {"main": FleetRepository("main", "primary", None)})


def backup(task_id: str, vsphere: DiskTraits) -> PendingTask:
    placement = Placement(TaskKind.DISK_BACKUP, "main", datastore=vsphere.datastore, vsphere=vsphere)
    return PendingTask(task_id, placement, "nightly", Urgency.REGULAR, NOW)


def _reason(*proxies: FleetProxy) -> str:
    return decide([backup("t", ON_NFS)], fleet(*proxies), Limits(), NOW).waiting["t"]


VDDK = VsphereOffer(modes=(NETWORK,), passwords=("vc1",))
ON_NFS = DiskTraits(
    Home.VCENTER, "ds1", "vc1", unfit=((TransportMode.VIRTUAL_APPLIANCE, "an IDE disk can't be hot-added"),)
)


def test_a_vcenters_disk_is_given_to_one_proxy_with_the_best_mode() -> None:
    able = [proxy(name, VDDK) for name in ("p1", "p2")]
    mounted = proxy("p3", VDDK, ds1=(DIRECT,))
    tasks = [backup(f"t{number}", ON_NFS) for number in range(6)]

    decision = decide(tasks, fleet(*able, mounted), Limits(patience_s=0), NOW)

    assert Counter((release.lane, release.proxy, release.mode) for release in decision.releases) == {
        ("proxy.primary.p3", "p3", DIRECT): 2,
        ("proxy.primary.p1", "p1", NETWORK): 2,
        ("proxy.primary.p2", "p2", NETWORK): 2,
    }


def test_a_vcenters_disk_in_an_undeclared_datastore_needs_the_password_only() -> None:
    anywhere = replace(ON_NFS, datastore=None)
    others = [proxy("p1"), proxy("p2", VsphereOffer(modes=(NETWORK,)))]
    decision = decide([backup("t", anywhere)], fleet(*others, proxy("p3", VDDK)), Limits(), NOW)
    assert [release.proxy for release in decision.releases] == ["p3"]


def test_the_reason_says_what_every_proxy_lacks_for_a_vcenters_disk() -> None:
    no_vddk = VsphereOffer(refusals={NETWORK: "nbdkit has no vddk plug-in on this proxy"}, passwords=("vc1",))
    assert _reason(proxy("p1", no_vddk), proxy("p2", VsphereOffer(modes=(NETWORK,)))) == (
        "waiting: no proxy that is running can read it: "
        "storage_snapshot: this proxy isn't connected to datastore ds1; "
        "direct_storage: this proxy isn't connected to datastore ds1; "
        "virtual_appliance: an IDE disk can't be hot-added; "
        "network: nbdkit has no vddk plug-in on this proxy (p1); "
        "network: this proxy has no vc1.password in its secrets_dir (p2)"
    )
    full = proxy("p1", VDDK, used=2)
    assert _reason(full) == "waiting: proxy p1 is full (2 of 2 slots)"
    assert _reason(full, replace(full, name="p2")) == (
        "waiting: all 2 proxies that can read it are full (4 of 4 slots)"
    )


def test_a_task_is_placed_by_all_that_its_disk_tells() -> None:
    vcenter = VcenterReference(name="vc1", host="vc1.example", user="backup", credential="vc1")
    disk = VsphereDisk(
        vcenter=vcenter,
        vm="vm-1",
        snapshot="snapshot-2",
        key=2000,
        path="[ds1] web/web.vmdk",
        controller="ide",
        datastore_type="NFS",
    )
    address = DiskAddress(datastore="ds1", path="web/web.vmdk", vsphere=disk)
    body = DiskBackup(
        run="r",
        job="nightly",
        vm=VmIdentity.of_name("web"),
        disk=DiskIdentity(key="ide0:0", address=address, size_bytes=1 << 30),
        transport=TransportPreference(),
        repository=RepositoryReference(name="main", location="/backup"),
    )
    assert placement_of(body, None) == backup("t", ON_NFS).placement
