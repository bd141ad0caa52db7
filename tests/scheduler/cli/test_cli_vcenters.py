"""vCenters added, checked, rescanned and removed; what is wrong with one is said in a line, with its exit code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.vsphere.session import Patience
from proxy_worker.vsphere.trust import with_colons
from scheduler.runs.handling import KINDS
from scheduler.vcenters.executor import Executor
from tests.scheduler.cli.conftest import Finished, Program, serving
from tests.scheduler.conftest import World
from tests.simulators.vsphere.simulator import PASSWORD, USER, VsphereSimulator, running
from tests.vsphere.conftest import IMPATIENT, certificate_of
from tests.vsphere.test_trust import make_certificate


def thumbprint_of(server: VsphereSimulator) -> str:
    return with_colons(hashlib.sha256(certificate_of(server)).hexdigest())


def add(scheduler: Program, server: VsphereSimulator, *options: str) -> Finished:
    address = ("--host", server.host, "--port", str(server.port), "--user", USER)
    return scheduler("vcenter", "add", "vc1", *address, *options)


@pytest.fixture
def password(configured: Path) -> Path:
    """The file with the account's password."""
    path = configured / "vc1.password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def added(scheduler: Program, vsphere: VsphereSimulator, password: Path) -> Program:
    """`scheduler`, with the vCenter `vc1` added and its password in place."""
    assert password.exists()
    assert add(scheduler, vsphere, "--thumbprint", thumbprint_of(vsphere)).code == 0
    return scheduler


def test_a_certificate_that_nobody_signed_is_shown_and_not_trusted_by_itself(
    scheduler: Program, vsphere: VsphereSimulator
) -> None:
    refused = add(scheduler, vsphere)
    assert refused.code == 6
    assert f"its SHA-256 thumbprint is {thumbprint_of(vsphere)}. Compare that" in refused.err
    assert vsphere.calls() == {}, "no password is sent before the certificate is trusted"


def test_a_certificate_is_pinned_when_somebody_says_so(
    scheduler: Program, vsphere: VsphereSimulator, configured: Path
) -> None:
    pinned = add(scheduler, vsphere, "--accept-thumbprint")
    assert pinned.code == 0
    assert f"Pinned its SHA-256 thumbprint {thumbprint_of(vsphere)}." in pinned.err
    assert f"Put the password of {USER} into {configured}/vc1.password" in pinned.err
    (shown,) = scheduler("vcenter", "list", "--json").json
    assert (shown["thumbprint"], shown["vms"], shown["scanned"]) == (thumbprint_of(vsphere), 0, None)
    assert f'thumbprint = "{thumbprint_of(vsphere)}"' in scheduler("export").out


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 6)])
def test_in_a_terminal_people_are_asked(
    scheduler: Program, vsphere: VsphereSimulator, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    asked = add(scheduler, vsphere)
    assert asked.code == code
    assert f"Its SHA-256 thumbprint is {thumbprint_of(vsphere)}" in asked.err
    listed = scheduler("vcenter", "list", "--json")
    assert thumbprint_of(vsphere) in listed.out if answer == "y" else thumbprint_of(vsphere) not in listed.out


def test_another_certificate_than_the_one_given_is_refused(scheduler: Program, vsphere: VsphereSimulator) -> None:
    refused = add(scheduler, vsphere, "--thumbprint", "ab" * 32)
    assert (refused.code, "pinned is AB:AB:" in refused.err) == (6, True)


def test_a_certificate_is_verified_by_the_given_authority_and_an_expired_one_is_named(
    scheduler: Program, vsphere_program: Path, tmp_path: Path, password: Path
) -> None:
    for days, code in ((1, 6), (30, 0)):
        pem = make_certificate(tmp_path, days=days)
        options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
        with running(vsphere_program, tmp_path / f"root-{days}", *options) as server:
            told = add(scheduler, server, "--ca-file", str(pem))
            assert told.code == code
            if code:
                assert "its certificate does not hold now: certificate has expired" in told.err
            else:
                checked = scheduler("vcenter", "check", "vc1")
                assert (checked.code, "certificate  verified" in checked.out) == (0, True)
    assert password.exists()


def test_a_vcenter_that_does_not_answer_is_named(scheduler: Program) -> None:
    told = scheduler("vcenter", "add", "vc1", "--host", "127.0.0.1", "--port", "1", "--user", USER)
    assert (told.code, "vCenter vc1 (127.0.0.1:1): " in told.err) == (8, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--thumbprint", "xyz"), "thumbprint: expected a SHA-1 or SHA-256 thumbprint in hexadecimal"),
        (("--site", "remote"), "site 'remote' is not declared"),
        (("--max-sessions", "0"), "max_sessions: expected greater than or equal to 1, got 0"),
        (("--ca-file", "x", "--thumbprint", "ab" * 20), "expected 'thumbprint' or 'ca_file', got both"),
    ],
)
def test_an_option_that_is_wrong_is_named_before_anybody_is_asked(
    applied: Program, vsphere: VsphereSimulator, options: tuple[str, ...], expected: str
) -> None:
    told = add(applied, vsphere, *options)
    assert (told.code, expected in told.err) == (3, True), told.err


