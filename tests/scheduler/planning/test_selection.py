"""Which VMs a job's patterns choose, and what is said of those that can't be had."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, InventoryVm, VmIdentity
from scheduler.planning.candidates import Candidate
from scheduler.planning.criteria import Criteria
from scheduler.planning.selection import Plan
from scheduler.planning.selection import plan as plan_job

NAMES = st.sampled_from(["web01", "web02", "db01", "Web[1]", "a*", "x"])


def vm(name: str, *keys: str, vm_id: str | None = None, problem: str | None = None) -> InventoryVm:
    identity = VmIdentity.of_name(name) if vm_id is None else VmIdentity(vm_id=vm_id, name=name)
    disks = tuple(DiskIdentity(key=key, address=DiskAddress(datastore="ds", path=f"{key}.vmdk")) for key in keys)
    return InventoryVm(identity=identity, disks=disks, problem=problem)


def plan(patterns: list[str], inventory: list[InventoryVm]) -> Plan:
    return plan_job(patterns, Criteria(), [Candidate.of_inventory(found) for found in inventory])


def test_a_vm_that_two_patterns_match_is_taken_once() -> None:
    planned = plan(["web*", "web01", "*"], [vm("web01", "scsi0:0")])

    assert [one.identity.name for one in planned.vms] == ["web01"]
    assert planned.unplanned == ()


def test_patterns_and_names_without_a_vm_are_named() -> None:
    planned = plan(["web*", "db01", "web*"], [])

    assert [(one.name, one.reason) for one in planned.unplanned] == [
        ("web*", "no VM matches 'web*'"),
        ("db01", "no VM has that name"),
    ]


def test_a_vm_is_found_by_its_whole_name_even_if_that_reads_like_a_pattern() -> None:
    planned = plan(["Web[1]"], [vm("Web[1]", "scsi0:0")])

    assert [one.identity.name for one in planned.vms] == ["Web[1]"]


def test_a_vm_with_a_problem_or_without_disks_is_unplanned_and_the_others_are_not() -> None:
    planned = plan(["*"], [vm("bad", problem="bad.vmx is truncated"), vm("empty"), vm("good", "scsi0:0")])

    assert [one.identity.name for one in planned.vms] == ["good"]
    assert [(one.name, one.reason) for one in planned.unplanned] == [
        ("bad", "bad.vmx is truncated"),
        ("empty", "it has no disks"),
    ]


def test_a_copy_that_kept_the_id_of_its_original_is_named_with_it() -> None:
    planned = plan(["*"], [vm("web01", "scsi0:0", vm_id="same"), vm("web01-copy", "scsi0:0", vm_id="same")])

    assert [one.identity.name for one in planned.vms] == ["web01"]
    (unplanned,) = planned.unplanned
    assert unplanned.name == "web01-copy"
    assert "same id as VM 'web01'" in unplanned.reason


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, max_size=6, unique=True))
def test_every_vm_that_matches_is_planned_and_every_pattern_that_matches_none_is_named(
    patterns: list[str], names: list[str]
) -> None:
    planned = plan(patterns, [vm(name, "scsi0:0") for name in names])

    matching = {name for name in names if any(name == one or fnmatchcase(name, one) for one in patterns)}
    empty = {one for one in patterns if not any(name == one or fnmatchcase(name, one) for name in names)}
    assert [one.identity.name for one in planned.vms] == sorted(matching)
    assert {one.name for one in planned.unplanned} == empty
