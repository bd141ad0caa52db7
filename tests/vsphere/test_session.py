"""Sessions: who may log in, what expires, how many there are."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from pyVmomi import vim

from proxy_worker.vsphere.faults import (
    MissingPrivilegeError,
    SessionLostError,
    VcenterUnreachableError,
    VsphereObjectGoneError,
)
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.session import (
    Endpoint,
    Patience,
    Session,
    Sessions,
    SessionsBusyError,
    VcenterPasswordError,
    VcenterSecretError,
    read_password,
)
from tests.simulators.vsphere.simulator import PASSWORD, VsphereSimulator
from tests.vsphere.conftest import endpoint_of
from tests.vsphere.machines import make_vm


def test_a_session_is_gone_after_logout(vsphere: VsphereSimulator, endpoint: Endpoint) -> None:
    before = vsphere.sessions()
    with Session(endpoint, PASSWORD):
        assert vsphere.sessions() == before + 1
    assert vsphere.sessions() == before


def test_a_wrong_password_is_named_and_says_which_credential(endpoint: Endpoint) -> None:
    with pytest.raises(VcenterPasswordError, match=r"login of backup@vsphere.local.*InvalidLogin.*vc1\.password"):
        Session(endpoint, "wrong")


def test_the_password_appears_in_no_error(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.go_wrong("RetrievePropertiesEx", "refuse", "NotSupported", times=0)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever it is
        read_inventory(session)
    assert PASSWORD not in repr(caught.value)


def test_a_server_that_does_not_listen_is_named(vsphere: VsphereSimulator) -> None:
    with pytest.raises(VcenterUnreachableError, match=r"vc1.*refused"):
        Session(endpoint_of(vsphere, port=1), PASSWORD)


def test_a_session_that_expires_is_renewed_within_a_call(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, 1 << 20)
    vsphere.expire_sessions()
    assert read_vm(session, vm.ref).name == vm.name
    assert vsphere.calls()["Login"] == 2


def test_a_session_that_expires_between_two_pages_starts_the_reading_anew(
    vsphere: VsphereSimulator, session: Session
) -> None:
    vsphere.go_wrong("ContinueRetrievePropertiesEx", "refuse", "NotAuthenticated", skip=1)
    whole = read_inventory(session, page=5)
    assert whole.vms == read_inventory(session).vms


def test_a_session_that_ends_again_and_again_is_named(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.go_wrong("CreateContainerView", "refuse", "NotAuthenticated", times=0)
    with pytest.raises(SessionLostError, match="right after the login"):
        read_inventory(session)


def test_threads_that_meet_an_expired_session_log_in_once(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, 1 << 20)
    logins = vsphere.calls()["Login"]
    vsphere.expire_sessions()
    threads = [threading.Thread(target=read_vm, args=(session, vm.ref)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vsphere.calls()["Login"] == logins + 1


def test_a_vcenter_that_is_gone_for_a_moment_is_waited_for(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.go_wrong("RetrievePropertiesEx", "drop", times=4)
    assert read_inventory(session).vms


def test_a_vcenter_that_is_gone_at_the_login_is_waited_for_too(
    vsphere: VsphereSimulator, endpoint: Endpoint
) -> None:
    vsphere.go_wrong("RetrieveServiceContent", "drop", times=2)
    vsphere.go_wrong("Login", "drop")
    with Session(endpoint, PASSWORD) as session:
        assert read_inventory(session).vms


def test_a_vcenter_that_takes_connections_and_says_nothing_is_named_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = Endpoint(
            name="vc1",
            host="127.0.0.1",
            port=mute.getsockname()[1],
            user="u",
            credential="vc1",
            timeout_s=0.2,
            patience=Patience(total_s=0.0),
        )
        with pytest.raises(VcenterUnreachableError, match="doesn't answer in time"):
            Session(endpoint, PASSWORD)


def test_a_vcenter_that_stays_away_is_named(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.go_wrong("CreateContainerView", "drop", times=0)
    with pytest.raises(VcenterUnreachableError, match="reading the inventory of vCenter vc1"):
        read_inventory(session)


def test_what_may_have_been_done_is_not_done_again(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, 1 << 20)
    vsphere.go_wrong("ReconfigVM_Task", "drop")
    machine = vim.VirtualMachine(vm.ref, session.stub)
    with pytest.raises(VcenterUnreachableError):
        session.call("changing a VM", lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))
    assert vsphere.calls()["ReconfigVM_Task"] == 1


def test_a_missing_privilege_is_named_with_its_object(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, 1 << 20)
    vsphere.revoke(["VirtualMachine.Config.ChangeTracking"])
    machine = vim.VirtualMachine(vm.ref, session.stub)
    with pytest.raises(MissingPrivilegeError, match=f"VirtualMachine.Config.ChangeTracking on .*{vm.ref}"):
        session.call("changing a VM", lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))


def test_a_vm_that_was_deleted_is_named(session: Session) -> None:
    with pytest.raises(VsphereObjectGoneError, match="reading VM vm-0"):
        read_vm(session, "vm-0")


def test_no_more_sessions_are_opened_than_allowed_and_they_are_kept(
    vsphere: VsphereSimulator, endpoint: Endpoint
) -> None:
    before = vsphere.sessions()
    with Sessions(endpoint_of(vsphere, max_sessions=2), PASSWORD) as sessions:
        with sessions.borrow() as first, sessions.borrow() as second:
            assert first is not second
            with pytest.raises(SessionsBusyError, match="all 2 sessions"), sessions.borrow(timeout_s=0.01):
                pass
        with sessions.borrow() as again:
            assert again in (first, second)
        assert vsphere.sessions() == before + 2
    assert vsphere.sessions() == before


def test_a_password_comes_from_its_own_file(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "vc1.password").write_text(" with spaces \n")
    assert read_password(endpoint, tmp_path) == " with spaces "


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_password_file_that_holds_none_is_named(
    endpoint: Endpoint, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "vc1.password").write_bytes(content)
    with pytest.raises(VcenterSecretError, match=r"vc1\.password"):
        read_password(endpoint, tmp_path)
