"""VMs listed and shown, whatever they are known by; and jobs created by what selects them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.contract.outcome import PointDisk
from proxy_worker.contract.replication import ReplicaPlace
from scheduler.cli import completion
from scheduler.state.models import Point, Replica, ReplicaState
from scheduler.state.scanning import store_scan
from scheduler.state.store import open_state
from tests.scheduler.cli.conftest import FLEET, Program
from tests.scheduler.conftest import World
from tests.scheduler.state.test_scanning import DISK, scanned

VSPHERE = """
[[vcenter]]
name = "vc1"
host = "vcenter.example"
user = "backup@vsphere.local"
credential = "vc1"
site = "primary"

[[vm]]
name = "nbd01"
disks = [{ key = "scsi0:0", nbd_uri = "nbd://esx1/nbd01" }]
"""


def point(vm_id: str, name: str, created_at: float) -> Point:
    disks = (PointDisk(key="scsi0:0", size_bytes=1 << 30, stored_bytes=1 << 20),)
    run = f"run-{created_at:.0f}"
    return Point(
        repository="main", vm_id=vm_id, point=run, vm_name=name, job="nightly", created_at=created_at, disks=disks
    )


@pytest.fixture
def known(scheduler: Program, configured: Path, world: World) -> Program:
    """A vCenter's VMs, a declared one, and one that only its restore points tell of."""
    (configured / "fleet.toml").write_text(FLEET.replace('vms = ["*"]', 'vms = ["web*", "folder01"]') + VSPHERE)
    assert scheduler("apply", "-f", str(configured / "fleet.toml")).code == 0
    uncovered = DISK.model_copy(
        update={"key": "scsi0:1", "mode": "independent_persistent", "obstacle": "snapshots don't cover it"}
    )
    state = open_state(world.url)
    with state.write() as session:
        vms = [
            scanned("web01", disks=(DISK, uncovered), tracks_changes=True),
            scanned("db01", tracks_changes=False, problem="host esx1 is in maintenance"),
            scanned("base", template=True, tracks_changes=False),
        ]
        store_scan(session, "vc1", vms, 1_700_000_000.0)
        session.add_all([point("id-web01", "web-old-name", 1.0), point("id-web01", "web01", 2.0)])
        session.add(point("id-folder01", "folder01", 3.0))
    state.close()
    return scheduler


def test_a_replica_that_stands_by_is_no_vm_that_a_pattern_protects(known: Program, world: World) -> None:
    state = open_state(world.url)
    with state.write() as session:
        store_scan(session, "vc1", [scanned("web01"), scanned("web01-replica")], 1_700_000_001.0)
        place = ReplicaPlace(datastore="dr", folder="web01-replica")
        replica = Replica(
            id="r1", job="away", vm_id="id-web01", vm_name="web01", name="web01-replica", place=place,
            original_place=place, uuid="id-web01-replica", machine="", state=ReplicaState.STANDBY,
            created_at=1.0, changed_at=1.0,
        )  # fmt: skip
        session.add(replica)
    state.close()
    shown = {vm["vm"]: vm["jobs"] for vm in known("vm", "list", "--vcenter", "vc1", "--json").json}
    assert shown == {"web01": ["nightly"], "web01-replica": []}


def test_all_vms_are_listed_with_the_job_that_takes_them_and_their_newest_point(known: Program) -> None:
    shown = {vm["vm"]: vm for vm in known("vm", "list", "--json").json}
    assert {name: (vm["source"], vm["jobs"], vm["points"]) for name, vm in shown.items()} == {
        "base": ("vcenter", [], 0),
        "db01": ("vcenter", [], 0),
        "folder01": ("points", ["nightly"], 1),
        "nbd01": ("declared", [], 0),
        "web01": ("vcenter", ["nightly"], 2),
    }
    assert shown["web01"]["last_point"] == {
        "point": "run-2",
        "repository": "main",
        "job": "nightly",
        "created": "1970-01-01T00:00:02Z",
    }
    assert "host esx1 is in maintenance" in known("vm", "list").out


def test_the_list_can_be_narrowed(known: Program) -> None:
    def names(*options: str) -> list[str]:
        return [vm["vm"] for vm in known("vm", "list", "--json", *options).json]

    assert names("--unprotected") == ["base", "db01", "nbd01"]
    assert names("--vcenter", "vc1") == ["base", "db01", "web01"]
    assert names("--job", "nightly") == ["folder01", "web01"]
    assert known("vm", "list", "--job", "nigthly").code == 4
    assert known("vm", "list", "--vcenter", "vc2").code == 4


