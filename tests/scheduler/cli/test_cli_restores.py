"""Restore points, restores and the upkeep of repositories, as commands ask for them."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from scheduler.state.models import Point
from scheduler.state.store import open_state
from tests.scheduler.cli.conftest import Program, serving
from tests.scheduler.conftest import World


@pytest.fixture
def backed_up(applied: Program, world: World) -> Program:
    """The command, with a proxy and a restore point of every VM."""
    world.fleet.join("proxy-1")
    world.fleet.join("server", datastores={})
    world.fleet.join("writer", datastores={}, credentials={"main": "write"})
    with serving(world):
        assert applied("job", "start", "nightly", "--wait", "--json").code == 0
    return applied


def test_points_are_listed_and_shown(backed_up: Program) -> None:
    points = backed_up("point", "list", "--json").json
    assert [(point["vm"], point["job"], len(point["disks"])) for point in points] == [
        ("app01", "nightly", 1),
        ("web01", "nightly", 2),
    ]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", points[0]["created"])
    shown = backed_up("point", "show", "web01")
    assert re.search(r"^scsi0:1 +1\.0 GiB", shown.out, re.MULTILINE)
    assert f"scheduler restore disk --vm web01 --point {points[1]['point']}" in " ".join(shown.err.split())
    missing = backed_up("point", "show", "web01", "20200101T000000Z-00000000")
    assert missing.code == 4
    assert "restore point '20200101T000000Z-00000000' of VM 'web01'" in missing.err


def test_of_a_point_and_its_copies_the_original_is_meant_unless_told(backed_up: Program, world: World) -> None:
    second = ("--location", "/a", "--credential", "second")
    assert backed_up("repository", "add", "a-second", *second).code == 0
    copying = ("--kind", "copy", "--from", "main", "--repository", "a-second")
    assert backed_up("job", "create", "offsite", *copying).code == 0
    state = open_state(world.url)
    with state.write() as session:
        original = session.scalars(select(Point).where(Point.vm_name == "web01")).one()
        kept = {key: getattr(original, key) for key in ("vm_id", "vm_name", "point", "created_at", "disks")}
        session.add(Point(repository="a-second", job="offsite", **kept))
    state.close()
    point = str(kept["point"])

    shown = backed_up("point", "show", "web01", "--json").json
    assert (shown["repository"], shown["also_in"]) == ("main", ["a-second"])
    copy = backed_up("point", "show", "web01", point, "--repository", "a-second")
    assert f"--point {point} --repository a-second --disk" in " ".join(copy.err.split())
    for words in (("point", "delete"), ("point", "pin"), ("point", "unpin")):
        refused = backed_up(*words, "web01", point)
        assert refused.code == 3
        assert "it is in repositories a-second, main. Say which is meant with --repository." in refused.err
    restoring = ("restore", "disk", "--vm", "web01", "--disk", "scsi0:1", "--to", "/r/x", "--json")
    assert backed_up(*restoring).json["repository"] == "main"
    told = backed_up(*restoring, "--repository", "a-second")
    assert "proxy 'server' can't restore from repository 'a-second'" in told.err
    assert backed_up("point", "pin", "web01", point, "--repository", "a-second", "--json").json["pinned"]


def test_a_restore_is_written_by_the_server_s_own_proxy_unless_told(backed_up: Program, world: World) -> None:
    with serving(world):
        ended = backed_up(
            "restore", "disk", "--vm", "web01", "--disk", "scsi0:1", "--to", "/r/x", "--wait", "--json"
        )
        assert ended.code == 0
        assert (ended.json["state"], ended.json["proxy"], ended.json["path"]) == (
            "succeeded",
            "server",
            "/r/x",
        )
        named = backed_up(
            "restore",
            "disk",
            "--vm",
            "web01",
            "--disk",
            "scsi0:0",
            "--proxy",
            "proxy-1",
            "--to",
            "/r/y",
            "--wait",
        )
    assert named.code == 0
    assert re.search(r"^written to +/r/y on proxy-1$", named.out, re.MULTILINE)
    assert [restore["path"] for restore in backed_up("restore", "list", "--json").json] == [
        "/r/y",
        "/r/x",
    ]


def test_a_restore_that_fails_ends_with_the_code_of_its_failure(backed_up: Program, world: World) -> None:
    world.fleet.failures["disk.restore web01 scsi0:0"] = 99
    with serving(world):
        ended = backed_up("restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", "/r/x", "--wait")
    assert ended.code == 8
    assert "the datastore did not answer" in ended.out
    assert re.search(r"^to +/r/x on server$", ended.out, re.MULTILINE)


def test_of_vms_that_share_a_name_one_has_to_be_chosen(backed_up: Program, world: World) -> None:
    state = open_state(world.url)
    with state.write() as session:
        original = session.query(Point).filter_by(vm_name="web01").one()
        session.add(
            Point(
                repository=original.repository, vm_id="clone", vm_name="web01", point="20991231T000000Z-00000000",
                job="", created_at=original.created_at + 1, disks=original.disks,
            )
        )  # fmt: skip
        vm_id, point = original.vm_id, original.point
    state.close()
    assert len(backed_up("point", "list", "--vm", "web01", "--json").json) == 2
    refused = backed_up("restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", "/r/x")
    assert refused.code == 3
    assert "VM 'web01': 2 VMs have that name" in refused.err
    assert f"{vm_id} (newest point {point})" in refused.err
    for chosen in (["--vm", vm_id], ["--vm", "web01", "--point", point]):
        asked = backed_up("restore", "disk", *chosen, "--disk", "scsi0:0", "--to", "/r/x", "--json")
        assert (asked.code, asked.json["point"]) == (0, point)


REFUSED_RESTORES = {
    "--disk scsi9:9": (4, "disk 'scsi9:9' of VM 'web01'"),
    "--disk scsi0:0 --point x": (4, "restore point 'x' of VM 'web01'"),
    "--disk scsi0:0 --proxy proxy-7": (4, "proxy 'proxy-7': no proxy of that name"),
    "--disk scsi0:0 --proxy writer": (6, "proxy 'writer' can't restore from repository 'main'"),
}


def test_a_restore_that_can_not_be_is_refused(backed_up: Program) -> None:
    for options, (code, message) in REFUSED_RESTORES.items():
        refused = backed_up("restore", "disk", "--vm", "web01", "--to", "/r/x", *options.split())
        assert (refused.code, refused.out) == (code, "")
        assert message in refused.err
    assert "it holds only the write key 'main'" in refused.err
    assert backed_up("restore", "list", "--json").json == []


def test_a_restore_without_waiting_is_recorded_and_can_be_cancelled(backed_up: Program) -> None:
    asked = backed_up("restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", "/r/x", "--json")
    assert asked.json["state"] == "requested"
    assert "No `scheduler serve` is running: it starts once it does." in asked.err
    restore_id = asked.json["restore"]
    assert "requested" in backed_up("restore", "show", restore_id).out
    assert f"Restore {restore_id} is being cancelled." in backed_up("restore", "cancel", restore_id[:-2]).err


def test_a_restore_that_has_ended_is_not_said_to_be_cancelled(backed_up: Program, world: World) -> None:
    with serving(world):
        ended = backed_up(
            "restore", "disk", "--vm", "web01", "--disk", "scsi0:0", "--to", "/r/x", "--wait", "--json"
        )
    refused = backed_up("restore", "cancel", ended.json["restore"])
    assert (ended.code, refused.code) == (0, 9)
    assert "it has ended already: succeeded" in refused.err


def test_a_rescan_brings_the_catalogue_back(backed_up: Program, world: World) -> None:
    state = open_state(world.url)
    with state.write() as session:
        session.query(Point).delete()
    state.close()
    assert backed_up("point", "list", "--json").json == []
    with serving(world):
        rescanned = backed_up("repository", "rescan", "main")
    assert rescanned.code == 0
    assert "succeeded: 2 restore points, 2 of them new; 0 gone" in rescanned.out
    (shown,) = backed_up("repository", "list", "--json").json
    assert (shown["points"], shown["vms"], shown["proxies"]) == (2, 2, ["proxy-1", "server", "writer"])


def test_a_check_says_that_all_is_sound_and_is_remembered(backed_up: Program, world: World) -> None:
    with serving(world):
        checked = backed_up("repository", "check", "main", "--json")
    assert checked.code == 0
    assert (checked.json["state"], checked.json["damage"], checked.json["packs"]) == ("succeeded", [], 1)
    assert "sound, 1 pack, 1 B read" in backed_up("repository", "list").out


def test_a_check_that_finds_damage_names_it_and_ends_with_5(backed_up: Program, world: World) -> None:
    world.fleet.repository.damage = ("packs/ab/cd: its checksum is wrong; needed by web01",)
    with serving(world):
        checked = backed_up("repository", "check", "main")
    assert checked.code == 5
    assert "1 problem found" in checked.out
    assert "  packs/ab/cd: its checksum is wrong; needed by web01" in checked.out.splitlines()
