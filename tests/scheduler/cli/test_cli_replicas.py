"""Jobs that replicate, and their replicas, as a user declares, looks at and fails over to them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy_worker.contract.names import TransportMode
from tests.scheduler.cli.conftest import Program, serving
from tests.scheduler.conftest import World
from tests.scheduler.two_sites import machine

IN_PLACE = (TransportMode.DIRECT_STORAGE,)
AWAY = ("job", "create", "away", "--kind", "replication", "--vm", "app*")
FAR = """
[[site]]
name = "remote"
[[datastore]]
name = "ds2"
site = "remote"
"""


@pytest.fixture
def two_sites(applied: Program, configured: Path) -> Program:
    """A fleet with a second datastore."""
    file = configured / "fleet.toml"
    file.write_text(file.read_text() + FAR)
    assert applied("apply", "-f", str(file)).code == 0
    return applied


def test_a_job_that_replicates_is_created_shown_and_exported(two_sites: Program, tmp_path: Path) -> None:
    options = ("--network", "VM Network=Remote", "--map", "app02=app02-standby", "--replica-points", "14")
    created = two_sites(*AWAY, "--target-datastore", "ds2", "--seed", "main", "--target-proxy", "far-*", *options)
    assert created.code == 0, created.err
    assert created.err.startswith("warning: job 'away', key 'replica.proxies': no proxy 'far-*' is declared")

    replica = two_sites("job", "show", "away", "--json").json["replica"]
    assert (replica["datastore"], replica["points"], replica["seed"]) == ("ds2", 14, "main")
    assert replica["networks"] == {"VM Network": "Remote"}
    said = two_sites("job", "show", "away").out
    assert "on datastore ds2, named …_replica" in said
    assert "14 restore points of each replica" in said
    exported = two_sites("export").out
    (tmp_path / "exported.toml").write_text(exported)
    assert two_sites("apply", "-f", str(tmp_path / "exported.toml")).out == "Nothing to change.\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "it isn't said where the replicas go"),
        (("--target-datastore", "ds3"), "datastore 'ds3' is not declared"),
        (("--target-datastore", "ds2", "--network", "Remote"), "it isn't of the form A=B"),
        (("--target-datastore", "ds2", "--repository", "main"), "expected no key 'repository'"),
        (("--target-datastore", "ds2", "--suffix", "/x"), "replica.suffix"),
        (("--target-datastore", "ds2", "--map", "app01=../../etc"), "replica.mapped"),
        (("--target-datastore", "ds2", "--map", "app01=.hidden"), "replica.mapped"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(
    two_sites: Program, options: tuple[str, ...], said: str
) -> None:
    refused = two_sites(*AWAY, *options)
    assert refused.code != 0
    assert said in refused.err


def test_options_of_replicas_are_for_replication_only(applied: Program) -> None:
    refused = applied("job", "create", "x", "--vm", "a", "--repository", "main", "--suffix", "_x")
    assert "only --kind replication makes replicas" in refused.err
    missing = applied("job", "create", "x", "--vm", "a")
    assert "the key 'repository' is missing" in missing.err


def test_a_replica_is_failed_over_to_and_back(two_sites: Program, world: World) -> None:
    world.fleet.inventory = {"ds1": (machine("app01", "scsi0:0"),), "ds2": ()}
    world.fleet.join("near", datastores={"ds1": IN_PLACE}, receives=True)
    world.fleet.join("far", site="remote", datastores={"ds2": IN_PLACE}, receives=True)
    again = ("--retries", "50", "--retry-wait", "0")
    assert two_sites(*AWAY, "--target-datastore", "ds2", *again).code == 0
    assert two_sites("replica", "list").err.startswith("There are no replicas.")
    with serving(world):
        run = two_sites("job", "start", "away", "--wait", "--json")
        assert run.code == 0, run.err
        (disk,) = run.json["disks"]
        assert (disk["proxy"], disk["target_proxy"], run.json["target"]) == ("near", "far", "ds2")
        assert "near → far" in two_sites("run", "show", run.json["run"]).out
        report = two_sites("run", "report", run.json["run"]).out
        assert re.search(
            r"to datastore ds2\n(.*\n)+VMs replicated +1 of 1\n(.*\n)+moved +1 disk from near to far", report
        )
        unknown = two_sites("replica", "failover", "app01", "--point", "yesterday")
        assert (unknown.code, "it has none of that name" in unknown.err) == (4, True)
        assert two_sites("replica", "undo", "app01").code == 9

        failed_over = two_sites("replica", "failover", "app01", "--wait", "--json")
        assert (failed_over.code, failed_over.json["state"]) == (0, "failed over")
        assert failed_over.json["runs_from"] == failed_over.json["points"][0]["point"]
        refused = two_sites("job", "start", "away", "--wait")
        assert refused.code == 1
        assert "its replica app01_replica is failed over" in refused.out
        back = two_sites("replica", "failback", "app01_replica", "--wait")
        assert back.code == 0, back.out + back.err
        committed = two_sites("replica", "commit", "app01", "--wait")
        assert "standby" in committed.out
    (listed,) = two_sites("replica", "list", "--json").json
    assert (listed["name"], listed["state"], len(listed["points"])) == ("app01_replica", "standby", 2)
    assert "app01_replica" in two_sites("replica", "list").out
    assert two_sites("replica", "show", "nobody").code == 4

    idle = two_sites("replica", "cancel", "app01")
    assert (idle.code, "nothing that was asked for it is under way" in idle.err) == (9, True)
    needed = two_sites("replica", "forget", "app01")
    assert (needed.code, "scheduler job delete away" in needed.err) == (9, True)
    assert two_sites("job", "delete", "away").code == 0
    forgotten = two_sites("replica", "forget", "app01")
    assert forgotten.out == "Replica app01_replica is forgotten.\n"
    assert "folder app01_replica of datastore ds2, with its restore points (2)" in forgotten.err
    assert two_sites("replica", "list", "--json").json == []