def test_a_vm_is_shown_with_its_tracking_and_its_disks(known: Program) -> None:
    shown = known("vm", "show", "web01").out
    assert "protected by            nightly" in shown
    assert "changed block tracking  on" in shown
    assert "folder                  Europe/DC0/Linux" in shown
    (left_out,) = (line for line in shown.splitlines() if line.startswith("scsi0:1"))
    assert "independent_persistent" in left_out
    assert left_out.endswith("snapshots don't cover it")
    assert "off; it can't be switched on while the VM has snapshots" in known("vm", "show", "db01").out
    assert known("vm", "show", "id-web01", "--json").json["vm"] == "web01"


def test_a_vm_that_only_restore_points_tell_of_is_shown_too(known: Program) -> None:
    shown = known("vm", "show", "folder01")
    assert shown.code == 0
    assert "run-3 in main" in shown.out
    assert "its restore points" in shown.out


def test_a_vm_that_is_unknown_or_not_the_only_one_is_named(known: Program, world: World) -> None:
    told = known("vm", "show", "web02")
    assert (told.code, "Did you mean 'web01'?" in told.err) == (4, True)
    state = open_state(world.url)
    with state.write() as session:
        store_scan(session, "vc1", [scanned("web01"), scanned("clone", name="web01")], 1_700_000_000.0)
    state.close()
    told = known("vm", "show", "web01")
    assert (told.code, "id-clone (Europe/DC0/Linux), id-web01" in told.err) == (3, True)


def test_a_job_is_created_by_what_selects_its_vms(known: Program) -> None:
    options = ("--folder", "Europe/DC0/Linux", "--tag", "Backup/gold", "--exclude-vm", "*-test", "--templates")
    more = ("--exclude", "attribute=Owner=qa", "--exclude-disk", "independent", "--quiesce", "require")
    created = known("job", "create", "gold", *options, *more, "--repository", "main", "--json")
    assert created.code == 0
    set_keys = {"select": [{"folder": "Europe/DC0/Linux"}, {"tag": "Backup/gold"}]}
    set_keys["exclude"] = [{"vm": "*-test"}, {"attribute": "Owner=qa"}]
    for key, expected in set_keys.items():
        assert [{k: v for k, v in one.items() if v is not None} for one in created.json[key]] == expected
    assert (created.json["exclude_disks"], created.json["templates"]) == (["independent"], True)
    assert created.json["quiesce"] == "require"
    assert known("vm", "show", "base", "--json").json["jobs"] == ["gold"]
    disks = known("vm", "show", "web01", "--json").json["disks"]
    assert [disk["left_out"] for disk in disks] == [None, "snapshots don't cover it"]
    shown = known("job", "show", "gold").out
    assert "without VMs     vm '*-test'" in shown
    assert "quiesce         require" in shown


def test_a_vcenter_narrows_whatever_a_job_selects(known: Program) -> None:
    created = known("job", "create", "one", "--vcenter", "vc1", "--vm", "web*", "--repository", "main", "--json")
    (selector,) = created.json["select"]
    assert (created.json["vms"], selector["vm"], selector["vcenter"]) == ([], "web*", "vc1")
    assert known("job", "create", "all", "--vcenter", "vc1", "--repository", "main").code == 0
    assert known("vm", "show", "db01", "--json").json["jobs"] == ["all"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "no option says which VMs it is about"),
        (
            ("--vm", "a", "--exclude", "colour=red"),
            "expected one of folder, pool, cluster, datastore",
        ),
        (("--vm", "a", "--exclude-disk", "a b"), "expected a disk's key such as 'scsi0:1'"),
        (("--vcenter", "vc2"), "vcenter 'vc2' is not declared; did you mean 'vc1'?"),
    ],
)
def test_a_selection_that_is_wrong_is_named(known: Program, options: tuple[str, ...], expected: str) -> None:
    told = known("job", "create", "bad", "--repository", "main", *options)
    assert (told.code, expected in told.err) == (3, True), told.err


def test_what_vcenters_showed_completes_names(known: Program) -> None:
    assert known("vm", "list").code == 0
    assert completion.vcenters("v") == ["vc1"]
    assert completion.vms("") == ["base", "db01", "folder01", "nbd01", "web-old-name", "web01"]
    assert completion.folders("Eu") == ["Europe/DC0/Linux"]
    assert completion.tags("Backup/") == ["Backup/gold"]
