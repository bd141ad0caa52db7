"""Which mode a disk is read by: the whole table, by kind of disk and by kind of proxy, in the words people see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.names import AUTOMATIC, MODE_PREFERENCE, TransportMode
from proxy_worker.contract.offers import ProxyRegistration, VsphereOffer
from proxy_worker.contract.selection import Offer, choose, choose_modes, traits_of
from proxy_worker.contract.subjects import DiskAddress, TransportPreference, VcenterReference, VsphereDisk
from proxy_worker.contract.versions import CONTRACT_VERSION

SNAPSHOT, DIRECT = TransportMode.STORAGE_SNAPSHOT, TransportMode.DIRECT_STORAGE
APPLIANCE, NETWORK = TransportMode.VIRTUAL_APPLIANCE, TransportMode.NETWORK
VC1 = VcenterReference(name="vc1", host="vc1.example", user="backup", credential="vc1")
TIB = 1 << 40
ABLE = VsphereOffer(modes=(APPLIANCE, NETWORK), passwords=("vc1",), product_uuid="42")


def vsphere_disk(*, datastore: str | None = "ds1", **changes: object) -> DiskAddress:
    fields = {
        "vcenter": VC1,
        "vm": "vm-1",
        "snapshot": "snapshot-2",
        "key": 2000,
        "path": "[ds1] web/web.vmdk",
        "controller": "scsi",
        "datastore_type": "VMFS",
    }
    return DiskAddress(
        datastore=datastore,
        path="web/web.vmdk" if datastore else None,
        vsphere=VsphereDisk.model_validate(fields | changes),
    )


def registered(
    modes: tuple[TransportMode, ...] = (SNAPSHOT, DIRECT), vsphere: VsphereOffer = ABLE, **changes: object
) -> Offer:
    """What a proxy offers that can do everything, unless told otherwise."""
    fields = {
        "name": "p1",
        "instance_id": "i",
        "site": "primary",
        "max_concurrent_tasks": 2,
        "datastores": {"ds1": modes},
        "modes": (NETWORK,),
        "credentials": {},
        "vsphere": vsphere,
        "version": "1",
        "contract_version": CONTRACT_VERSION,
    }
    return Offer.registered(ProxyRegistration.model_validate(fields | changes))


def said(address: DiskAddress, offer: Offer, size_bytes: int | None = None) -> dict[TransportMode, str | None]:
    """Why each mode isn't taken, with a storage snapshot that would be made on demand."""
    disk = traits_of(address, size_bytes)
    if address.vsphere is not None:
        disk = disk.with_snapshot_on_demand()
    choice = choose(disk, offer, AUTOMATIC, failover_to_network=True)
    return {verdict.mode: verdict.refusal for verdict in choice.verdicts}


OBJECTS = "its datastore is {}, which has neither a LUN nor an export"
EARLIER = "the VM has earlier snapshots, which can't be read from the datastore's files"
WINDOWS = "the VM is a quiesced Windows, whose disks can't be read from the datastore's files"
NO_VCENTER = "no vCenter has the disk"
BEHIND_NBD = "an NBD server offers the disk, no datastore has it"

