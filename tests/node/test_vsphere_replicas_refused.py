"""Replicas as VMs of a simulated vCenter: what is not trusted, not done, or refused."""

from __future__ import annotations

import pytest
from pyVmomi import vim

from proxy_worker.contract.errors import CancelledError
from proxy_worker.contract.replication import ReplicaCondition
from proxy_worker.replication.errors import (
    ReplicaBusyError,
    ReplicaDiskSizeError,
    ReplicaFolderTakenError,
    ReplicaPoweredOnError,
    ReplicaRevertingError,
    ReplicaTooLargeError,
)
from proxy_worker.vsphere import replica_vm
from proxy_worker.vsphere.power import switch_off, switch_on
from proxy_worker.vsphere.tasks import finish
from tests.node.vcenter_proxy import BLOCK, MIB, Proxy, Stopped, proxy
from tests.vsphere.machines import make_vm

__all__ = ["proxy"]


def test_what_a_proxy_knows_of_a_disk_is_not_trusted_once_another_one_wrote_it(proxy: Proxy) -> None:
    before = proxy.original.read_bytes()[:BLOCK]
    with proxy.another() as other:
        other.run("run-1")
        proxy.change_original()
        proxy.open()
        proxy.send("run-2")  # whose word is lost: the disk is tried again elsewhere
        proxy.change_original(content=before)
        other.send("run-2")
        other.make_point("run-2")
        assert proxy.content == proxy.original.read_bytes()

        proxy.change_original()
        changed = proxy.original.read_bytes()[:BLOCK]
        proxy.open()
        proxy.send("run-3")
        proxy.change_original(content=before)
        other.send("run-3")
        other.make_point("run-3")
        proxy.change_original(content=changed)
        proxy.run("run-4")
        assert proxy.content == proxy.original.read_bytes()

        assert proxy.run("run-5").report.stored_bytes == 0, "what it wrote itself, it trusts"


def test_a_proxy_that_lost_its_task_reverts_nothing(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.change_original()
    proxy.run("run-2")
    proxy.write(0, b"written since")
    for lost in (
        lambda: proxy.open(Stopped()),
        lambda: proxy.revert("run-1", ReplicaCondition.FAILED_OVER, Stopped()),
        lambda: proxy.make_point("run-3", Stopped()),
        lambda: proxy.remove_point("run-1", Stopped()),
    ):
        with pytest.raises(CancelledError, match="told to stop"):
            lost()
    assert proxy.content.startswith(b"written since")
    assert (proxy.points, proxy.vm.powered_on) == (["run-1", "run-2"], False)


def test_a_point_that_the_replica_is_half_reverted_to_is_not_removed(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.run("run-2")
    proxy.simulator.go_wrong("RevertToSnapshot_Task", "fail", "TaskInProgress", times=1)
    with pytest.raises(ReplicaBusyError):
        proxy.revert("run-1", ReplicaCondition.FAILED_OVER)

    with pytest.raises(ReplicaRevertingError, match="half reverted to restore point run-1"):
        proxy.remove_point("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    assert proxy.vm.powered_on


def test_a_vm_that_is_busy_for_a_moment_is_waited_for(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.open()
    proxy.simulator.go_wrong("ReconfigVM_Task", "fail", "TaskInProgress", times=2)
    proxy.send("run-2")
    assert proxy.content == proxy.original.read_bytes()


def test_one_that_is_on_or_has_somebodys_snapshot_is_refused(proxy: Proxy) -> None:
    proxy.run("run-1")
    switch_on(proxy.session, proxy.vm.ref, "replica")
    for refused in (proxy.open, lambda: proxy.send("run-2"), lambda: proxy.make_point("run-2")):
        with pytest.raises(ReplicaPoweredOnError, match="powered on"):
            refused()
    with pytest.raises(ReplicaPoweredOnError):
        proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    switch_off(proxy.session, proxy.vm.ref, "replica")

    machine = vim.VirtualMachine(proxy.vm.ref, proxy.session.stub)
    finish(proxy.session, "test", lambda: machine.CreateSnapshot_Task("by hand", "", False, False))
    with pytest.raises(ReplicaBusyError, match="'by hand'"):
        proxy.open()
    assert len(proxy.vm.snapshots) == 2


def test_a_vm_that_is_anothers_is_not_taken(proxy: Proxy) -> None:
    make_vm(proxy.session, MIB, name=proxy.folder)
    with pytest.raises(ReplicaFolderTakenError, match="has a VM of that name"):
        proxy.open()
    proxy.folder += "_2"
    proxy.run("run-1")
    proxy.home = proxy.home.model_copy(update={"mark": "other/replica-1"})
    with pytest.raises(ReplicaFolderTakenError, match="carries the mark inst/replica-1"):
        proxy.open()


def test_a_datastore_that_is_too_small_and_disks_of_other_sizes_are_refused_by_name(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.open()
    with monkeypatch.context() as full:
        full.setattr(replica_vm, "free_bytes", lambda *_: MIB)
        with pytest.raises(ReplicaTooLargeError, match="takes 4194304 bytes, and 1048576 are free"):
            proxy.send("run-1")
    assert proxy.content == bytes(4 * MIB)
    proxy.run("run-1")

    proxy.size = 8 * MIB
    with pytest.raises(ReplicaDiskSizeError, match="4194304 bytes"):
        proxy.open()