def test_a_check_says_that_all_is_well(added: Program) -> None:
    checked = added("vcenter", "check", "vc1")
    assert checked.code == 0
    assert "privileges   all there at the vCenter's root, for backup, hot-add, restore," in checked.out


def test_a_check_lists_each_missing_privilege_by_id_and_name(added: Program, vsphere: VsphereSimulator) -> None:
    vsphere.revoke(["VirtualMachine.State.CreateSnapshot", "Network.Assign"])
    checked = added("vcenter", "check", "vc1")
    assert checked.code == 6
    assert "2 privileges missing" in checked.out
    assert "Virtual machine > Snapshot management > Create snapshot" in checked.out
    assert added("vcenter", "check", "vc1", "--for", "hot-add").code == 0
    missing = added("vcenter", "check", "vc1", "--for", "restore", "--json").json["missing"]
    assert missing == [{"privilege": "Network.Assign", "name": "Network > Assign network", "purpose": "restore"}]


def test_a_wrong_password_is_named_and_a_missing_one_says_where_it_belongs(added: Program, password: Path) -> None:
    password.write_text("wrong")
    refused = added("vcenter", "check", "vc1")
    assert (refused.code, f"login of {USER}: InvalidLogin" in refused.err) == (6, True)
    password.unlink()
    refused = added("vcenter", "check", "vc1")
    assert refused.code == 6
    assert f"{password} can't be read" in refused.err


def test_a_certificate_that_changed_is_refused_before_the_password_is_sent(
    added: Program, vsphere: VsphereSimulator, configured: Path
) -> None:
    fleet = configured / "other.toml"
    fleet.write_text(added("export").out.replace(thumbprint_of(vsphere), with_colons("cd" * 32)))
    assert added("apply", "-f", str(fleet)).code == 0
    vsphere.reset()
    refused = added("vcenter", "check", "vc1")
    assert (refused.code, f"thumbprint is {thumbprint_of(vsphere)}, pinned is CD:CD:" in refused.err) == (6, True)
    assert vsphere.calls() == {}


