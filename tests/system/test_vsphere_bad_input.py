"""What people do to VMs while they are backed up, and what can't be backed up at all: each named for that VM alone.

One fleet and one vCenter go through a story once; every test looks at one thing that came of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.transport.storage_snapshot.provider import FOLDER
from tests.system.live_fleet import wait_until
from tests.system.vsphere_fleet import MOUNTING, NFS, snapshots_of_ours
from tests.system.vsphere_story import LARGE_BYTES, WRITTEN, Story, told
from tests.vsphere.machines import MIB


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, vsphere_program: Path) -> Iterator[Story]:
    yield from told(tmp_path_factory.mktemp("bad-input"), vsphere_program)


IMPOSSIBLE = {
    "diskless": "it has no disks",
    "encrypted": "vSphere encrypts its disk scsi0:0",
    "in-maintenance": "host DC0_C0_H2 is in maintenance",
    "independent": "its mode is independent_persistent: snapshots don't cover it",
    "late-deleted": "vCenter vc1 has no VM",
    "lost": "datastore LocalDS_3 is inaccessible",
    "pattern": "it matches templates only",
    "raw": "a raw device mapping in physical mode: snapshots don't cover it",
    "unprivileged": "lacks the privilege VirtualMachine.State.CreateSnapshot on VirtualMachine vm-",
    "vCenter changed": "pinned is AB:AB:",
    "vCenter expired": "certificate has expired",
    "vCenter password": "login of backup@vsphere.local: InvalidLogin",
}
"""By name, what the job `everything` says of it."""


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_backed_up_is_named_and_why(story: Story, name: str) -> None:
    assert IMPOSSIBLE[name] in story.reason("everything", name)


def test_the_rest_of_the_run_is_unharmed(story: Story) -> None:
    run = story.runs["everything"]
    well = {vm["vm"] for vm in run["vms"] if vm["state"] == "succeeded"}
    assert well == {"calm-1", "calm-2", "large", "late-moved", "late-renamed", "mixed"}
    assert {vm["vm"] for vm in run["vms"]} == well | set(IMPOSSIBLE)
    assert (run["state"], run["reason"]) == ("partly failed", "12 of 18 VMs failed")


def test_disks_that_no_snapshot_covers_are_left_out_with_a_warning(story: Story) -> None:
    assert str(story.outcome("everything", "mixed")["warning"]).startswith("scsi0:5 is left out: its mode is indep")
    assert [disk["disk"] for disk in story.disks("everything", "mixed")] == ["scsi0:0"]


@pytest.mark.parametrize("what", ["deleted", "renamed", "moved", "vmotioned"])
def test_a_vm_that_this_happens_to_while_it_is_read_has_its_restore_point(story: Story, what: str) -> None:
    assert story.outcome("busy", f"read-{what}")["state"] == "succeeded"


def test_a_vcenter_that_was_gone_in_the_middle_leaves_no_trace(story: Story) -> None:
    warnings = {vm["warning"] for job in ("busy", "again") for vm in story.runs[job]["vms"] if vm["warning"]}
    assert warnings == {"disk scsi0:1 of the last restore point isn't in the VM any more"}
    assert {disk["attempts"] for job in ("busy", "again") for disk in story.runs[job]["disks"]} == {1}


@pytest.mark.parametrize(
    ("before", "then", "now"),
    [
        ("busy", "read-renamed", "called-read"),
        ("busy", "read-moved", "read-moved"),
        ("busy", "read-vmotioned", "read-vmotioned"),
        ("everything", "late-renamed", "called-late"),
        ("everything", "late-moved", "late-moved"),
    ],
)
def test_its_next_backup_goes_on_from_there(story: Story, before: str, then: str, now: str) -> None:
    (disk,) = story.disks("again", now)
    assert (disk["full_read_reason"], disk["parent"]) == (None, story.outcome(before, then)["point"])


def test_a_disk_that_was_added_is_read_and_one_that_is_gone_is_told(story: Story) -> None:
    added = {disk["disk"]: disk["full_read_reason"] for disk in story.disks("again", "calm-1")}
    first = "no earlier restore point tells where tracking stood"
    assert added == {"scsi0:0": None, "scsi0:1": None, "scsi0:3": first}
    assert [disk["disk"] for disk in story.disks("again", "calm-2")] == ["scsi0:0"]
    assert story.outcome("again", "calm-2")["warning"] == (
        "disk scsi0:1 of the last restore point isn't in the VM any more"
    )


def test_a_disk_over_two_tebibytes_is_read_where_it_holds_data_and_restored(story: Story, tmp_path: Path) -> None:
    (disk,) = story.disks("everything", "large")
    assert disk["read_bytes"] <= 4 * MIB

    story.restore("large", tmp_path / "disk")

    with (tmp_path / "disk").open("rb") as restored:
        for offset, data in (*WRITTEN, (LARGE_BYTES // 2, b"large" * 100)):
            restored.seek(offset)
            assert restored.read(len(data)) == data
        assert restored.seek(0, os.SEEK_END) == LARGE_BYTES


def test_a_disk_is_read_from_the_snapshot_that_btrfs_made_and_nothing_of_it_is_left(
    story: Story, tmp_path: Path
) -> None:
    (disk,) = story.disks("stored", "stored")
    assert (disk["state"], disk["mode"], disk["proxy"]) == ("succeeded", "storage_snapshot", MOUNTING)
    folder = story.fleet.simulator.datastores[NFS]
    wait_until(lambda: list((folder / FOLDER).glob("*")) == [], "the storage snapshot to be removed")

    story.restore("stored", tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == (folder / "stored/d0-flat.vmdk").read_bytes()


def test_a_password_that_is_wrong_on_a_proxy_is_named_with_its_file(story: Story) -> None:
    reasons = {disk["reason"] for disk in story.disks("locked-out", "calm-1") if disk["state"] == "failed"}
    assert story.outcome("locked-out", "calm-1")["state"] == "failed"
    assert all(
        reason.endswith(
            "Cannot complete login due to an incorrect user name or password. "
            "Correct the file vc1.password of this proxy, or unlock the account."
        )
        for reason in reasons
    ), reasons
    assert reasons


def test_nothing_is_left(story: Story) -> None:
    wait_until(lambda: snapshots_of_ours(story.session) == [], "all snapshots to be removed")
    wait_until(lambda: story.fleet.nbdkits() == [], "every nbdkit to end")