KINDS: dict[str, tuple[DiskAddress, int | None, dict[TransportMode, str]]] = {
    # kind of disk -> what rules a mode out on a proxy that can do everything; all else is taken
    "VMFS": (vsphere_disk(), 2 * TIB, {}),
    "VMFS, template": (
        vsphere_disk(template=True, snapshot=None),
        None,
        {SNAPSHOT: "a template has no snapshots", DIRECT: "a template can't be read from a SAN"},
    ),
    "VMFS, earlier snapshots": (vsphere_disk(earlier_snapshots=True), None, {}),
    "VMFS, quiesced Windows": (vsphere_disk(quiesced_windows=True), None, {}),
    "NFS": (vsphere_disk(datastore_type="NFS"), None, {}),
    "NFS 4.1": (vsphere_disk(datastore_type="NFS41"), None, {}),
    "NFS, template": (
        vsphere_disk(datastore_type="NFS", template=True),
        None,
        {SNAPSHOT: "a template has no snapshots"},
    ),
    "NFS, earlier snapshots": (
        vsphere_disk(datastore_type="NFS", earlier_snapshots=True),
        None,
        {DIRECT: EARLIER},
    ),
    "NFS, quiesced Windows": (vsphere_disk(datastore_type="NFS41", quiesced_windows=True), None, {DIRECT: WINDOWS}),
    "vSAN": (
        vsphere_disk(datastore_type="vsan"),
        None,
        {SNAPSHOT: OBJECTS.format("vsan"), DIRECT: OBJECTS.format("vsan")},
    ),
    "vVol": (
        vsphere_disk(datastore_type="VVOL"),
        None,
        {SNAPSHOT: OBJECTS.format("VVOL"), DIRECT: OBJECTS.format("VVOL")},
    ),
    "IDE": (vsphere_disk(controller="ide"), None, {APPLIANCE: "an IDE disk can't be hot-added"}),
    "SATA": (vsphere_disk(controller="sata"), None, {}),
    "NVMe": (vsphere_disk(controller="nvme"), None, {}),
    "62 TB": (vsphere_disk(), 62 * TIB, {}),
    "over 62 TB": (vsphere_disk(), 62 * TIB + 1, {APPLIANCE: "a disk over 62 TB can't be hot-added"}),
    "undeclared datastore": (
        vsphere_disk(datastore=None),
        None,
        {
            SNAPSHOT: "its datastore isn't declared in the fleet file",
            DIRECT: "its datastore isn't declared in the fleet file",
        },
    ),
    "in a folder": (
        DiskAddress(datastore="ds1", path="a.vmdk"),
        None,
        {
            SNAPSHOT: NO_VCENTER,
            APPLIANCE: NO_VCENTER,
            NETWORK: "datastore ds1 has no network_uri or network_command on this proxy",
        },
    ),
    "behind NBD": (
        DiskAddress(nbd_uri="nbd://array/lun7"),
        None,
        {SNAPSHOT: BEHIND_NBD, DIRECT: BEHIND_NBD, APPLIANCE: BEHIND_NBD},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_kind_of_a_disk_rules_out(kind: str) -> None:
    address, size_bytes, ruled_out = KINDS[kind]
    assert said(address, registered(), size_bytes) == {mode: ruled_out.get(mode) for mode in TransportMode}


NO_PLUGIN = "nbdkit has no vddk plug-in on this proxy"
NO_VM = "this proxy is no VM of vSphere, as far as its firmware says"
NO_PASSWORD = "this proxy has no vc1.password in its secrets_dir"
LEFT_OUT = "this proxy's transport_modes leave it out"
ONLY_NETWORK = "the fleet file allows this proxy network only"
ELSEWHERE = "the fleet file gives this proxy other datastores only"

PROXIES: dict[str, tuple[Offer, dict[TransportMode, str]]] = {
    # kind of proxy -> what it can't use for a disk on VMFS
    "able": (registered(), {}),
    "no VDDK": (
        registered(
            (),
            VsphereOffer(modes=(APPLIANCE,), refusals={DIRECT: NO_PLUGIN, NETWORK: NO_PLUGIN}, passwords=("vc1",)),
        ),
        {
            SNAPSHOT: "datastore ds1 has no storage_snapshot on this proxy",
            DIRECT: f"datastore ds1 has no path, nfs_uri or san on this proxy ({NO_PLUGIN})",
            NETWORK: NO_PLUGIN,
        },
    ),
    "no VM": (
        registered(vsphere=VsphereOffer(modes=(NETWORK,), refusals={APPLIANCE: NO_VM}, passwords=("vc1",))),
        {APPLIANCE: NO_VM},
    ),
    "no password": (
        registered(vsphere=VsphereOffer(modes=(APPLIANCE, NETWORK), passwords=("vc2",))),
        {DIRECT: NO_PASSWORD, APPLIANCE: NO_PASSWORD, NETWORK: NO_PASSWORD},
    ),
    "no connection": (
        registered(datastores={}),
        dict.fromkeys((SNAPSHOT, DIRECT), "this proxy isn't connected to datastore ds1"),
    ),
    "a hardened repository's": (
        registered(left_out=(SNAPSHOT, DIRECT, APPLIANCE)),
        dict.fromkeys((SNAPSHOT, DIRECT, APPLIANCE), LEFT_OUT),
    ),
    "declared for network mode": (
        registered().restricted(mode=NETWORK),
        dict.fromkeys((SNAPSHOT, DIRECT, APPLIANCE), ONLY_NETWORK),
    ),
    "declared for this datastore": (registered().restricted(datastores=("ds1",)), {}),
    "declared for another datastore": (
        registered().restricted(datastores=("ds2",)),
        dict.fromkeys(TransportMode, ELSEWHERE),
    ),
    "from before vCenters": (
        registered((DIRECT, NETWORK), VsphereOffer()),
        {
            SNAPSHOT: "datastore ds1 has no storage_snapshot on this proxy",
            DIRECT: NO_PASSWORD,
            APPLIANCE: "this proxy doesn't offer it",
        },
    ),
}


@pytest.mark.parametrize("kind", PROXIES)
def test_what_a_proxy_can_not_use(kind: str) -> None:
    offer, ruled_out = PROXIES[kind]
    assert said(vsphere_disk(), offer) == {mode: ruled_out.get(mode) for mode in TransportMode}


@pytest.mark.parametrize(
    ("wanted", "failover", "candidates"),
    [
        (AUTOMATIC, True, (SNAPSHOT, DIRECT, APPLIANCE, NETWORK)),
        (AUTOMATIC, False, (SNAPSHOT,)),
        (SNAPSHOT, True, (SNAPSHOT, NETWORK)),
        (DIRECT, True, (DIRECT, NETWORK)),
        (DIRECT, False, (DIRECT,)),
        (APPLIANCE, True, (APPLIANCE, NETWORK)),
        (NETWORK, True, (NETWORK,)),
        (NETWORK, False, (NETWORK,)),
    ],
)
def test_the_order_and_what_a_job_asked_for(
    wanted: str, failover: bool, candidates: tuple[TransportMode, ...]
) -> None:
    disk = traits_of(vsphere_disk()).with_snapshot_on_demand()
    choice = choose(disk, registered(), wanted, failover_to_network=failover)
    assert choice.candidates == candidates


def test_a_storage_snapshot_that_was_not_made_can_not_be_read() -> None:
    choice = choose_modes(vsphere_disk(), registered(), TransportPreference())
    assert choice.candidates == (DIRECT, APPLIANCE, NETWORK)
    assert choice.reason(DIRECT, TransportPreference()) == (
        "direct_storage, automatic choice (no storage_snapshot: no storage snapshot of it was made)"
    )


def test_a_connection_for_network_mode_needs_neither_vddk_nor_a_password() -> None:
    choice = choose_modes(vsphere_disk(), registered((NETWORK,), VsphereOffer()), TransportPreference())
    assert choice.candidates == (NETWORK,)


OFFERS = st.builds(
    registered,
    st.sets(st.sampled_from(list(TransportMode))).map(tuple),
    st.builds(
        VsphereOffer,
        modes=st.sets(st.sampled_from([APPLIANCE, NETWORK])).map(tuple),
        passwords=st.sampled_from([(), ("vc1",)]),
    ),
    left_out=st.sets(st.sampled_from(list(TransportMode))).map(tuple),
)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    offer=OFFERS,
    wanted=st.sampled_from([AUTOMATIC, *TransportMode]),
    failover=st.booleans(),
)
def test_every_choice_is_ordered_and_explained(kind: str, offer: Offer, wanted: str, *, failover: bool) -> None:
    address, size_bytes, _ = KINDS[kind]
    choice = choose(traits_of(address, size_bytes), offer, wanted, failover_to_network=failover)
    assert [verdict.mode for verdict in choice.verdicts] == list(MODE_PREFERENCE)
    taken = [verdict.mode for verdict in choice.verdicts if verdict.refusal is None]
    assert list(choice.candidates) == (taken if failover else taken[:1])
    assert all("{" not in (verdict.refusal or "") for verdict in choice.verdicts)
    assert not set(choice.candidates) & set(offer.left_out)
    if wanted != AUTOMATIC:
        assert set(choice.candidates) <= {wanted, NETWORK}
