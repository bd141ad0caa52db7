"""Jobs, repositories and proxies, one by one; and every name and option that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_worker.ledger import Ledger
from tests.scheduler.cli.conftest import Program, serving
from tests.scheduler.conftest import World


def test_a_job_is_created_shown_and_deleted(applied: Program) -> None:
    assert (
        applied("job", "create", "hourly", "--vm", "web*", "--repository", "main", "--cron", "0 * * * *").code == 0
    )
    shown = applied("job", "show", "hourly", "--json").json
    assert (shown["vms"], shown["schedule"]) == (["web*"], {"cron": "0 * * * *", "timezone": "UTC"})
    assert shown["next_start"].endswith(":00:00Z")
    assert "transport mode  automatic, failover to network" in applied("job", "show", "hourly").out
    assert applied("job", "delete", "hourly").code == 0
    assert [job["name"] for job in applied("job", "list", "--json").json] == ["nightly"]


def test_a_copy_job_is_created_shown_and_exported(applied: Program, tmp_path: Path) -> None:
    assert applied("repository", "add", "second", "--location", "/second", "--credential", "second").code == 0
    copying = ("--kind", "copy", "--from", "main", "--from-job", "night*", "--points", "all")
    created = applied("job", "create", "offsite", *copying, "--repository", "second", "--keep-points", "3")
    assert created.code == 0, created.err

    shown = applied("job", "show", "offsite", "--json").json
    assert (shown["kind"], shown["copy_from"], shown["vms"]) == (
        "copy",
        {"repository": "main", "jobs": ["night*"], "points": "all"},
        [],
    )
    said = applied("job", "show", "offsite").out
    assert "copies from  main" in said
    assert "after all others" in said
    assert "quiesce" not in said
    exported = applied("export").out
    assert 'copy_from = {repository = "main", jobs = ["night*"], points = "all"}' in exported
    (tmp_path / "exported.toml").write_text(exported)
    assert applied("apply", "-f", str(tmp_path / "exported.toml")).out == "Nothing to change.\n"


def test_a_disabled_job_has_no_next_start(applied: Program) -> None:
    assert applied("job", "disable", "nightly").err == "Job nightly is disabled.\n"
    assert "disabled" in applied("job", "list").out
    assert applied("job", "show", "nightly", "--json").json["next_start"] is None
    assert applied("job", "enable", "nightly").code == 0
    assert applied("job", "show", "nightly", "--json").json["next_start"] is not None


def test_the_first_repository_brings_its_site(scheduler: Program) -> None:
    assert scheduler("repository", "add", "main", "--location", "/backup", "--credential", "main").code == 0
    (shown,) = scheduler("repository", "list", "--json").json
    assert (shown["name"], shown["site"], shown["points"], shown["last_check"]) == ("main", "primary", 0, None)
    assert 'site = "primary"' in scheduler("export").out


def test_a_repository_is_removed_once_no_job_names_it(applied: Program) -> None:
    refused = applied("repository", "remove", "main")
    assert refused.code == 9
    assert "it is still needed by job 'nightly'" in refused.err

    assert applied("job", "delete", "nightly").code == 0
    assert applied("repository", "remove", "main").err.startswith("Removed repository main from the fleet.")
    assert applied("repository", "list", "--json").json == []
    assert applied("repository", "remove", "main").code == 4


def test_a_repository_that_is_not_encrypted_names_no_credential(scheduler: Program, world: World) -> None:
    assert scheduler("repository", "add", "clear", "--location", "/backup").code == 0
    world.start().turn()
    world.fleet.join("proxy-1", credentials={})
    world.start().turn()

    (shown,) = scheduler("repository", "list", "--json").json
    assert (shown["credential"], shown["proxies"]) == (None, ["proxy-1"])
    assert "credential" not in scheduler("export").out
    assert "repository.clear" in world.fleet.ledger.view().proxies["proxy-1"].orders.lanes


def test_a_proxy_that_registered_itself_can_be_disabled(applied: Program, world: World) -> None:
    world.start()
    world.fleet.join("proxy-1", slots=3)
    (shown,) = applied("proxy", "list", "--json").json
    assert {key: shown[key] for key in ("name", "site", "state", "slots", "used")} == {
        "name": "proxy-1",
        "site": "primary",
        "state": "up",
        "slots": 3,
        "used": 0,
    }
    assert applied("proxy", "disable", "proxy-1").code == 0
    assert "disabled" in applied("proxy", "list").out
    assert "enabled = false" in applied("export").out
    assert applied("proxy", "enable", "proxy-1").code == 0
    assert "ds1 (direct_storage, network)" in applied("proxy", "show", "proxy-1").out


def test_proxies_are_listed_without_redis_and_it_says_so(applied: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_REDIS__URL", "redis://127.0.0.1:1/0")
    listed = applied("proxy", "list")
    assert listed.code == 0
    assert "warning: what proxies do is not known: ledger in Redis at redis://127.0.0.1:1/0" in listed.err


def test_what_is_declared_is_said_to_be_so_where_nobody_can_look_who_has_registered(
    applied: Program, configured: Path
) -> None:
    (configured / "redis").unlink()
    added = applied(
        "repository", "add", "second", "--location", "/s", "--credential", "second", "--proxy", "nobody"
    )
    absent = "repository 'second', key 'proxies': no proxy 'nobody' is declared or has registered"
    assert (added.code, absent in added.err, "Added repository second." in added.err) == (0, True, True), added.err
    exported = applied("export")
    (configured / "exported.toml").write_text(exported.out)
    again = applied("apply", "-f", str(configured / "exported.toml"))
    assert (again.code, again.out, absent in again.err) == (0, "Nothing to change.\n", True), again.err


def test_the_public_key_is_printed_once_there_is_one(applied: Program, configured: Path) -> None:
    refused = applied("proxy", "key")
    assert refused.code == 4
    assert "The first `scheduler serve` makes it" in refused.err
    (configured / "state").mkdir()
    (configured / "state" / "signing.pub").write_text("QUJD\n")
    assert applied("proxy", "key").out == "QUJD\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("job show nigtly", 4, "job 'nigtly': no job has that name. Did you mean 'nightly'?"),
        ("job start nowhere", 4, "job 'nowhere': no job has that name"),
        ("job stop nowhere", 4, "job 'nowhere': no job has that name"),
        ("job delete nowhere", 4, "job 'nowhere': no job has that name"),
        ("job enable nowhere", 4, "job 'nowhere': no job has that name"),
        ("job stop nightly", 9, "job 'nightly' can't be stopped: no run of it is under way"),
        ("job create nightly --vm a --repository main", 9, "that name is taken"),
        (
            "job create j --vm a --repository mian",
            4,
            "repository 'mian': no repository has that name. Did you mean",
        ),
        ("job create j! --vm a --repository main", 3, "name: expected a name of letters, digits"),
        ("job create j --vm a --repository main --cron 99", 3, "schedule.cron: expected five cron fields"),
        (
            "job create j --vm a --repository main --retries -1",
            3,
            "retries.count: expected greater than or equal to 0",
        ),
        ("job create j --vm a --repository main --level best", 2, "'best' is not one of"),
        ("job create j --vm a", 3, "job 'j': the key 'repository' is missing"),
        ("job create j --kind copy --repository main", 3, "no option says which repository is copied from"),
        (
            "job create j --vm a --from main --repository main",
            3,
            "--from, --from-job and --points are about copies",
        ),
        (
            "job create j --kind copy --from main --repository main",
            3,
            "job 'j', key 'copy_from.repository': it is 'main', which the job copies to",
        ),
        (
            "job create j --kind copy --from mian --repository main",
            3,
            "key 'copy_from.repository': repository 'mian' is not declared; did you mean 'main'?",
        ),
        (
            "job create j --kind copy --from main --repository main --tag Backup/gold",
            3,
            "expected no key 'select' in a job of kind 'copy', which it says nothing to",
        ),
        ("job start", 2, "Missing argument 'JOB'"),
        ("job strat nightly", 2, "No such command 'strat'. Did you mean 'start'?"),
        ("run list --job nowhere", 4, "job 'nowhere': no job has that name"),
        ("run show 2026", 4, "run '2026': no run has that id"),
        ("run watch 2026", 4, "run '2026': no run has that id"),
        ("run cancel 2026", 4, "run '2026': no run has that id"),
        ("run retry 2026", 4, "run '2026': no run has that id"),
        ("point list --vm nowhere", 4, "VM 'nowhere': no restore point of it is known"),
        ("point list --repository x", 4, "repository 'x': no repository has that name"),
        ("point show nowhere", 4, "VM 'nowhere': no restore point of it is known"),
        ("restore disk --vm nowhere --disk scsi0:0 --to /x", 4, "VM 'nowhere': no restore point of it is known"),
        ("restore disk --vm a --disk scsi0:0 --to x --proxy p", 3, "so it has to be an absolute path"),
        ("restore show 2026", 4, "restore '2026': no restore has that id"),
        ("restore cancel 2026", 4, "restore '2026': no restore has that id"),
        ("restore cancel 2026 --force", 4, "restore '2026': no restore of a VM has that id"),
        ("proxy add p --host h --instant-restore x --yes", 2, "--instant-restore.clients.0: value is not a valid"),
        ("repository check x", 4, "repository 'x': no repository has that name"),
        ("repository rescan x", 4, "repository 'x': no repository has that name"),
        ("repository rescan main", 9, "no `scheduler serve` is running"),
        ("repository add main --location /x --credential x", 9, "that name is taken"),
        ("repository add b --location x --credential x", 3, "location: expected an absolute path"),
        (
            "repository add b --location /x --credential x --site mars",
            3,
            "site 'mars' is not declared; expected primary",
        ),
        ("proxy show nowhere", 4, "proxy 'nowhere': no proxy of that name is declared or has registered"),
        ("proxy disable nowhere", 4, "proxy 'nowhere': no proxy of that name is declared or has registered"),
    ],
)
def test_bad_input_has_its_message_and_exit_code(applied: Program, arguments: str, code: int, message: str) -> None:
    refused = applied(*arguments.split())
    assert (refused.code, refused.out) == (code, "")
    assert message in refused.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("proxy add p --host h --yes --install-dir", 2),
        ("repository add b --credential x --location", 3),
    ],
)
def test_no_path_brings_a_line_of_its_own(applied: Program, arguments: str, code: int) -> None:
    refused = applied(*arguments.split(), "/srv/x\nExecStartPre=+/bin/touch /x")
    said = " ".join(refused.err.replace("│", " ").split())
    assert (refused.code, "expected no line breaks or other control characters" in said) == (code, True), (
        refused.err
    )


def test_a_time_zone_that_is_none_is_refused(applied: Program) -> None:
    refused = applied(
        "job", "create", "j", "--vm", "a", "--repository", "main", "--cron", "0 0 * * *", "--timezone", "Mars"
    )
    assert refused.code == 3
    assert "schedule.timezone: expected a time zone such as 'Europe/Berlin' or 'UTC', got 'Mars'" in refused.err


def test_a_proxy_is_drained_with_what_it_still_runs_in_sight(
    applied: Program, world: World, ledger: Ledger
) -> None:
    world.fleet.join("proxy-1")
    with serving(world):
        assert applied("proxy", "drain", "proxy-1", "--wait").err == "Proxy proxy-1 has nothing left to do.\n"
        assert ledger.view().proxies["proxy-1"].orders.enabled is False
        assert applied("proxy", "list", "--json").json[0]["state"] == "disabled"
        assert applied("proxy", "resume", "proxy-1").err == "Proxy proxy-1 gets tasks.\n"
    assert "enabled = false" not in applied("export").out


def test_slots_are_set_no_higher_than_the_proxy_allows(applied: Program, world: World) -> None:
    world.start()
    world.fleet.join("proxy-1", slots=3)

    lower = applied("proxy", "set", "proxy-1", "--max-concurrent-tasks", "2")
    assert "Proxy proxy-1 moves at most 2 disks at once." in lower.err
    assert "max_concurrent_tasks = 2" in applied("export").out
    assert applied("proxy", "show", "proxy-1", "--json").json["slots"] == 2, "before the ledger has heard of it"

    higher = applied("proxy", "set", "proxy-1", "--max-concurrent-tasks", "9")
    assert "warning: its own proxy.toml allows 3, and the smaller number counts." in higher.err
    assert "moves at most 3 disks at once" in higher.err

    own = applied("proxy", "set", "proxy-1", "--max-concurrent-tasks", "0")
    assert "moves at most 3 disks at once" in own.err
    assert "max_concurrent_tasks" not in applied("export").out


@pytest.mark.parametrize("options", [(), ("--url", "https://example.com/", "--mail-to", "admins@example.com")])
def test_a_notification_that_goes_nowhere_or_two_ways_is_refused_by_its_options(
    applied: Program, options: tuple[str, ...]
) -> None:
    refused = applied("notification", "add", "x", *options)
    assert refused.code == 2
    said = " ".join(refused.err.split())
    assert all(option in said for option in ("--url", "--url-credential", "--mail-to"))
    assert applied("notification", "list", "--json").json == []
