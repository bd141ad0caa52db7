"""The repository's commands, as scripts use them: forms, JSON, exit codes, and messages without tracebacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.repository.making import PASSPHRASE, make_repository, noise
from tests.system.commands import Done, run_forked


class Shell:
    """Runs `proxy-worker` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.passphrase = folder / "passphrase"
        self.passphrase.write_bytes(PASSPHRASE)

    def run(self, *arguments: object, exit_code: int = 0) -> Done:
        environment = {"XDG_CACHE_HOME": str(self.folder / "cache"), "PATH": "/usr/bin:/bin"}
        done = run_forked(["proxy-worker", *map(str, arguments)], environment, cwd=self.folder)
        assert done.returncode == exit_code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def repository_command(self, command: str, *arguments: object, exit_code: int = 0) -> str:
        done = self.run("repository", command, self.repository, *arguments, exit_code=exit_code)
        return done.stdout if exit_code == 0 else done.stderr

    def back_up(self, disk: Path, *credential: object) -> dict[str, object]:
        where = ("--repository", self.repository, "--vm", "web01", "--disk", "scsi0:0", "--json")
        return dict(json.loads(self.run("backup", disk, *where, *credential).stdout))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    make_repository(shell.repository).close()
    (tmp_path / "disk.raw").write_bytes(noise(3))
    return shell


def test_a_backup_is_listed_checked_and_scrubbed(shell: Shell) -> None:
    made = shell.back_up(shell.folder / "disk.raw", "--passphrase-file", shell.passphrase)

    [listed] = json.loads(shell.repository_command("list", "--passphrase-file", shell.passphrase, "--json"))
    assert (listed["vm"], listed["point"]) == ("web01", made["point"])
    assert [disk["key"] for disk in listed["disks"]] == ["scsi0:0"]
    assert listed["created"].endswith("+00:00")
    assert str(made["point"]) in shell.repository_command("list", "--passphrase-file", shell.passphrase)

    for how in (("--passphrase-file", shell.passphrase), ("--scrub",)):
        report = json.loads(shell.repository_command("check", *how, "--json"))
        assert (report["ok"], report["points"], report["damage"]) == (True, 1, [])
    assert "no damage found" in shell.repository_command("check", "--scrub")


def test_damage_is_exit_code_5_with_names(shell: Shell) -> None:
    shell.back_up(shell.folder / "disk.raw", "--passphrase-file", shell.passphrase)
    [pack] = (shell.repository / "packs").glob("*/*")
    content = bytearray(pack.read_bytes())
    content[100] ^= 1
    pack.write_bytes(content)

    done = shell.run(
        "repository", "check", shell.repository, "--passphrase-file", shell.passphrase, "--json", exit_code=5
    )
    [damage] = json.loads(done.stdout)["damage"]
    assert damage["object"].endswith(pack.name)
    assert [use["vm"] for use in damage["needed_by"]] == ["web01"]
    assert "is damaged" in done.stderr
    shell.repository_command("check", "--scrub", exit_code=5)


def test_a_lost_index_is_rebuilt(shell: Shell) -> None:
    shell.back_up(shell.folder / "disk.raw", "--passphrase-file", shell.passphrase)
    for fragment in (shell.repository / "index").iterdir():
        fragment.unlink()

    shell.repository_command("check", "--passphrase-file", shell.passphrase, exit_code=5)
    assert "indexed 1 packs" in shell.repository_command("reindex", "--passphrase-file", shell.passphrase)
    shell.repository_command("check", "--passphrase-file", shell.passphrase)


def test_keys_are_handed_out_listed_added_and_removed(shell: Shell) -> None:
    write, read, new = (shell.folder / name for name in ("write.key", "read.key", "new"))
    owner = ("--passphrase-file", shell.passphrase)
    shell.run("repository", "keys", "export-write", shell.repository, *owner, "--out", write, "--group", "primary")
    shell.run("repository", "keys", "export-read", shell.repository, *owner, "--out", read, "--label", "proxy-1")
    shell.back_up(shell.folder / "disk.raw", "--write-key-file", write)
    report = shell.repository_command("check", "--key-file", read)
    assert "no damage found" in report

    new.write_text("other words\n")
    shell.run("repository", "keys", "add", shell.repository, *owner, "--new-passphrase-file", new, "--label", "ann")
    keys = json.loads(shell.run("repository", "keys", "list", shell.repository, "--json").stdout)
    assert sorted(key["label"] for key in keys) == ["ann", "first"]
    first = next(key["key"] for key in keys if key["label"] == "first")
    shell.run("repository", "keys", "remove", shell.repository, first, "--passphrase-file", new)
    shell.repository_command("list", *owner, exit_code=6)
    shell.repository_command("list", "--passphrase-file", new)


