"""Reading a vCenter: trust, privileges, the whole inventory, tags. Nothing is changed there."""

from __future__ import annotations

import dataclasses
import time

import pytest

from proxy_worker.vsphere.identity import vm_identity
from proxy_worker.vsphere.inventory import read_inventory, read_vm
from proxy_worker.vsphere.model import PlaceKind
from proxy_worker.vsphere.privileges import Purpose, missing_privileges
from proxy_worker.vsphere.session import Session
from proxy_worker.vsphere.tags import read_tags
from proxy_worker.vsphere.trust import ThumbprintChangedError, Trust
from tests.vcenter.conftest import Vcenter

SECONDS_PER_1000_VMS = 20.0


def test_another_certificate_is_refused_before_the_password_is_sent(vcenter: Vcenter) -> None:
    elsewhere = dataclasses.replace(vcenter.endpoint, trust=Trust("ab" * 32))
    with pytest.raises(ThumbprintChangedError):
        Session(elsewhere, "never sent")


def test_the_account_has_all_that_a_backup_needs(session: Session) -> None:
    assert [str(missing) for missing in missing_privileges(session, [Purpose.BACKUP])] == []


def test_the_inventory_is_whole(session: Session) -> None:
    began = time.monotonic()
    inventory = read_inventory(session)
    taken_s = time.monotonic() - began
    assert inventory.vms
    assert inventory.hosts
    assert inventory.datastores
    assert taken_s < max(10.0, len(inventory.vms) / 1000 * SECONDS_PER_1000_VMS)
    for vm in inventory.vms.values():
        assert vm.host in inventory.hosts
        assert set(vm.datastores) <= set(inventory.datastores)
        assert any(place.kind is PlaceKind.DATACENTER for place in inventory.ancestors(vm.folder))
        assert len({disk.place for disk in vm.disks}) == len(vm.disks)
        assert all(disk.size_bytes > 0 for disk in vm.disks)


def test_vms_are_told_apart_by_their_ids(session: Session) -> None:
    vms = read_inventory(session).vms.values()
    assert len({vm_identity(vm).vm_id for vm in vms}) == len(vms)


def test_an_inventory_in_small_pages_shows_the_same_vms(session: Session) -> None:
    assert set(read_inventory(session, page=25).vms) == set(read_inventory(session).vms)


def test_a_vm_by_itself_is_as_the_inventory_shows_it(session: Session) -> None:
    whole = next(iter(read_inventory(session).vms.values()))
    alone = read_vm(session, whole.ref)
    assert (alone.name, alone.instance_uuid, alone.disks) == (whole.name, whole.instance_uuid, whole.disks)


def test_tags_can_be_read(vcenter: Vcenter) -> None:
    for tags in read_tags(vcenter.endpoint, vcenter.password).values():
        assert all(tag.name for tag in tags)
