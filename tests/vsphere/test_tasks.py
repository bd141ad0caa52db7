"""Waiting for vCenter's tasks: progress, failure, cancelling, and not for ever."""

from __future__ import annotations

import threading

import pytest
from pyVmomi import vim

from proxy_worker.contract.errors import CancelledError, ProxyfleetError
from proxy_worker.vsphere import faults
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tasks import VsphereTaskTimeoutError, Waiting, finish
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.vsphere.machines import MIB, make_vm

QUICK = {"first_pause_s": 0.001, "longest_pause_s": 0.001}


def rename(session: Session, ref: str, waiting: Waiting) -> object:
    """A task of vCenter's, as good as any."""
    machine = vim.VirtualMachine(ref, session.stub)
    spec = vim.vm.ConfigSpec(annotation="changed")
    return finish(session, "changing a VM", lambda: machine.ReconfigVM_Task(spec), waiting)


def test_progress_is_told_while_a_task_runs(vsphere: VsphereSimulator, session: Session) -> None:
    vm, told = make_vm(session, MIB), list[int]()
    vsphere.go_wrong("ReconfigVM_Task", "slow", polls=4)
    rename(session, vm.ref, Waiting(progress=told.append, **QUICK))
    assert told == [25, 50, 75]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("FileLocked", faults.DiskLockedError),
        ("NoDiskSpace", faults.DatastoreFullError),
        ("TaskInProgress", faults.VmBusyError),
        ("QuestionPending", faults.VmBusyError),
        ("InvalidHostState", faults.HostUnavailableError),
        ("HostNotConnected", faults.HostUnavailableError),
        ("InaccessibleDatastore", faults.HostUnavailableError),
        ("ManagedObjectNotFound", faults.VsphereObjectGoneError),
        ("NoPermission", faults.MissingPrivilegeError),
        ("RequestCanceled", faults.VsphereTaskCancelledError),
        ("GenericVmConfigFault", faults.VsphereError),
    ],
)
@pytest.mark.parametrize("mode", ["fail", "refuse"])
def test_every_fault_has_a_name_whether_the_call_or_the_task_fails(
    vsphere: VsphereSimulator, session: Session, fault: str, error: type[ProxyfleetError], mode: str
) -> None:
    vm = make_vm(session, MIB)
    vsphere.go_wrong("ReconfigVM_Task", mode, fault, file="[LocalDS_0] a/b.vmdk")
    with pytest.raises(error, match="changing a VM") as caught:
        rename(session, vm.ref, Waiting(**QUICK))
    assert type(caught.value) is error
    assert caught.value.remedy


def test_a_fault_of_several_lines_is_told_in_one() -> None:
    fault = vim.fault.FileLocked(msg="Unable to access\r\n  the file\n", file="[LocalDS_0] a/b.vmdk")
    assert faults.words_of(fault) == "FileLocked ([LocalDS_0] a/b.vmdk) - Unable to access the file"


def test_a_cancelled_task_is_cancelled_in_vcenter_and_does_nothing(
    vsphere: VsphereSimulator, session: Session
) -> None:
    vm, cancelled = make_vm(session, MIB), threading.Event()
    vsphere.go_wrong("ReconfigVM_Task", "slow", polls=1000)
    with pytest.raises(CancelledError):
        rename(session, vm.ref, Waiting(progress=lambda _: cancelled.set(), cancelled=cancelled, **QUICK))
    assert vsphere.calls()["CancelTask"] == 1
    assert read_vm(session, vm.ref).name == vm.name


def test_a_task_is_not_waited_for_beyond_its_time(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, MIB)
    vsphere.go_wrong("ReconfigVM_Task", "slow", polls=1000)
    with pytest.raises(VsphereTaskTimeoutError, match=r"isn't done after 0\.05 s"):
        rename(session, vm.ref, Waiting(timeout_s=0.05, **QUICK))


def test_a_session_that_expires_while_waiting_changes_nothing(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, MIB)
    vsphere.go_wrong("ReconfigVM_Task", "slow", polls=3)
    rename(session, vm.ref, Waiting(progress=lambda _: vsphere.expire_sessions(), **QUICK))
