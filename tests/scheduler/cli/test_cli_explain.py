"""`scheduler proxy explain`: by which mode each proxy would read a VM's disks, and why not by the others."""

from __future__ import annotations

from pathlib import Path

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.offers import VsphereOffer
from scheduler.planning.inventory import ScannedDisk, ScannedVm
from scheduler.state.scanning import store_scan
from scheduler.state.store import open_state
from tests.scheduler.cli.conftest import FLEET, Program, serving
from tests.scheduler.conftest import World

DIRECT, NETWORK = TransportMode.DIRECT_STORAGE, TransportMode.NETWORK
VCENTER = """
[[vcenter]]
name = "vc1"
host = "vc1.example"
user = "backup"
credential = "vc1"
site = "primary"

[[datastore]]
name = "nfs"
kind = "vsphere"
vcenter = "vc1"
vsphere_name = "NFS 1"
site = "primary"

[[vm]]
name = "array"
disks = [{ key = "scsi0:0", nbd_uri = "nbd://array/lun7" }]
"""
DISK = ScannedDisk(
    key="scsi0:0",
    device_key=2000,
    controller="scsi",
    label="Hard disk 1",
    size_bytes=1 << 30,
    provisioning="thin",
    mode="persistent",
    datastore="NFS 1",
    path="web/web.vmdk",
    datastore_type="NFS",
    uuid=None,
    encrypted=False,
    obstacle=None,
)
WEB = ScannedVm(
    ref="vm-1",
    vm_id="id-web",
    name="web",
    datacenter="DC0",
    folder="DC0",
    cluster="C0",
    pool="",
    host="esx1",
    datastores=("NFS 1",),
    tags=(),
    attributes={},
    template=False,
    powered_on=True,
    tools_running=True,
    windows=True,
    encrypted=False,
    tracks_changes=True,
    can_track_changes=True,
    snapshots=0,
    configuration_path="[NFS 1] web/web.vmx",
    disks=(DISK, DISK.model_copy(update={"key": "ide0:0", "controller": "ide", "device_key": 3000})),
    problem=None,
)


def a_fleet(scheduler: Program, configured: Path, world: World) -> None:
    """A vCenter with a quiesced Windows VM, a proxy that mounts its datastore, and one that has nothing."""
    (configured / "fleet.toml").write_text(FLEET + VCENTER)
    applied = scheduler("apply", "-f", str(configured / "fleet.toml"))
    assert applied.code == 0, applied.err
    state = open_state(world.url)
    with state.write() as session:
        store_scan(session, "vc1", [WEB], 1_000.0)
    state.close()
    able = VsphereOffer(modes=(TransportMode.VIRTUAL_APPLIANCE, NETWORK), passwords=("vc1",))
    world.fleet.join("p1", datastores={"nfs": (DIRECT,)}, vsphere=able)
    world.fleet.join("p2", datastores={})


def test_every_proxy_and_disk_is_explained(scheduler: Program, configured: Path, world: World) -> None:
    a_fleet(scheduler, configured, world)
    told = scheduler("proxy", "explain", "--vm", "web", "--json")
    assert told.code == 0, told.err
    assert [(each["disk"], each["proxy"], each["reads_by"]) for each in told.json] == [
        ("scsi0:0", "p1", ["virtual_appliance", "network"]),
        ("scsi0:0", "p2", []),
        ("ide0:0", "p1", ["network"]),
        ("ide0:0", "p2", []),
    ]
    refusals = {mode["mode"]: mode["refusal"] for mode in told.json[2]["modes"]}
    assert refusals == {
        "storage_snapshot": "datastore nfs has no storage_snapshot on this proxy",
        "direct_storage": "the VM is a quiesced Windows, whose disks can't be read from the datastore's files",
        "virtual_appliance": "an IDE disk can't be hot-added",
        "network": None,
    }


def test_people_see_it_line_by_line(scheduler: Program, configured: Path, world: World) -> None:
    a_fleet(scheduler, configured, world)
    with serving(world):
        told = scheduler("proxy", "explain", "--vm", "web", "--job", "nightly")
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert "scsi0:0 p1 virtual_appliance taken" in lines
    assert "scsi0:0 p1 network if that fails" in lines
    windows = "the VM is a quiesced Windows, whose disks can't be read from the datastore's files"
    assert f"ide0:0 p2 direct_storage {windows}" in lines
    assert "scsi0:0 p2 network this proxy doesn't offer it" in lines


def test_a_declared_vms_disks_are_explained_too(scheduler: Program, configured: Path, world: World) -> None:
    a_fleet(scheduler, configured, world)
    told = scheduler("proxy", "explain", "--vm", "array", "--json").json
    assert [(each["proxy"], each["reads_by"]) for each in told] == [("p1", ["network"]), ("p2", ["network"])]


def test_a_vm_that_nobody_knows(scheduler: Program, configured: Path, world: World) -> None:
    a_fleet(scheduler, configured, world)
    told = scheduler("proxy", "explain", "--vm", "wbe")
    assert told.code == 4
    assert "web" in told.err
