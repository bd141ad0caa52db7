"""Where replicas go, and which VMs can't have one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy_worker.contract.replication import ReplicaPlace
from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from scheduler.planning.replicas import PlannedReplica, ReplicaTerms, by_place, planned_replica, surplus
from scheduler.planning.selection import PlannedVm

FAR = ReplicaTerms(datastore="far")
MAPPED = FAR.model_copy(update={"mapped": {"web01": "standby"}})


def disk(key: str, path: str, datastore: str = "near", size_bytes: int = 10) -> DiskIdentity:
    return DiskIdentity(key=key, address=DiskAddress(datastore=datastore, path=path), size_bytes=size_bytes)


WEB01 = PlannedVm(
    identity=VmIdentity(vm_id="id-web01", name="web01"),
    disks=(disk("scsi0:0", "web01/web01.vmdk"), disk("scsi0:1", "web01/data.vmdk")),
    configuration=(DiskAddress(datastore="near", path="web01/web01.vmx"),),
)


def standby(*disks: DiskIdentity, vm_id: str = "id-standby") -> InventoryVm:
    vmx = DiskAddress(datastore="far", path="standby/standby.vmx")
    return InventoryVm(identity=VmIdentity(vm_id=vm_id, name="standby"), disks=disks, configuration=(vmx,))


def paths(planned: PlannedReplica | str) -> dict[str, str | None]:
    assert isinstance(planned, PlannedReplica), planned
    return {one.key: one.address.path for one in planned.disks}


def test_a_new_replica_has_a_folder_disks_and_an_id_of_its_own() -> None:
    planned = planned_replica(WEB01, FAR, {})
    assert isinstance(planned, PlannedReplica)
    assert planned.place == ReplicaPlace(datastore="far", folder="web01_replica")
    assert paths(planned) == {
        "scsi0:0": "web01_replica/web01_replica.vmdk",
        "scsi0:1": "web01_replica/web01_replica_1.vmdk",
    }
    assert planned.replaced_uuid not in {None, "id-web01"}


def test_a_vm_of_a_vcenter_can_have_one_though_it_has_no_folder_here() -> None:
    planned = planned_replica(replace(WEB01, vcenter="vc1", configuration=()), FAR, {})
    assert isinstance(planned, PlannedReplica)
    assert planned.place == ReplicaPlace(datastore="far", folder="web01_replica")
    assert planned.original_place == ReplicaPlace(datastore="vc1", folder="id-web01")


def known(vm: PlannedVm = WEB01, terms: ReplicaTerms = FAR, *there: InventoryVm) -> PlannedReplica:
    """A replica that an earlier run made."""
    planned = planned_replica(vm, terms, by_place(there, terms.datastore))
    assert isinstance(planned, PlannedReplica), planned
    return planned


def test_disks_that_it_has_keep_their_files_and_others_get_new_ones() -> None:
    had = known(replace(WEB01, disks=WEB01.disks[1:]))
    assert paths(planned_replica(WEB01, FAR, {}, had)) == {
        "scsi0:0": "web01_replica/web01_replica_1.vmdk",
        "scsi0:1": "web01_replica/web01_replica.vmdk",
    }


RENAMED = replace(WEB01, identity=VmIdentity(vm_id="id-web01", name="shop"))


@pytest.mark.parametrize(
    ("vm", "terms"),
    [
        (RENAMED, FAR),
        (WEB01, FAR.model_copy(update={"suffix": "_copy"})),
        (WEB01, FAR.model_copy(update={"mapped": {"other": "standby"}})),
    ],
)
def test_a_replica_stays_what_it_is_whatever_new_ones_would_be_called(vm: PlannedVm, terms: ReplicaTerms) -> None:
    assert planned_replica(vm, terms, {}, known()) == known()


def test_a_mapped_replica_stays_when_its_original_gets_another_name() -> None:
    there = standby(disk("scsi0:0", "standby/a.vmdk", "far"), disk("scsi0:1", "standby/b.vmdk", "far"))
    had = known(WEB01, MAPPED, there)
    assert planned_replica(RENAMED, MAPPED, by_place([there], "far"), had) == had


def test_a_replica_goes_where_its_job_says_by_another_datastore_or_mapping_with_no_disk_of_the_former() -> None:
    moved = planned_replica(WEB01, ReplicaTerms(datastore="third"), {}, known())
    assert moved == known(WEB01, ReplicaTerms(datastore="third"))
    there = standby(disk("scsi0:0", "standby/a.vmdk", "far"), disk("scsi0:1", "standby/b.vmdk", "far"))
    mapped = planned_replica(WEB01, MAPPED, by_place([there], "far"), known())
    assert paths(mapped) == {"scsi0:0": "standby/a.vmdk", "scsi0:1": "standby/b.vmdk"}
    assert planned_replica(WEB01, FAR, {}, known(WEB01, MAPPED, there)) == known()


def test_a_name_that_no_folder_can_have_is_made_one() -> None:
    odd = replace(WEB01, identity=VmIdentity(vm_id="id", name=".hidden/web"))
    planned = planned_replica(odd, FAR, {})
    assert isinstance(planned, PlannedReplica)
    assert planned.place.folder == "_hidden_web_replica"
    assert planned.name == ".hidden/web_replica"


def test_an_existing_vm_becomes_the_replica_with_its_own_files() -> None:
    there = standby(disk("scsi0:0", "standby/a.vmdk", "far"), disk("scsi0:1", "standby/b.vmdk", "far"))
    planned = planned_replica(WEB01, MAPPED, by_place([there], "far"))
    assert paths(planned) == {"scsi0:0": "standby/a.vmdk", "scsi0:1": "standby/b.vmdk"}
    assert isinstance(planned, PlannedReplica)
    assert (planned.mapped, planned.replaced_uuid) == (True, None)


@pytest.mark.parametrize(
    ("vm", "terms", "there", "why"),
    [
        (replace(WEB01, configuration=()), FAR, (), "it has no VMX in a datastore"),
        (WEB01, ReplicaTerms(datastore="near", mapped={"web01": "web01"}), (), "its replica would be itself"),
        (WEB01, MAPPED, (), "no VM lies in standby of datastore far"),
        (WEB01, MAPPED, (standby(vm_id="id-web01"),), "has its id"),
        (WEB01, MAPPED, (standby(),), "has no disk scsi0:0 in far"),
        (WEB01, MAPPED, (standby(disk("scsi0:0", "standby/a.vmdk", "far", 9)),), "has 9 bytes and not 10"),
    ],
)
def test_what_can_have_none_is_refused_by_name(
    vm: PlannedVm, terms: ReplicaTerms, there: tuple[InventoryVm, ...], why: str
) -> None:
    refusal = planned_replica(vm, terms, by_place(there, "far"))
    assert isinstance(refusal, str)
    assert why in refusal


def test_the_only_point_is_never_too_many() -> None:
    assert surplus(["a", "b", "c"], 2) == ["a"]
    assert surplus(["a"], 1) == []