def test_a_key_that_was_not_handed_out_leaves_nothing(shell: Shell) -> None:
    owner = ("--passphrase-file", shell.passphrase)
    taken = shell.folder / "taken.key"
    taken.write_text("something else")
    for kind in ("export-read", "export-write"):
        keys = ("repository", "keys", kind, shell.repository, *owner, "--label", "proxy-1")
        assert "it exists" in shell.run(*keys, "--out", taken, exit_code=9).stderr
        assert "No such file" in shell.run(*keys, "--out", "nowhere/new.key", exit_code=6).stderr
    assert taken.read_text() == "something else"
    shown = shell.run("repository", "keys", "list", shell.repository, *owner, "--json").stdout
    assert [key["label"] for key in json.loads(shown)] == ["first"]


def test_a_change_names_every_key_that_had_the_passphrase(shell: Shell) -> None:
    owner, new = ("--passphrase-file", shell.passphrase), shell.folder / "new"
    new.write_text("other words\n")
    shell.run("repository", "keys", "add", shell.repository, *owner, "--new-passphrase-file", shell.passphrase)
    before = json.loads(shell.run("repository", "keys", "list", shell.repository, "--json").stdout)
    changed = shell.run("repository", "keys", "change", shell.repository, *owner, "--new-passphrase-file", new)
    [after] = json.loads(shell.run("repository", "keys", "list", shell.repository, "--json").stdout)
    assert len(before) == 2
    assert all(key["key"] in changed.stdout for key in (*before, after))


def test_a_picture_of_a_recovery_sheet_is_not_read(shell: Shell) -> None:
    picture = shell.folder / "sheet.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    how = ("--sheet-file", picture, "--new-passphrase-file", shell.passphrase)
    refused = shell.run("repository", "keys", "recover", shell.repository, *how, exit_code=3).stderr
    assert "it is no text file" in refused
    assert "codec" not in refused


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("list", "nowhere", "--passphrase-file", "passphrase"), 4, "no such folder"),
        (("check", "empty", "--scrub"), 4, "there is none here"),
        (("list", "repository"), 6, "encrypted"),
        (("list", "repository", "--passphrase-file", "wrong"), 6, "opens with this passphrase"),
        (("list", "repository", "--passphrase-file", "missing"), 6, "No such file"),
        (("list", "repository", "--key-file", "wrong"), 6, "not a key"),
        (("init", "repository", "--passphrase-file", "passphrase"), 9, "one here already"),
        (("init", "other"), 3, "--no-encryption"),
        (("init", "other", "--no-encryption", "--block-size", "100KiB"), 3, "power of two"),
        (("init", "other", "--no-encryption", "--block-size", "big"), 3, "not a size"),
    ],
)
def test_mistakes_have_their_exit_code(shell: Shell, arguments: tuple[str, ...], exit_code: int, says: str) -> None:
    (shell.folder / "empty").mkdir()
    (shell.folder / "wrong").write_text("no such words\n")

    assert says in shell.run("repository", *arguments, exit_code=exit_code).stderr


def test_without_encryption_no_passphrase_is_asked_for(shell: Shell) -> None:
    shell.run("repository", "init", "clear", "--no-encryption")
    shell.run("repository", "check", "clear")


def test_what_is_made_with_a_passphrase_is_opened_with_it(shell: Shell) -> None:
    owner = ("--passphrase-file", shell.passphrase)
    shell.run("repository", "init", "sealed", *owner, "--block-size", "64KiB")
    shell.run("repository", "list", "sealed", exit_code=6)
    assert json.loads(shell.run("repository", "list", "sealed", *owner, "--json").stdout) == []


def test_points_are_removed_and_their_space_is_collected(shell: Shell) -> None:
    key = ("--passphrase-file", shell.passphrase)
    made = shell.back_up(shell.folder / "disk.raw", *key)
    assert "removed" in shell.repository_command("remove", made["point"], *key)

    foreseen = json.loads(shell.repository_command("collect", *key, "--dry-run", "--json"))
    assert (foreseen["dry_run"], foreseen["freed_packs"]) == (True, 1)
    assert list((shell.repository / "packs").glob("*/*"))
    assert "freed" in shell.repository_command("collect", *key)
    assert not list((shell.repository / "packs").glob("*/*"))

    assert "there is none" in shell.repository_command("remove", "never", *key, exit_code=4)
