"""Replicas as VMs of a simulated vCenter: made, brought up to date, kept as snapshots, and run."""

from __future__ import annotations

import pytest

from proxy_worker.contract.replication import ReplicaCondition, ReplicaMark
from proxy_worker.mover.control import Unattended
from proxy_worker.node.replicas import (
    mark_replica,
)
from proxy_worker.replication.errors import (
    ReplicaFailedOverError,
    ReplicaPermanentError,
)
from proxy_worker.vsphere.power import switch_off, switch_on
from tests.node.vcenter_proxy import BLOCK, MIB, Proxy, proxy

__all__ = ["proxy"]


def test_a_replica_is_a_vm_like_its_original_and_each_run_sends_what_changed_and_leaves_a_snapshot(
    proxy: Proxy,
) -> None:
    first = proxy.run("run-1")
    vm = proxy.vm
    assert (vm.name, vm.powered_on, proxy.points) == (proxy.folder, False, ["run-1"])
    assert proxy.content == proxy.original.read_bytes()
    assert first.report.stored_bytes == 2 * MIB
    assert (proxy.simulator.datastores["LocalDS_0"] / vm.name / f"{vm.name}.nvram").read_bytes() == b"nvram"

    proxy.change_original()
    second = proxy.run("run-2")
    assert second.report.stored_bytes == BLOCK
    assert proxy.content == proxy.original.read_bytes()
    assert proxy.points == ["run-1", "run-2"]

    assert proxy.remove_point("run-1")
    assert not proxy.remove_point("run-1")
    assert proxy.points == ["run-2"]
    assert proxy.content == proxy.original.read_bytes()


def test_what_was_changed_by_hand_or_by_a_run_that_died_is_gone_at_the_next_run(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.write(MIB, b"changed by hand")
    switch_on(proxy.session, proxy.vm.ref, "replica")
    switch_off(proxy.session, proxy.vm.ref, "replica")

    assert proxy.run("run-2").report.stored_bytes == 0
    assert proxy.content == proxy.original.read_bytes()

    proxy.change_original(MIB)
    proxy.open()
    proxy.send("run-3")  # and dies before its restore point is made
    proxy.change_original(MIB)
    proxy.run("run-4")
    assert proxy.content == proxy.original.read_bytes()


def test_failover_starts_the_vm_from_a_point_and_undo_goes_back(proxy: Proxy) -> None:
    proxy.run("run-1")
    kept = proxy.original.read_bytes()
    proxy.change_original()
    proxy.run("run-2")
    newest = proxy.original.read_bytes()

    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    assert proxy.vm.powered_on
    assert proxy.content == kept
    proxy.write(0, b"written by the guest")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)  # done again, it changes nothing
    assert proxy.content.startswith(b"written by the guest")
    with pytest.raises(ReplicaFailedOverError, match="failed over to restore point run-1"):
        proxy.open()
    with pytest.raises(ReplicaFailedOverError):
        proxy.send("run-3")

    proxy.revert("run-2", ReplicaCondition.STANDBY)
    assert not proxy.vm.powered_on
    assert proxy.content == newest
    assert proxy.run("run-3").report.stored_bytes == 0
    assert proxy.points == ["run-1", "run-2", "run-3"]


def test_a_permanent_replica_has_no_points_and_is_written_no_more(proxy: Proxy) -> None:
    proxy.run("run-1")
    proxy.revert("run-1", ReplicaCondition.FAILED_OVER)
    body = ReplicaMark(replica=proxy.place, condition=ReplicaCondition.PERMANENT)
    for _ in range(2):
        mark_replica(body, proxy.bench, proxy.claim(), Unattended())

    assert proxy.vm.powered_on
    assert proxy.vm.snapshots == ()
    with pytest.raises(ReplicaPermanentError):
        proxy.open()
