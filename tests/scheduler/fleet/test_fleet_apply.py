"""Applying a fleet makes the database say exactly what the file says; exporting is the way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_worker.contract.names import CompressionLevel, Quiesce
from scheduler.fleet import models
from scheduler.fleet.changes import Action, changes
from scheduler.fleet.reading import parse_fleet
from scheduler.fleet.stored import apply_fleet, stored_fleet
from scheduler.fleet.writing import write_fleet
from scheduler.planning.copies import CopyTerms, PointChoice
from scheduler.planning.criteria import VmSelector
from scheduler.state.declared import DatastoreKind, Job, JobKind, Priority
from scheduler.state.errors import RunActiveError
from scheduler.state.models import Point, Run, RunState
from scheduler.state.store import State, open_state

ZONES = ("UTC", "Europe/Berlin", "America/New_York")
CRONS = ("0 22 * * *", "*/5 * * * *", "0 0 1 * MON-FRI")

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}", fullmatch=True)
slots = st.none() | st.integers(1, 256)
modes = st.sampled_from(models.ModeChoice)
vm_names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
disks = st.lists(
    st.builds(models.VmDisk, key=st.sampled_from(("scsi0:0", "scsi0:1", "ide0:0")), nbd_uri=st.just("nbd://h/x")),
    min_size=1,
    max_size=3,
    unique_by=lambda disk: disk.key,
).map(tuple)
schedules = st.none() | st.builds(models.Schedule, cron=st.sampled_from(CRONS), timezone=st.sampled_from(ZONES))
retries = st.builds(models.Retries, count=st.integers(0, 100), wait_minutes=st.floats(0, 10_080))


patterns = st.none() | vm_names
exclusions = st.sampled_from(("scsi0:0", "independent", ">500GiB", "db*/scsi0:1", "a/b/>1.5TiB"))
thumbprints = st.none() | st.sampled_from((20, 32)).flatmap(
    lambda length: st.binary(min_size=length, max_size=length).map(lambda digest: digest.hex(":").upper())
)


def unique_names(kind: st.SearchStrategy[str] = names, least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(kind, min_size=least, max_size=3, unique=True)


def selectors(vcenters: list[str]) -> st.SearchStrategy[tuple[VmSelector, ...]]:
    conditions = dict.fromkeys(("vm", "folder", "pool", "cluster", "datastore", "attribute"), patterns)
    conditions["tag"] = patterns.map(lambda pattern: pattern and f"Backup/{pattern}")
    one = st.fixed_dictionaries(
        conditions | {"vcenter": st.none() | st.sampled_from(vcenters) if vcenters else st.none()}
    ).map(lambda keys: {key: value for key, value in keys.items() if value is not None})
    return st.lists(one.filter(bool).map(VmSelector.model_validate), max_size=2).map(tuple)


@st.composite
def copies(draw: st.DrawFn, repositories: list[str]) -> tuple[models.Job, ...]:
    """A job that copies, where there are two repositories to copy between."""
    if len(repositories) < 2:
        return ()
    terms = st.builds(
        CopyTerms,
        repository=st.just(repositories[0]),
        jobs=st.sampled_from([("*",), ("a", "b*")]),
        points=st.sampled_from(PointChoice),
    )
    job = models.Job(
        name="copy-of-all",
        kind=JobKind.COPY,
        vms=tuple(draw(st.lists(vm_names, max_size=2))),
        copy_from=draw(terms),
        repository=repositories[1],
        schedule=draw(schedules),
        retries=draw(retries),
    )
    return (job,)


@st.composite
def fleets(draw: st.DrawFn) -> models.Fleet:
    sites = draw(unique_names(least=1))
    datastores, repositories = draw(unique_names()), draw(unique_names(least=1))
    vcenters = draw(unique_names())
    of_vcenters = [name for name in draw(unique_names()) if vcenters and name not in datastores]
    some_datastores = st.none() | st.lists(st.sampled_from(datastores or ["none"]), max_size=2).map(
        lambda chosen: tuple(name for name in chosen if name in datastores)
    )
    site = st.sampled_from(sites)
    return models.Fleet(
        site=tuple(models.Site(name=name) for name in sites),
        vcenter=tuple(
            models.Vcenter(
                name=name,
                host=draw(names),
                port=draw(st.integers(1, 65_535)),
                user=draw(vm_names),
                credential=draw(names),
                thumbprint=draw(thumbprints),
                max_sessions=draw(st.integers(1, 64)),
                site=draw(site),
            )
            for name in vcenters
        ),
        datastore=(
            *(models.Datastore(name=name, site=draw(site)) for name in datastores),
            *(
                models.Datastore(
                    name=name,
                    kind=DatastoreKind.VSPHERE,
                    site=draw(site),
                    vcenter=draw(st.sampled_from(vcenters)),
                    vsphere_name=draw(st.sampled_from([None, f"{name} (1)"])),
                )
                for name in of_vcenters
            ),
        ),
        repository=tuple(
            models.Repository(
                name=name,
                location="/backup/" + draw(vm_names),
                site=draw(site),
                credential=draw(st.none() | names),
                proxies=draw(st.none() | unique_names().map(tuple)),
                max_concurrent_tasks=draw(slots),
            )
            for name in repositories
        ),
        proxy=tuple(
            models.Proxy(
                name=name,
                site=draw(st.none() | site),
                max_concurrent_tasks=draw(slots),
                transport_mode=draw(modes),
                datastores=draw(some_datastores),
                enabled=draw(st.booleans()),
            )
            for name in draw(unique_names())
        ),
        vm=tuple(models.Vm(name=name, disks=draw(disks)) for name in draw(unique_names(vm_names))),
        job=tuple(
            models.Job(
                name=name,
                vms=tuple(draw(st.lists(vm_names, min_size=1, max_size=2))),
                select=draw(selectors(vcenters)),
                exclude=draw(selectors(vcenters)),
                exclude_disks=tuple(draw(st.lists(exclusions, max_size=2))),
                templates=draw(st.booleans()),
                quiesce=draw(st.sampled_from(Quiesce)),
                repository=draw(st.sampled_from(repositories)),
                level=draw(st.sampled_from(CompressionLevel)),
                transport_mode=draw(modes),
                failover_to_network=draw(st.booleans()),
                priority=draw(st.sampled_from(Priority)),
                schedule=draw(schedules),
                retries=draw(retries),
                enabled=draw(st.booleans()),
            )
            for name in draw(unique_names())
        )
        + draw(copies(repositories)),
    )


SMALL = models.Fleet(
    site=(models.Site(name="primary"),),
    repository=(models.Repository(name="main", location="/backup", site="primary", credential="main"),),
    job=(models.Job(name="nightly", vms=("web*",), repository="main"),),
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    path = tmp_path_factory.mktemp("state") / "scheduler.db"
    opened = open_state(f"sqlite:///{path}", migrate=True)
    yield opened
    opened.close()


def apply(state: State, fleet: models.Fleet, *, dry_run: bool = False) -> list[tuple[str, str, str]]:
    with state.write() as session:
        return [
            (change.action, change.kind, change.name) for change in apply_fleet(session, fleet, dry_run=dry_run)
        ]


def export(state: State) -> str:
    with state.read() as session:
        return write_fleet(stored_fleet(session))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=fleets(), second=fleets())
def test_any_fleet_can_follow_any_other_and_its_export_changes_nothing(
    state: State, first: models.Fleet, second: models.Fleet
) -> None:
    apply(state, first)
    apply(state, second)
    assert apply(state, second) == []
    assert apply(state, parse_fleet(export(state), "export")) == []


@settings(max_examples=100, deadline=None)
@given(fleet=fleets())
def test_what_is_written_is_read_back_equal(fleet: models.Fleet) -> None:
    assert parse_fleet(write_fleet(fleet), "export") == fleet


@settings(max_examples=100, deadline=None)
@given(current=fleets(), wanted=fleets())
def test_every_difference_is_named_once_and_equal_fleets_have_none(
    current: models.Fleet, wanted: models.Fleet
) -> None:
    needed = changes(current, wanted)
    assert len({(change.kind, change.name) for change in needed}) == len(needed)
    assert all(change.keys for change in needed if change.action is Action.CHANGED)
    assert changes(wanted, wanted) == ()


def test_what_changed_is_shown_key_by_key(state: State) -> None:
    apply(state, SMALL)
    job = SMALL.job[0].model_copy(update={"level": CompressionLevel.HIGH, "enabled": False})
    with state.write() as session:
        (change,) = apply_fleet(session, SMALL.model_copy(update={"job": (job,)}))
    assert (change.action, change.name) == (Action.CHANGED, "nightly")
    assert [(key.key, key.old, key.new) for key in change.keys] == [
        ("level", "optimal", "high"),
        ("enabled", True, False),
    ]


def test_a_dry_run_names_the_changes_and_makes_none(state: State) -> None:
    apply(state, models.Fleet())
    expected = [("added", "site", "primary"), ("added", "repository", "main"), ("added", "job", "nightly")]
    assert apply(state, SMALL, dry_run=True) == expected
    assert apply(state, SMALL) == expected


def test_what_others_refer_to_is_removed_last(state: State) -> None:
    apply(state, SMALL)
    assert apply(state, models.Fleet()) == [
        ("removed", "job", "nightly"),
        ("removed", "repository", "main"),
        ("removed", "site", "primary"),
    ]


def test_a_change_keeps_what_the_scheduler_itself_noted_of_a_job(state: State) -> None:
    apply(state, SMALL)
    with state.write() as session:
        session.get_one(Job, "nightly").scheduled_after = 1234.0
    apply(state, SMALL.model_copy(update={"job": (SMALL.job[0].model_copy(update={"enabled": False}),)}))
    with state.read() as session:
        assert session.get_one(Job, "nightly").scheduled_after == 1234.0


def test_a_job_with_a_run_under_way_is_not_removed_and_nothing_else_happens(state: State) -> None:
    apply(state, SMALL)
    with state.write() as session:
        session.add(run_of("nightly", RunState.RUNNING))
    with pytest.raises(RunActiveError, match="scheduler run cancel run-1"):
        apply(state, models.Fleet())
    assert apply(state, SMALL) == []
    with state.write() as session:
        session.get_one(Run, "run-1").state = RunState.SUCCEEDED
    apply(state, models.Fleet())
    with state.read() as session:
        assert session.get_one(Run, "run-1").job == "nightly", "history stays"


def test_the_catalogue_forgets_a_removed_repository(state: State) -> None:
    apply(state, SMALL)
    with state.write() as session:
        session.add(
            Point(repository="main", vm_id="a", point="p", vm_name="web01", job="nightly", created_at=1.0, disks=())
        )
    apply(state, models.Fleet())
    with state.read() as session:
        assert session.get(Point, ("main", "a", "p")) is None


def run_of(job: str, run_state: RunState) -> Run:
    return Run(
        id="run-1",
        job=job,
        state=run_state,
        created_at=1.0,
        repository="main",
        level=CompressionLevel.OPTIMAL,
        transport_mode="automatic",
        failover_to_network=True,
        priority=Priority.REGULAR,
        retry_count=3,
        retry_wait_seconds=600.0,
        vms=("web*",),
    )


def test_the_export_is_laid_out_for_people(state: State, tmp_path: Path) -> None:
    apply(state, SMALL)
    assert '[[job]]\nname = "nightly"\nvms = ["web*"]\nrepository = "main"\n' in export(state)
    assert "optimal" not in export(state), "defaults are left out"
