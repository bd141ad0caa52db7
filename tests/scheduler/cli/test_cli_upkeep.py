"""Points pinned and removed, policies shown before they act, repositories collected, as people type it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy_worker.contract.offers import UseOffer
from proxy_worker.contract.using import PointBoot, PointBootResult
from tests.scheduler.cli.conftest import Program, serving
from tests.scheduler.conftest import World


@pytest.fixture
def backed_up(applied: Program, world: World) -> Program:
    """With one restore point of each VM."""
    world.fleet.join("proxy-1")
    with serving(world):
        assert applied("job", "start", "nightly", "--wait", "--json").code == 0
    return applied


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline


def points(program: Program) -> list[str]:
    return [point["point"] for point in program("point", "list", "--vm", "web01", "--json").json]


def test_a_point_is_pinned_unpinned_and_removed(backed_up: Program, world: World) -> None:
    [point] = points(backed_up)
    assert "stays until it is unpinned" in backed_up("point", "pin", "web01", point).err
    assert backed_up("point", "show", "web01", "--json").json["pinned"]

    refused = backed_up("point", "delete", "web01", point)
    assert refused.code == 9
    assert "it is pinned" in refused.err

    assert backed_up("point", "unpin", "web01", point, "--json").json["pinned"] is False
    with serving(world):
        assert backed_up("point", "delete", "web01", point, "--json").json["point"] == point
        until(lambda: point not in backed_up("point", "list").out)
    assert backed_up("point", "delete", "web01", point).code == 4


def test_restore_points_and_disks_are_completed_of_the_vm_that_the_line_names(
    backed_up: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("_SCHEDULER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("scheduler", *words)) + " ")
        monkeypatch.setenv("COMP_CWORD", str(len(words) + 1))
        offers = backed_up().out.split()
        monkeypatch.delenv("_SCHEDULER_COMPLETE")
        return offers

    assert offered("point", "pin", "web01") == points(backed_up)
    assert offered("restore", "disk", "--vm", "web01", "--point") == points(backed_up)
    assert offered("restore", "disk", "--vm", "web01", "--disk") == ["scsi0:0", "scsi0:1"]
    assert offered("restore", "disk", "--vm", "app01", "--disk") == ["scsi0:0"]
    assert len(offered("restore", "disk", "--point")) == 2


def test_a_vm_is_started_from_a_point_which_says_so_from_then_on(backed_up: Program, world: World) -> None:
    assert "no proxy that is running has QEMU" in _waits(backed_up, world)
    world.fleet.join("proxy-1", use=UseOffer(boots=True))
    asked: list[PointBoot] = []

    def boot(body: PointBoot) -> PointBootResult:
        asked.append(body)
        said = ("Debian GNU/Linux 12 web01 ttyS0", "web01 login:")
        return PointBootResult(
            prompt="web01 login:", why="", machine="bios, 1 CPU", last_lines=said, duration_seconds=12.0
        )

    world.fleet.answers[PointBoot] = boot
    with serving(world):
        booted = backed_up("point", "boot", "web01", "--minutes", "2", "--prompt", "login:")
    assert (booted.code, "'web01 login:' after" in booted.out, "GNU/Linux" in booted.out) == (0, True, True)
    assert (asked[-1].wishes.prompt, asked[-1].wishes.limit_s) == ("login:", 120.0)
    shown = backed_up("point", "show", "web01", "--json").json
    assert (shown["vm_started"] is not None, shown["start_problem"]) == (True, None)

    world.fleet.answers[PointBoot] = lambda _: PointBootResult(
        prompt=None, why="it said 'Kernel panic'", machine="bios", last_lines=(), duration_seconds=1.0
    )
    with serving(world):
        failed = backed_up("point", "boot", "web01", "--json")
    assert (failed.code, failed.json["state"]) == (1, "succeeded")
    assert "no login prompt: it said 'Kernel panic'" in failed.json["outcome"]
    assert "without a login prompt: it said 'Kernel panic'" in backed_up("point", "show", "web01").out
    proof = backed_up("repository", "show", "main", "--json").json["proof"]
    assert (proof["booted"], proof["without_prompt"]) == (0, 1)


def _waits(program: Program, world: World) -> str:
    """What an asked start waits for."""
    with serving(world):
        assert program("point", "boot", "web01", "--no-wait").code == 0
        until(lambda: "QEMU" in program("status").out)
        return program("status").out


def test_job_show_says_what_the_next_run_removes_and_why(backed_up: Program) -> None:
    shown = backed_up("job", "show", "nightly")
    assert "the newest 7; never fewer than 1" in shown.out
    assert "The next run removes no restore point" in shown.out

    made = ("job", "create", "short", "--vm", "web01", "--repository", "main", "--keep-points", "1", "--json")
    assert backed_up(*made).json["retention"]["points"] == 1


def test_what_the_next_run_removes_is_listed(applied: Program, world: World, configured: Path) -> None:
    fleet = configured / "fleet.toml"
    fleet.write_text(fleet.read_text() + "retention = { points = 1 }\n")
    assert applied("apply", "-f", str(fleet)).code == 0
    assert "retention = {points = 1}" in applied("export").out
    world.fleet.join("proxy-1")
    with serving(world):
        assert applied("job", "start", "nightly", "--wait", "--json").code == 0

    [point] = points(applied)
    foreseen = {
        one["point"]: one for one in applied("job", "show", "nightly", "--json").json["points_after_next_run"]
    }
    assert (foreseen[point]["kept"], foreseen[point]["why"]) == (False, "older than what is kept: the newest 1")
    assert point in applied("job", "show", "nightly").out


def test_a_repository_is_proven_and_says_which_points_wait_for_repair(backed_up: Program, world: World) -> None:
    assert "not yet" in backed_up("point", "list").out
    with serving(world):
        proven = backed_up("repository", "prove", "main")
    assert proven.code == 5
    assert "1 problem found" in proven.out
    assert "mended packs/01/01" in proven.out

    listed = backed_up("point", "list", "--json").json
    [damaged] = [point for point in listed if point["damaged"]]
    assert {point["last_proven"] for point in listed if not point["damaged"]} == {"2027-01-15T08:00:00Z"}
    shown = backed_up("repository", "show", "main")
    assert "1 restore point damaged" in shown.out
    assert f"waits for repair: {damaged['vm']} {damaged['point']}" in shown.out
    as_json = backed_up("repository", "show", "main", "--json").json
    assert as_json["damaged"] == [{"vm": damaged["vm"], "point": damaged["point"]}]
    assert as_json["last_proof"]["state"] == "succeeded"
    assert "damaged" in backed_up("point", "show", damaged["vm"]).out


def test_when_and_how_fast_a_repository_is_proven_is_declared(applied: Program, configured: Path) -> None:
    fleet = configured / "fleet.toml"
    said = 'prove = { days = 7, cron = "0 3 * * *", timezone = "Europe/Berlin", mib_per_second = 50 }'
    fleet.write_text(fleet.read_text().replace("[[repository]]\n", f"[[repository]]\n{said}\n"))
    assert applied("apply", "-f", str(fleet)).code == 0
    assert (
        'prove = {days = 7, cron = "0 3 * * *", timezone = "Europe/Berlin", mib_per_second = 50}'
        in applied("export").out
    )

    fleet.write_text(fleet.read_text().replace("prove =", 'linked = ["nowhere"]\nprove ='))
    refused = applied("apply", "-f", str(fleet))
    assert refused.code == 3
    assert "repository 'nowhere' is not declared" in refused.err


def test_a_repository_is_collected(backed_up: Program, world: World) -> None:
    assert "Requested; `scheduler repository list` shows" in backed_up("repository", "collect", "main").err
    with serving(world):
        collected = backed_up("repository", "collect", "main", "--wait")
        as_json = backed_up("repository", "collect", "main", "--wait", "--json").json
    assert collected.code == 0
    assert "freed 0 B" in collected.out
    assert "kept 1 pack, 1 B: restore points need all of them" in collected.out
    assert (as_json["state"], as_json["freed_bytes"]) == ("succeeded", 0)
    assert backed_up("repository", "list", "--json").json[0]["last_collection"]["state"] == "succeeded"
    assert (
        "the last collection kept 1 pack, 1 B: restore points need all"
        in backed_up("repository", "show", "main").out
    )
