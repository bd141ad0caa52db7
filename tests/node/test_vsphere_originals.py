"""Failback where the original or the replica is a VM of a simulated vCenter: what is written, kept, left there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy_worker.contract.errors import ConflictError
from proxy_worker.contract.names import Quiesce
from proxy_worker.contract.replication import (
    ReplicaCondition,
    ReplicaMark,
    ReplicaOpen,
    ReplicaPlace,
    ReplicaRevert,
    ReplicaTarget,
)
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from proxy_worker.mover.control import Unattended
from proxy_worker.node.replicas import mark_replica, open_replica, revert_replica
from proxy_worker.replication.errors import OriginalChangedError, ReplicaBusyError, ReplicaPoweredOnError
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.snapshots import Mark, create
from proxy_worker.vsphere.tasks import finish
from tests.node.vcenter_originals import BEFORE, SIZE, Original, original, send
from tests.node.vcenter_proxy import BLOCK, KEY, MIB, Proxy, proxy

__all__ = ["original", "proxy"]

CHANGED = OriginalChangedError


def test_an_original_becomes_what_its_replica_is_and_is_let_go_of_without_a_trace(original: Original) -> None:
    settings = original.settings
    assert original.open().points == ()
    original.keep()
    original.keep()  # done again, it changes nothing
    sent = original.receive()
    assert original.content == original.proxy.original.read_bytes()
    assert sent.report.stored_bytes == 2 * MIB
    original.proxy.change_original()
    assert original.receive().report.stored_bytes == BLOCK, "only what differs is written"
    assert not original.vm.tracks_changes, "what changed since a backup isn't known any more"

    original.mark(ReplicaCondition.FAILED_OVER)
    assert original.vm.powered_on
    original.write(0, b"written since")
    for _ in range(2):
        original.mark(ReplicaCondition.PERMANENT)

    assert original.content.startswith(b"written since")
    assert original.vm.powered_on
    assert original.vm.snapshots == ()
    assert original.settings == settings


def test_an_original_is_what_it_was_before_once_that_is_undone(original: Original) -> None:
    settings, before = original.settings, original.content
    original.open()
    original.keep()
    original.receive()
    original.mark(ReplicaCondition.FAILED_OVER)
    original.write(0, b"written since")

    for _ in range(2):
        original.revert()
    assert (original.content, original.vm.powered_on) == (before, False)
    original.mark(ReplicaCondition.PERMANENT)

    assert original.content == before
    assert original.vm.snapshots == ()
    assert original.settings == settings


def test_what_a_replica_in_a_vcenter_holds_is_brought_back_and_it_stands_by_again(original: Original) -> None:
    proxy = original.proxy
    proxy.run("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    proxy.write(3 * MIB, b"written by its guest")
    original.open()
    original.keep()
    with pytest.raises(ReplicaPoweredOnError, match="it is powered on"):
        original.receive(proxy.place)
    switch_off(proxy.session, proxy.vm.ref, "replica")

    original.receive(proxy.place)

    assert original.content == proxy.content
    assert proxy.content[3 * MIB :].startswith(b"written by its guest")

    def mark(condition: ReplicaCondition) -> None:
        body = ReplicaMark(replica=proxy.place, condition=condition, run="run-1")
        mark_replica(body, proxy.bench, proxy.claim(), Unattended())

    mark(ReplicaCondition.FAILED_OVER)  # the failback is undone
    assert proxy.vm.powered_on
    with pytest.raises(ReplicaPoweredOnError):
        mark(ReplicaCondition.STANDBY)
    switch_off(proxy.session, proxy.vm.ref, "replica")
    mark(ReplicaCondition.STANDBY)  # or committed
    proxy.make_point("commit")
    proxy.original.write_bytes(original.content)
    proxy.change_original(MIB)
    assert proxy.run("run-2").report.stored_bytes == BLOCK, "the rest is what both have"
    assert proxy.content == proxy.original.read_bytes()


def test_an_original_in_a_folder_becomes_what_its_replica_in_a_vcenter_is(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    proxy.write(0, b"written by its guest")
    switch_off(proxy.session, proxy.vm.ref, "replica")
    place = ReplicaPlace(datastore="ds-near", folder="web01")
    disk = DiskIdentity(key=KEY, address=DiskAddress(datastore="ds-near", path="web01/web01.raw"), size_bytes=SIZE)
    vm = VmIdentity(vm_id="web01", name="web01")
    body = ReplicaOpen(replica=place, vm=vm, mapped=True, disks=(disk,))
    open_replica(body, proxy.bench, proxy.claim(), Unattended())

    send(proxy, ReplicaTarget(place=place, disk=disk, original="web01"), proxy.place)

    assert proxy.original.read_bytes() == proxy.content
    assert proxy.content.startswith(b"written by its guest")


def _power_on(original: Original) -> None:
    switch_on(original.proxy.session, original.ref, "original")


def _snapshot_by_hand(original: Original) -> None:
    finish(
        original.proxy.session,
        "test",
        lambda: original.machine.CreateSnapshot_Task("by hand", "", False, False),
    )


def _backup(original: Original) -> None:
    create(original.proxy.session, original.vm, Mark("inst", "run-7"), Quiesce.NEVER)


def _delete(original: Original) -> None:
    finish(original.proxy.session, "test", original.machine.Destroy_Task)


def _make_template(original: Original) -> None:
    original.machine.MarkAsTemplate()


@pytest.mark.parametrize(
    ("happens", "refused", "why"),
    [
        (_power_on, ReplicaPoweredOnError, "it is powered on"),
        (_snapshot_by_hand, CHANGED, "the snapshot 'by hand', and what lies beneath a snapshot"),
        (_backup, ReplicaBusyError, "it has the snapshot"),
        (_make_template, CHANGED, "it is a template by now"),
    ],
)
def test_an_original_that_cant_be_written_is_refused_by_name_before_and_afterwards(
    original: Original, happens: Callable[[Original], None], refused: type[ConflictError], why: str
) -> None:
    happens(original)
    for asked in (original.open, original.keep, original.receive):
        with pytest.raises(refused, match=why):
            asked()


def test_an_original_that_was_deleted_is_refused_and_nothing_is_left_to_let_go_of(original: Original) -> None:
    place, disk = original.place, original.disk
    _delete(original)
    body = ReplicaOpen(
        replica=place, vm=VmIdentity(vm_id=place.folder, name="original"), mapped=True, disks=(disk,)
    )
    with pytest.raises(CHANGED, match="no VM of that instance uuid any more"):
        open_replica(body, original.proxy.bench, original.proxy.claim(), Unattended())
    gone = ReplicaMark(replica=place, condition=ReplicaCondition.PERMANENT)
    mark_replica(gone, original.proxy.bench, original.proxy.claim(), Unattended())


def test_an_original_that_was_deleted_since_has_nothing_to_be_put_back(original: Original) -> None:
    original.open()
    original.keep()
    body = ReplicaRevert(replica=original.place, run=BEFORE, condition=ReplicaCondition.STANDBY)
    _delete(original)
    for _ in range(2):
        revert_replica(body, original.proxy.bench, original.proxy.claim(), Unattended())


def test_an_original_is_found_and_written_wherever_it_was_moved_and_whatever_it_is_called_since(
    original: Original,
) -> None:
    place = original.place
    vsphere = place.vsphere
    assert vsphere is not None
    elsewhere = vsphere.model_copy(update={"datastore": "LocalDS_1"})  # where it was when it was replicated
    moved = replace(original, moved_from=place.model_copy(update={"vsphere": elsewhere}))
    finish(original.proxy.session, "test", lambda: original.machine.Rename_Task("renamed since"))

    assert moved.open().free_bytes > 0
    moved.keep()
    moved.receive()

    assert original.content == original.proxy.original.read_bytes()
    moved.mark(ReplicaCondition.PERMANENT)
    assert original.vm.snapshots == ()


def test_other_disks_than_those_that_were_replicated_are_not_written(original: Original) -> None:
    disk = original.disk
    vsphere = disk.address.vsphere
    assert vsphere is not None
    other = DiskAddress(vsphere=vsphere.model_copy(update={"uuid": "another"}))
    for changed, why in (
        (disk.model_copy(update={"key": "scsi0:7"}), "it isn't there any more"),
        (disk.model_copy(update={"size_bytes": 1 * MIB}), "it has 4194304 bytes, and one of 1048576"),
        (disk.model_copy(update={"address": other}), "another disk by now"),
    ):
        with pytest.raises(CHANGED, match=why):
            original.open(changed)


def test_an_original_is_only_written_while_it_is_kept_as_it_was(original: Original) -> None:
    before = original.content
    with pytest.raises(CHANGED, match="the snapshot that keeps it as it was is gone"):
        original.receive()
    assert original.content == before
