"""Virtual appliance mode: the API is the simulated vCenter's, the guest's block devices are real loop devices."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.subjects import DiskAddress, TransportPreference, VcenterReference
from proxy_worker.transport.attachments import Attachment, AttachmentJournalError, DiskInUseError, Entry
from proxy_worker.transport.connections import Connections
from proxy_worker.transport.guest_disks import GuestDiskAmbiguousError, GuestDiskMissingError
from proxy_worker.transport.hot_add import (
    DiskUuidsHiddenError,
    HotAddImpossibleError,
    Pace,
    detach_left_behind,
    journal_of,
    open_virtual_appliance,
)
from proxy_worker.transport.select import open_disk
from proxy_worker.transport.source import DiskSource
from proxy_worker.transport.vsphere_access import VsphereAccess
from proxy_worker.vsphere import hot_add
from proxy_worker.vsphere.faults import DiskLockedError
from proxy_worker.vsphere.hot_add import NoFreeUnitError, ProxyVmNotFoundError
from proxy_worker.vsphere.inventory import read_vm
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Endpoint, Patience, Session
from proxy_worker.vsphere.snapshots import Mark, Quiesce, create, remove
from tests.simulators.vsphere.guest import SimulatedGuest
from tests.simulators.vsphere.simulator import VsphereSimulator
from tests.transport.conftest import read_all
from tests.transport.hot_adding import Source, access, guest, hanging, proxy, reconfigure, show_uuids, source
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, disk

__all__ = ["access", "guest", "proxy", "source"]

QUICK = Pace(lock_s=20, appear_s=10, vanish_s=2, tries=3, first_pause_s=0.01, task=IMPATIENT)
BLIND = dataclasses.replace(QUICK, appear_s=0.2, vanish_s=0.2)


def open_source(address: DiskAddress, access: VsphereAccess, pace: Pace = QUICK) -> DiskSource:
    return open_virtual_appliance(address, Connections(), access, reason="test", pace=pace)


def test_a_frozen_disk_is_read_as_a_block_device_and_detached(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    with open_source(source.address(), access) as opened:
        assert opened.mode is TransportMode.VIRTUAL_APPLIANCE
        assert "test; hot-added as /dev/loop" in opened.mode_reason
        assert hanging(session, proxy) == {source.snapshot.disks[0].path}
        assert [one.path for one in journal_of(access).all()] == [source.snapshot.disks[0].path]
        assert read_all(opened) == source.content[0], "as it was frozen, not as it is"
    opened.close()
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()
    assert source.thaw()


def test_several_processes_attach_at_once(
    session: Session, proxy: Vm, access: VsphereAccess, vsphere: VsphereSimulator
) -> None:
    sources = [Source(vsphere, session, (MIB, MIB)) for _ in range(3)]
    addresses = [(one, number) for one in sources for number in (0, 1)]

    def read_one(which: tuple[Source, int]) -> bool:
        one, number = which
        with open_source(one.address(number), access) as opened:
            return read_all(opened) == one.content[number]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read_one, addresses))
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_automatic_choice_takes_it_and_says_so(access: VsphereAccess, source: Source) -> None:
    with open_disk(source.address(), TransportPreference(), Connections(), access) as opened:
        assert opened.mode is TransportMode.VIRTUAL_APPLIANCE
        assert opened.mode_reason.startswith("virtual_appliance, automatic choice (no storage_snapshot: ")


def test_hidden_uuids_are_named_with_the_remedy(
    session: Session, proxy: Vm, guest: SimulatedGuest, access: VsphereAccess, source: Source
) -> None:
    show_uuids(session, proxy, shown=False)
    for link in guest.folder.iterdir():
        link.rename(link.with_name("ata-of-no-uuid"))
    with pytest.raises(DiskUuidsHiddenError, match=r"has no disk\.EnableUUID.*set disk\.EnableUUID = TRUE"):
        open_source(source.address(), access)
    (guest.folder / "ata-of-no-uuid").rename(guest.folder / f"wwn-0x{proxy.disks[0].uuid}".replace("-", ""))
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_a_guest_that_shows_uuids_all_the_same_is_believed(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    show_uuids(session, proxy, shown=False)
    with open_source(source.address(), access) as opened:
        assert read_all(opened) == source.content[0]


def test_a_device_that_never_appears(
    session: Session, proxy: Vm, guest: SimulatedGuest, access: VsphereAccess, source: Source
) -> None:
    guest.blind = True
    with pytest.raises(GuestDiskMissingError, match=r"no block device with uuid .* appeared in 0\.2 s"):
        open_source(source.address(), access, BLIND)
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_another_disk_of_the_same_uuid_is_not_taken_for_it(
    session: Session, proxy: Vm, guest: SimulatedGuest, access: VsphereAccess, source: Source
) -> None:
    uuid = (source.snapshot.disks[0].uuid or "").replace("-", "")
    (guest.folder / f"wwn-0x{uuid}").symlink_to("/dev/null")
    with pytest.raises(GuestDiskAmbiguousError, match=r"same uuid .* vmkfstools -J setuuid|same uuid"):
        open_source(source.address(), access, BLIND)
    assert hanging(session, proxy) == set()


def test_refused_attaching_leaves_nothing(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    vsphere.go_wrong("ReconfigVM_Task", "fail", "FileLocked", times=0, file=source.snapshot.disks[0].path)
    with pytest.raises(DiskLockedError, match="hot-adding"):
        open_source(source.address(), access)
    vsphere.reset()
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_a_lock_that_passes_is_waited_for(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    vsphere.go_wrong("ReconfigVM_Task", "fail", "FileLocked", times=2, file=source.snapshot.disks[0].path)
    with open_source(source.address(), access) as opened:
        assert read_all(opened) == source.content[0]


def test_attaching_that_fails_after_the_fact_is_undone(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    vsphere.go_wrong("ReconfigVM_Task", "fail_after", "InvalidState")
    with pytest.raises(Exception, match="hot-adding"):
        open_source(source.address(), access, dataclasses.replace(QUICK, tries=1))
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_a_full_proxy_is_named(session: Session, proxy: Vm, access: VsphereAccess, source: Source) -> None:
    reconfigure(
        session,
        proxy,
        deviceChange=[
            disk((1000, unit), MIB, f"[LocalDS_0] {proxy.name}/own{unit}.vmdk")
            for unit in range(1, 16)
            if unit != 7
        ],
    )
    with pytest.raises(NoFreeUnitError, match="no SCSI unit is free"):
        open_source(source.address(), access)
    assert journal_of(access).all() == ()


def test_detaching_that_fails_is_tried_again_then_left_to_the_journal(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    with open_source(source.address(), access) as opened:
        vsphere.go_wrong("ReconfigVM_Task", "fail", "TaskInProgress", times=2)
        assert read_all(opened) == source.content[0]
    assert hanging(session, proxy) == set()

    with open_source(source.address(), access) as opened:
        vsphere.go_wrong("ReconfigVM_Task", "fail", "TaskInProgress", times=0)
        assert read_all(opened) == source.content[0]
    assert hanging(session, proxy) == {source.snapshot.disks[0].path}
    (why,) = detach_left_behind(access, QUICK)
    assert "TaskInProgress" in why

    vsphere.reset()
    assert detach_left_behind(access, QUICK) == ()
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_an_expired_session_is_renewed_for_detaching(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    with open_source(source.address(), access) as opened:
        vsphere.expire_sessions()
        assert read_all(opened) == source.content[0]
    assert hanging(session, proxy) == set()


def test_what_cannot_be_hot_added_is_refused_before_anything_is_attached(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    own = create(session, read_vm(session, proxy.ref), Mark("installation-h", "own"), Quiesce.NEVER, IMPATIENT)
    of_own = source.address(vm=proxy.ref, snapshot=own.ref, key=own.disks[0].key, path=own.disks[0].path)
    for address, why in (
        (source.address(snapshot=None), "no snapshot has frozen it"),
        (source.address(key=4711), "no such disk"),
        (source.address(path="[LocalDS_0] other.vmdk"), "has "),
        (of_own, "a disk of this proxy's own VM"),
    ):
        with pytest.raises(HotAddImpossibleError, match=why):
            open_source(address, access)
    nobody = dataclasses.replace(access, offer=access.offer.model_copy(update={"product_uuid": None}))
    with pytest.raises(ProxyVmNotFoundError, match="leave out virtual_appliance"):
        open_source(source.address(), nobody)
    assert journal_of(access).all() == ()
    remove(session, proxy.ref, own.ref, "installation-h", IMPATIENT)


def test_a_second_task_for_the_same_disk_waits_its_turn(access: VsphereAccess, source: Source) -> None:
    with open_source(source.address(), access), pytest.raises((DiskInUseError, GuestDiskAmbiguousError)) as caught:
        open_source(source.address(), access)
    assert caught.value.retryable


def test_stray_disks_are_reported_and_left_alone(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    hot_add.attach(session, proxy.ref, source.snapshot.disks[1], IMPATIENT)
    with caplog.at_level(logging.WARNING), open_source(source.address(0), access):
        pass
    assert f"{source.snapshot.disks[1].path} hangs at this proxy's VM" in caplog.text
    assert hanging(session, proxy) == {source.snapshot.disks[1].path}
    assert detach_left_behind(access, QUICK) == ()
    hot_add.detach(session, proxy.ref, [source.snapshot.disks[1].path or ""], IMPATIENT)


def test_the_proxys_own_disks_are_never_detached(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    """Even if, after a restore over its VM, a disk of its own is called as one that it had attached."""
    entry = journal_of(access)
    with entry.attaching(1), open_entry(access, source, proxy.disks[0].path or "", proxy):
        pass
    assert detach_left_behind(access, QUICK) == ()
    assert [one.path for one in hot_add.attached(session, proxy.ref)] == [proxy.disks[0].path]


def open_entry(access: VsphereAccess, source: Source, path: str, proxy: Vm) -> Entry:
    return journal_of(access).write(
        Attachment(vcenter=source.vcenter, proxy_vm=proxy.ref, path=path, uuid="6000c290-0000")
    )


def test_a_damaged_journal_is_named(access: VsphereAccess, source: Source) -> None:
    folder = access.state_dir / "hot-add"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text("{")
    with pytest.raises(AttachmentJournalError, match=r"x\.json.*then delete the file"):
        detach_left_behind(access, QUICK)
    with pytest.raises(AttachmentJournalError):
        open_source(source.address(), access)


class _Impatient(VsphereAccess):
    """Waits for a vCenter that is away for a moment only."""

    def endpoint(self, vcenter: VcenterReference) -> Endpoint:
        return dataclasses.replace(super().endpoint(vcenter), patience=Patience(0.5, 0.01, 0.1))


def test_a_vcenter_that_is_away_is_the_reason(proxy: Vm, access: VsphereAccess, source: Source) -> None:
    away = source.vcenter.model_copy(update={"port": 9})
    with journal_of(access).attaching(1):
        for name in ("a", "b"):
            journal_of(access).write(
                Attachment(vcenter=away, proxy_vm=proxy.ref, path=f"[ds] {name}.vmdk", uuid=name)
            ).leave()
    (why,) = detach_left_behind(_Impatient(access.secrets_dir, access.state_dir), QUICK)
    assert "[ds] a.vmdk, [ds] b.vmdk of an earlier task: vCenter vc1" in why or "[ds] b.vmdk, [ds] a.vmdk" in why
    assert len(journal_of(access).all()) == 2


STEPS = 6
"""The journal's file named; vCenter asked to attach, and asked; to detach, and asked; the file removed."""


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that is killed before its n-th change of journal or vCenter; False: it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    steps = itertools.count(1)

    def step_or_die() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_file(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.remove"} and "hot-add" in str(arguments[0]):
            step_or_die()

    asked = Session.call

    def call(self: Session, what: str, operation: Callable[[], Any], *, repeatable: bool = False) -> Any:
        if repeatable:  # it only reads: what was done before it is counted there
            return asked(self, what, operation, repeatable=True)
        step_or_die()
        answer = asked(self, what, operation)
        step_or_die()
        return answer

    Session.call = call  # type: ignore[method-assign]  # this process ends here
    sys.addaudithook(on_file)
    try:
        work()
    finally:
        os._exit(0)


def test_killed_between_any_two_steps_the_next_start_finds_the_vm_as_it_was(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    def back_up() -> None:
        with open_source(source.address(), access) as opened:
            read_all(opened)

    left = 0
    for step in itertools.count(1):
        killed = killed_before(step, back_up)
        attached, journalled = hanging(session, proxy), {one.path for one in journal_of(access).all()}
        assert attached <= journalled, f"step {step}: attached without a journal"
        left += len(attached)
        assert detach_left_behind(access, QUICK) == ()
        assert hanging(session, proxy) == set()
        assert journal_of(access).all() == ()
        if not killed:
            break
    assert step == STEPS + 1
    assert left >= 2
    assert source.thaw(), "nothing keeps the snapshot"


def test_killed_while_vcenter_still_attaches_the_disk_is_detached_all_the_same(
    vsphere: VsphereSimulator, session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    vsphere.go_wrong("ReconfigVM_Task", "slow", polls=3)
    asked_to_attach = 3
    assert killed_before(asked_to_attach, lambda: open_source(source.address(), access))
    assert hanging(session, proxy) == set(), "not yet"
    assert detach_left_behind(access, QUICK) == ()
    assert vsphere.calls()["ReconfigVM_Task"] >= 2
    assert hanging(session, proxy) == set()
    assert journal_of(access).all() == ()


def test_a_new_task_detaches_what_a_killed_one_left(
    session: Session, proxy: Vm, access: VsphereAccess, source: Source
) -> None:
    def die_reading() -> None:
        open_source(source.address(0), access)
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed_before(0, die_reading)
    assert hanging(session, proxy) == {source.snapshot.disks[0].path}
    for number in (1, 0):
        with open_source(source.address(number), access) as opened:
            assert hanging(session, proxy) == {source.snapshot.disks[number].path}
            assert read_all(opened) == source.content[number]
