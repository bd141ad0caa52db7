"""What the test bed promises to tests: disks that freeze, deltas that merge, files, counted calls."""

from __future__ import annotations

import base64
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from pyVmomi import vim

from proxy_worker.vsphere.faults import DiskLockedError
from proxy_worker.vsphere.hot_add import attach, detach
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.lookup import configuration_files
from proxy_worker.vsphere.model import Vm
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.snapshots import Mark, Quiesce, Snapshot, create, remove, tree
from proxy_worker.vsphere.tasks import finish
from tests.simulators.vsphere.simulator import PASSWORD, USER, VsphereSimulator
from tests.vsphere.conftest import IMPATIENT
from tests.vsphere.machines import MIB, make_vm
from tests.vsphere.test_snapshots import by_user

INSTALLATION = "installation-bed"


def freeze(session: Session, vm: Vm, journal: str = "run") -> Snapshot:
    return create(session, vm, Mark(INSTALLATION, journal), Quiesce.NEVER, IMPATIENT)


def thaw(session: Session, vm: Vm, snapshot: Snapshot) -> None:
    assert remove(session, vm.ref, snapshot.ref, INSTALLATION, IMPATIENT)


def at(file: Path, offset: int, length: int = 1) -> bytes:
    with file.open("rb") as disk:
        disk.seek(offset)
        return disk.read(length)


def file_of(vsphere: VsphereSimulator, path: str) -> Path:
    """The bytes of a disk's file in its datastore."""
    datastore, _, name = path[1:].partition("] ")
    return vsphere.datastores[datastore] / name.replace(".vmdk", "-flat.vmdk")


def test_a_disk_that_is_made_is_a_sparse_file_of_its_size(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, 3 * MIB + 512)
    (disk,) = [disk for disk in vsphere.disks() if disk.vm == vm.ref]
    assert (disk.file.stat().st_size, disk.file.stat().st_blocks) == (3 * MIB + 512, 0)
    assert (disk.path, disk.uuid, disk.name) == (vm.disks[0].path, vm.disks[0].uuid, vm.name)


def test_writes_go_to_a_delta_while_there_is_a_snapshot_and_are_merged_afterwards(
    vsphere: VsphereSimulator, session: Session
) -> None:
    vm = make_vm(session, MIB)
    path = vm.disks[0].path or ""
    vsphere.write(path, (0, b"a"))
    made = freeze(session, vm)
    vsphere.write(path, (0, b"b"))

    (live,) = read_vm(session, vm.ref).disks
    assert (live.path, live.uuid) == (path.replace(".vmdk", "-000001.vmdk"), vm.disks[0].uuid)
    assert made.disks[0].path == path
    assert at(file_of(vsphere, path), 0) == b"a"  # what a proxy reads that has mounted the datastore
    assert at(vsphere.frozen_disk(made.ref, path), 0) == b"a"

    thaw(session, vm, made)
    (live,) = read_vm(session, vm.ref).disks
    assert live.path == path
    assert at(file_of(vsphere, path), 0) == b"b"
    assert at(vsphere.frozen_disk(made.ref, path), 0) == b"a"
    assert not (vsphere.frozen / made.ref).exists()
    assert {file.name for file in file_of(vsphere, path).parent.glob("*.vmdk")} == {"d0.vmdk", "d0-flat.vmdk"}


def test_a_users_earlier_snapshot_keeps_its_disk_while_ours_comes_and_goes(
    vsphere: VsphereSimulator, session: Session
) -> None:
    vm = make_vm(session, MIB)
    path = vm.disks[0].path or ""
    vsphere.write(path, (0, b"a"))
    by_user(session, vm)
    vsphere.write(path, (0, b"b"))
    made = freeze(session, vm)
    vsphere.write(path, (0, b"c"))

    assert made.disks[0].path == path.replace(".vmdk", "-000001.vmdk")
    assert at(vsphere.frozen_disk(made.ref, made.disks[0].path or ""), 0) == b"b"
    thaw(session, vm, made)
    assert read_vm(session, vm.ref).disks[0].path == path.replace(".vmdk", "-000001.vmdk")
    assert at(file_of(vsphere, path), 0) == b"a"
    machine = vim.VirtualMachine(vm.ref, session.stub)
    finish(session, "deleting all", lambda: machine.RemoveAllSnapshots_Task(True), IMPATIENT)
    assert read_vm(session, vm.ref).disks[0].path == path
    assert at(file_of(vsphere, path), 0) == b"c"