def test_a_certificate_that_was_replaced_is_pinned_anew_when_somebody_says_so(
    added: Program, vsphere: VsphereSimulator, vsphere_program: Path, tmp_path: Path
) -> None:
    assert "as it was" in added("vcenter", "trust", "vc1").err
    pem = make_certificate(tmp_path, days=30)
    options = ("-certificate", str(pem), "-key", str(tmp_path / "key.pem"))
    with running(vsphere_program, tmp_path / "root", *options) as renewed:
        fleet = added("export").out.replace(f"port = {vsphere.port}", f"port = {renewed.port}")
        (tmp_path / "renewed.toml").write_text(fleet)
        assert added("apply", "-f", str(tmp_path / "renewed.toml")).code == 0

        refused = added("vcenter", "trust", "vc1")
        assert refused.code == 6
        assert f"thumbprint is {thumbprint_of(renewed)}, pinned is {thumbprint_of(vsphere)}" in refused.err
        assert added("vcenter", "trust", "vc1", "--thumbprint", "ab" * 32).code == 6
        assert thumbprint_of(vsphere) in added("export").out

        pinned = added("vcenter", "trust", "vc1", "--accept-thumbprint")
        assert f"vCenter vc1 is pinned by {thumbprint_of(renewed)}." in pinned.err
        assert f'thumbprint = "{thumbprint_of(renewed)}"' in added("export").out

        verified = added("vcenter", "trust", "vc1", "--ca-file", str(pem), "--json")
        assert (verified.json["thumbprint"], verified.json["ca_file"]) == (None, str(pem))
        assert added("vcenter", "check", "vc1").code == 0
        assert "as it was" in added("vcenter", "trust", "vc1").err


def test_a_name_that_is_wrong_is_told_the_nearest(added: Program) -> None:
    for command in ("check", "rescan", "remove"):
        told = added("vcenter", command, "vc2")
        assert (told.code, "Did you mean 'vc1'?" in told.err) == (4, True)
    again = added("vcenter", "add", "vc1", "--host", "h", "--user", "u")
    assert (again.code, "that name is taken" in again.err) == (9, True)


@pytest.fixture
def reading_world(world: World, configured: Path) -> Iterator[World]:
    """A world whose scheduler reads vCenters."""
    made: list[Executor] = []

    def executor() -> Executor:
        made.append(Executor(KINDS, configured, patience=Patience(1.0, 0.01, 0.1), waiting=IMPATIENT))
        return made[-1]

    world.new_executor = executor
    yield world
    for one in made:
        one.close()


def test_a_rescan_is_done_by_the_scheduler_and_its_vms_are_listed(added: Program, reading_world: World) -> None:
    refused = added("vcenter", "rescan", "vc1")
    assert (refused.code, "no `scheduler serve` is running" in refused.err) == (9, True)
    with serving(reading_world):
        done = added("vcenter", "rescan", "vc1")
        assert (done.code, "scan of vc1: succeeded: 4 VMs: 4 new, 0 gone" in done.out) == (0, True)
        again = added("vcenter", "rescan", "vc1", "--json").json
        assert (again["state"], again["outcome"]) == ("succeeded", "4 VMs: 0 new, 0 gone")
    (shown,) = added("vcenter", "list", "--json").json
    assert (shown["vms"], shown["last_rescan"]["state"]) == (4, "succeeded")
    assert {vm["vcenter"] for vm in added("vm", "list", "--json").json} == {"vc1"}


def test_a_rescan_that_fails_says_why_with_its_exit_code(
    added: Program, reading_world: World, password: Path
) -> None:
    password.write_text("wrong")
    with serving(reading_world):
        failed = added("vcenter", "rescan", "vc1")
    assert (failed.code, "user name" in failed.out or "InvalidLogin" in failed.out) == (6, True), failed


def test_a_vcenter_that_others_name_is_not_removed(added: Program) -> None:
    assert added("repository", "add", "main", "--location", "/backup").code == 0
    assert added("job", "create", "all", "--vcenter", "vc1", "--repository", "main").code == 0
    refused = added("vcenter", "remove", "vc1")
    assert (refused.code, "it is still needed by job 'all'" in refused.err) == (9, True)
    assert added("job", "delete", "all").code == 0
    assert added("vcenter", "remove", "vc1").code == 0
    assert added("vcenter", "list", "--json").json == []


def test_no_password_is_ever_an_argument(scheduler: Program) -> None:
    told = scheduler("vcenter", "add", "--help")
    assert "--password" not in told.out
