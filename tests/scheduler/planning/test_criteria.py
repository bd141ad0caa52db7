"""Which VMs and disks a job's selections and exclusions take, and what is said of those that can't be had."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_worker.contract.subjects import DiskAddress, DiskIdentity, VmIdentity
from scheduler.planning.candidates import Candidate, CandidateDisk
from scheduler.planning.criteria import Criteria, DiskExclusion, VmSelector
from scheduler.planning.matching import excludes, needed_vcenters, needs_datastores, takes
from scheduler.planning.selection import Plan, belongs, plan

GIB = 1 << 30


def disk(key: str = "scsi0:0", *, size_bytes: int = GIB, **facts: Any) -> CandidateDisk:
    return CandidateDisk(DiskIdentity(key=key, address=DiskAddress(), size_bytes=size_bytes), **facts)


def independent(key: str) -> CandidateDisk:
    return disk(key, independent=True, obstacle="its mode is independent_persistent: snapshots don't cover it")


def vm(name: str, *disks: CandidateDisk, vm_id: str = "", **facts: Any) -> Candidate:
    """A VM of vCenter `vc1`, with a disk unless told."""
    identity = VmIdentity(vm_id=vm_id or f"id-{name}".lower(), name=name)
    facts = {"vcenter": "vc1", "ref": f"vm-{name}", "folder": "DC0/Linux/web", "cluster": "C0", "pool": ""} | facts
    return Candidate(identity, disks or (disk(),), **facts)


WEB = vm(
    "web01",
    pool="Production/Web",
    datastores=("Fast Store (1)", "fast"),
    tags=("Backup/gold", "Owner/sales & more"),
    attributes={"Owner": "ops", "Note": ""},
)


def names(planned: Plan) -> list[str]:
    return [one.identity.name for one in planned.vms]


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ({"vm": "web*"}, True),
        ({"vm": "Web*"}, False),
        ({"folder": "DC0/Linux/web"}, True),
        ({"folder": "DC0/Linux"}, True),
        ({"folder": "DC0/Linux/"}, True),
        ({"folder": "DC?/Linux"}, True),
        ({"folder": "DC0/Lin"}, False),
        ({"folder": "Linux"}, False),
        ({"pool": "Production"}, True),
        ({"pool": "Web"}, False),
        ({"cluster": "C[0-9]"}, True),
        ({"cluster": "C1"}, False),
        ({"datastore": "Fast Store (1)"}, True),
        ({"datastore": "fast"}, True),
        ({"datastore": "slow"}, False),
        ({"tag": "Backup/gold"}, True),
        ({"tag": "Backup/*"}, True),
        ({"tag": "Backup/silver"}, False),
        ({"attribute": "Owner=ops"}, True),
        ({"attribute": "Owner=o*"}, True),
        ({"attribute": "Owner"}, True),
        ({"attribute": "Note"}, False),
        ({"attribute": "Note="}, True),
        ({"vcenter": "vc1"}, True),
        ({"vcenter": "vc2", "vm": "web*"}, False),
        ({"tag": "Backup/gold", "cluster": "C1"}, False),
        ({"tag": "Backup/gold", "cluster": "C0"}, True),
    ],
)
def test_a_selector_takes_what_meets_all_its_conditions(selector: dict[str, str], taken: bool) -> None:
    assert takes(VmSelector.model_validate(selector), WEB) is taken


def test_a_vm_that_no_vcenter_shows_is_selected_by_name_and_datastore_only() -> None:
    plain = Candidate(VmIdentity.of_name("web01"), (disk(),), datastores=("ds1",))
    assert takes(VmSelector(datastore="ds1"), plain)
    assert not takes(VmSelector(folder="*"), plain)
    assert not takes(VmSelector(cluster="*"), plain)
    assert not takes(VmSelector(vcenter="vc1"), plain)


def test_a_vm_that_several_patterns_and_selectors_match_is_taken_once() -> None:
    criteria = Criteria(select=(VmSelector(tag="Backup/gold"), VmSelector(folder="DC0")))
    planned = plan(["web*", "web01"], criteria, [WEB])
    assert names(planned) == ["web01"]
    assert (planned.vms[0].vcenter, planned.vms[0].ref) == ("vc1", "vm-web01")
    assert planned.unplanned == ()


def test_what_is_excluded_is_left_out_however_it_was_selected() -> None:
    criteria = Criteria(exclude=(VmSelector(vm="*-test"), VmSelector(tag="Backup/never")))
    known = [vm("a"), vm("a-test"), vm("b", tags=("Backup/never",))]
    planned = plan(["*", "a-test"], criteria, known)
    assert (names(planned), planned.unplanned) == (["a"], ())


def test_a_job_whose_vms_are_all_excluded_says_so() -> None:
    (unplanned,) = plan(["*"], Criteria(exclude=(VmSelector(vm="*"),)), [WEB]).unplanned
    assert unplanned.reason == "all VMs that the job selects are excluded from it"


def test_a_selection_that_matches_nothing_is_named() -> None:
    (unplanned,) = plan([], Criteria(select=(VmSelector(folder="DC1", tag="x/y"),)), [WEB]).unplanned
    assert (unplanned.name, unplanned.reason) == (
        "folder 'DC1' and tag 'x/y'",
        "no VM matches that selection",
    )


def test_templates_belong_to_a_job_only_if_it_says_so() -> None:
    known = [vm("base", template=True), vm("web01")]
    assert names(plan(["*"], Criteria(), known)) == ["web01"]
    assert names(plan(["*"], Criteria(templates=True), known)) == ["base", "web01"]
    (unplanned,) = plan(["base"], Criteria(), known).unplanned
    assert (unplanned.name, "`templates = true`" in unplanned.reason) == ("base", True)


def test_disks_are_left_out_by_key_by_mode_and_by_size() -> None:
    known = [
        vm("db01", disk(), disk("scsi0:1"), independent("scsi0:2"), disk("scsi0:3", size_bytes=501 * GIB)),
        vm("web01", disk(), disk("scsi0:1", size_bytes=500 * GIB)),
    ]
    criteria = Criteria(exclude_disks=("db*/scsi0:1", "independent", ">500GiB"))
    first, second = plan(["*"], criteria, known).vms
    assert [one.key for one in first.disks] == ["scsi0:0"]
    assert [one.key for one in second.disks] == ["scsi0:0", "scsi0:1"]
    assert (first.warning, second.warning) == (None, None)


def test_a_disk_that_no_snapshot_covers_is_left_out_with_a_warning() -> None:
    (planned,) = plan(["*"], Criteria(), [vm("db01", disk(), independent("scsi0:2"))]).vms
    assert [one.key for one in planned.disks] == ["scsi0:0"]
    assert planned.warning == ("scsi0:2 is left out: its mode is independent_persistent: snapshots don't cover it")


@pytest.mark.parametrize(
    ("one", "exclude_disks", "reason"),
    [
        (vm("a", independent("scsi0:0")), (), "none of its disks can be had: scsi0:0 is left out: its mode is"),
        (vm("a", independent("scsi0:0")), ("independent",), "all its disks are excluded"),
        (vm("a", disk(encrypted=True)), (), "vSphere encrypts its disk scsi0:0"),
        (vm("a", problem="host esx1 is in maintenance"), (), "host esx1 is in maintenance"),
        (Candidate(VmIdentity.of_name("a"), ()), (), "it has no disks"),
    ],
)
def test_a_vm_without_a_disk_that_can_be_had_fails_alone(
    one: Candidate, exclude_disks: tuple[str, ...], reason: str
) -> None:
    planned = plan(["*"], Criteria(exclude_disks=exclude_disks), [one, vm("good", disk("scsi9:9"))])
    assert names(planned) == ["good"]
    (unplanned,) = planned.unplanned
    assert (unplanned.name, unplanned.reason[: len(reason)]) == ("a", reason)


def test_an_encrypted_disk_that_is_excluded_keeps_nothing_from_being_protected() -> None:
    known = [vm("a", disk(), disk("scsi0:1", encrypted=True))]
    assert names(plan(["*"], Criteria(exclude_disks=("scsi0:1",)), known)) == ["a"]


def test_one_vm_in_two_vcenters_is_backed_up_once_and_named() -> None:
    planned = plan(["*"], Criteria(), [vm("a", vm_id="same"), vm("a", vm_id="same", vcenter="vc2")])
    assert [one.vcenter for one in planned.vms] == ["vc1"]
    (unplanned,) = planned.unplanned
    assert "same id as VM 'a' (same) of vCenter vc1" in unplanned.reason
    chosen = plan(
        ["*"],
        Criteria(exclude=(VmSelector(vcenter="vc1"),)),
        [vm("a", vm_id="same"), vm("a", vm_id="same", vcenter="vc2")],
    )
    assert ([one.vcenter for one in chosen.vms], chosen.unplanned) == (["vc2"], ())


@pytest.mark.parametrize("text", ["", "/scsi0:0", "a b", ">5", ">5GB", "> 5  GiB", "scsi0:0/", "-1", "bogus"])
def test_a_text_that_excludes_no_disk_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a disk's key"):
        DiskExclusion.parse(text)


def test_a_size_is_read_with_its_unit_and_a_vm_may_have_slashes() -> None:
    assert DiskExclusion.parse("a/b/>1.5TiB") == DiskExclusion(vm="a/b", larger_than_bytes=3 << 39)


def test_folders_are_scanned_only_for_what_may_be_found_there() -> None:
    declared = ["a", "b"]
    assert not needs_datastores(["a", "b"], Criteria(), declared)
    assert needs_datastores(["a", "other"], Criteria(), declared)
    assert needs_datastores(["a*"], Criteria(), declared)
    assert needs_datastores([], Criteria(select=(VmSelector(datastore="ds1"),)), declared)
    assert not needs_datastores([], Criteria(select=(VmSelector(folder="DC0", vm="*"),)), declared)
    assert not needs_datastores([], Criteria(select=(VmSelector(vm="*", vcenter="vc1"),)), declared)


def test_vcenters_are_read_only_where_the_job_may_find_something() -> None:
    vcenters = ["vc1", "vc2"]
    assert needed_vcenters(["a"], Criteria(), ["a"], vcenters) == ()
    assert needed_vcenters(["b"], Criteria(), ["a"], vcenters) == ("vc1", "vc2")
    assert needed_vcenters([], Criteria(select=(VmSelector(tag="x/y"),)), [], vcenters) == ("vc1", "vc2")
    assert needed_vcenters([], Criteria(select=(VmSelector(vcenter="vc2"),)), [], vcenters) == ("vc2",)


FOLDERS = st.sampled_from(["DC0", "DC0/Linux", "DC0/Linux/web", "DC1"])
TAGS = st.sampled_from(["Backup/gold", "Backup/never", "Owner/ops"])
KEYS = st.sampled_from(["scsi0:0", "scsi0:1", "sata0:0"])
SELECTORS = st.builds(VmSelector, vm=st.sampled_from(["*", "a", "b*"]), folder=st.none() | FOLDERS) | st.builds(
    VmSelector, tag=TAGS, cluster=st.none() | st.sampled_from(["C0", "C1"])
)


@st.composite
def inventories(draw: st.DrawFn) -> list[Candidate]:
    made = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "b2", "c", "d"]), unique=True)):
        keys = draw(st.lists(KEYS, max_size=3, unique=True))
        disks = tuple(draw(st.sampled_from([disk, independent]))(key) for key in keys)
        identity = VmIdentity(vm_id=draw(st.sampled_from([f"id-{name}", "id-shared"])), name=name)
        facts = {
            "folder": draw(FOLDERS),
            "cluster": draw(st.sampled_from(["C0", "C1"])),
            "tags": tuple(draw(st.lists(TAGS, unique=True))),
            "template": draw(st.booleans()),
            "problem": draw(st.none() | st.just("its host is away")),
        }
        made.append(Candidate(identity, disks, vcenter="vc1", ref=name, **facts))
    return made


CRITERIA = st.builds(
    Criteria,
    select=st.lists(SELECTORS, max_size=2).map(tuple),
    exclude=st.lists(SELECTORS, max_size=2).map(tuple),
    exclude_disks=st.lists(KEYS | st.sampled_from(["independent", ">1GiB", "b*/scsi0:0"]), max_size=2).map(tuple),
    templates=st.booleans(),
)


@given(st.lists(st.sampled_from(["*", "a", "b*", "zz"]), max_size=2), CRITERIA, inventories())
def test_every_vm_that_belongs_to_a_job_is_planned_or_named_and_no_other_is(
    patterns: list[str], criteria: Criteria, known: list[Candidate]
) -> None:
    planned = plan(patterns, criteria, known)
    wanted = {one.identity.name for one in known if belongs(one, patterns, criteria)}
    of_vms = [one.name for one in planned.unplanned if one.vm_id is not None]
    assert sorted(names(planned) + of_vms) == sorted(wanted)
    assert len({one.identity.vm_id for one in planned.vms}) == len(planned.vms)
    by_name = {one.identity.name: one for one in known}
    exclusions = [DiskExclusion.parse(text) for text in criteria.exclude_disks]
    for one in planned.vms:
        before = by_name[one.identity.name]
        assert one.disks
        wished = [found for found in before.disks if not any(excludes(each, before, found) for each in exclusions)]
        assert {found.key for found in one.disks} == {found.identity.key for found in wished if not found.obstacle}
        uncovered = [found.identity.key for found in wished if found.obstacle]
        assert all(f"{key} is left out" in (one.warning or "") for key in uncovered)
    assert planned.vms or planned.unplanned or not (patterns or criteria.select)


@given(st.permutations(["a", "b", "c"]), CRITERIA)
def test_the_order_in_which_vms_are_found_changes_nothing(order: list[str], criteria: Criteria) -> None:
    known = [vm(name, tags=("Backup/gold",) if name == "b" else ()) for name in order]
    assert plan(["*"], criteria, known) == plan(["*"], criteria, sorted(known, key=lambda one: one.identity.name))