def test_a_snapshot_stays_while_its_disk_hangs_at_another_vm(vsphere: VsphereSimulator, session: Session) -> None:
    vm, proxy = make_vm(session, MIB), make_vm(session, MIB)
    made = freeze(session, vm)
    attach(session, proxy.ref, made.disks[0], IMPATIENT)
    with pytest.raises(DiskLockedError):
        remove(session, vm.ref, made.ref, INSTALLATION, IMPATIENT)
    assert [node.ref for node in tree(session, vm.ref)] == [made.ref]
    detach(session, proxy.ref, [made.disks[0].path or ""], IMPATIENT)
    thaw(session, vm, made)


def test_going_back_to_a_snapshot_brings_its_disk_back(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, MIB)
    vsphere.write(vm.disks[0].path or "", (7, b"a"))
    made = freeze(session, vm)
    vsphere.write(vm.disks[0].path or "", (7, b"b"))
    snapshot = vim.vm.Snapshot(made.ref, session.stub)
    finish(session, "going back", snapshot.RevertToSnapshot_Task, IMPATIENT)
    thaw(session, vm, made)
    assert at(file_of(vsphere, vm.disks[0].path or ""), 7) == b"a"


def test_files_of_a_vm_are_for_those_who_say_who_they_are(vsphere: VsphereSimulator, session: Session) -> None:
    vm = make_vm(session, MIB)
    (center,) = [place for place in read_inventory(session).places.values() if place.kind.value == "datacenter"]
    url = f"https://{vsphere.host}:{vsphere.port}/folder/{vm.name}/{vm.name}.vmx?dcPath={center.name}&dsName=LocalDS_0"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, context=context)
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    whole = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    text = urllib.request.urlopen(whole, context=context).read().decode()
    assert f'displayName = "{vm.name}"' in text
    part = urllib.request.Request(url, headers={"Authorization": f"Basic {token}", "Range": "bytes=2-4"})
    answer = urllib.request.urlopen(part, context=context)
    assert (answer.status, answer.read().decode()) == (206, text[2:5])
    assert vsphere.calls_by_vm()[vm.ref]["file GET"] == 2


def test_calls_are_counted_for_the_vm_that_they_are_about(vsphere: VsphereSimulator, session: Session) -> None:
    vm, other = make_vm(session, MIB), make_vm(session, MIB)
    vsphere.reset()
    thaw(session, vm, freeze(session, vm))
    counted = vsphere.calls_by_vm()[vm.ref]
    assert (counted["CreateSnapshot_Task"], counted["RemoveSnapshot_Task"]) == (1, 1)
    assert other.ref not in vsphere.calls_by_vm()


def test_a_datastore_can_be_lost_and_found(vsphere: VsphereSimulator, session: Session) -> None:
    vsphere.make_datastore_inaccessible("LocalDS_1")
    assert not next(s for s in read_inventory(session).datastores.values() if s.name == "LocalDS_1").accessible
    vsphere.make_datastore_inaccessible("LocalDS_1", accessible=True)
    assert next(s for s in read_inventory(session).datastores.values() if s.name == "LocalDS_1").accessible


def test_the_files_of_a_vm_are_listed_with_the_folder_that_they_are_in(session: Session) -> None:
    vm = make_vm(session, MIB)
    thaw(session, vm, freeze(session, vm))
    nvram = [path for path in configuration_files(session, vm) if path.endswith(".nvram")]
    assert nvram == [f"[LocalDS_0] {vm.name}/{vm.name}.nvram"]
