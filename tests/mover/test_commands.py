"""`proxy-worker backup` and `restore` as scripts use them: processes, exit codes, one line on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.mover.disks import BLOCK, make_disk
from tests.repository.making import CHEAP
from tests.system.commands import BIN, Done, run_forked


class Shell:
    """A folder with a repository, its passphrase and a disk, and the command run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "passphrase").write_text("correct horse\n")
        (folder / "repo").mkdir()
        store = LocalStore(folder / "repo")
        Repository.create(store, passphrase=b"correct horse", block_size=BLOCK, kdf_cost=CHEAP).close()
        self.disk = make_disk(folder / "disk.raw", 20 * BLOCK + 99, [(0, os.urandom(5 * BLOCK))])
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

    def run(self, *arguments: str) -> Done:
        return run_forked(["proxy-worker", *arguments], self.environment, cwd=self.folder)

    def back_up(self, *extra: str, disk: str = "disk.raw") -> Done:
        return self.run(
            "backup", disk, "--repository", "repo", "--passphrase-file", "passphrase", "--vm", "web", "--disk",
            "scsi0:0", *extra,
        )  # fmt: skip

    def restore(self, *extra: str, vm: str = "web", disk: str = "scsi0:0", to: str = "back.raw") -> Done:
        return self.run(
            "restore", "--repository", "repo", "--passphrase-file", "passphrase", "--vm", vm, "--disk", disk,
            "--to", to, *extra,
        )  # fmt: skip


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell whose repository holds one point of the disk."""
    made = Shell(tmp_path_factory.mktemp("shell"))
    result = made.back_up()
    assert result.returncode == 0, result.stderr
    return made


def test_a_disk_goes_in_and_comes_out(shell: Shell) -> None:
    (shell.folder / "areas.json").write_text(f"[[0, {BLOCK}]]")

    backup = shell.back_up("--json", "--level", "high", "--changed-areas", "areas.json")
    restored = shell.restore("--json", "--overwrite")

    assert (backup.returncode, backup.stderr, restored.returncode, restored.stderr) == (0, "", 0, "")
    figures = json.loads(backup.stdout)
    assert {
        "point", "size_bytes", "read_bytes", "stored_bytes", "duration_seconds", "mode", "bottleneck",
    } <= figures.keys()  # fmt: skip
    assert figures["size_bytes"] == 20 * BLOCK + 99
    assert figures["read_bytes"] == BLOCK
    assert figures["mode"] == "direct_storage"
    assert json.loads(restored.stdout)["point"] == figures["point"]
    assert (shell.folder / "back.raw").read_bytes() == shell.disk.read_bytes()


def test_people_get_sentences(shell: Shell) -> None:
    result = shell.back_up()

    assert "restore point" in result.stdout
    assert "direct_storage" in result.stdout
    assert "bottleneck" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["--vm", "nobody", "--disk", "scsi0:0", "--to", "x.raw"], 4, "VM nobody is not in the repository"),
        (["--vm", "web", "--disk", "scsi9:9", "--to", "x.raw"], 4, "scsi9:9"),
        (["--vm", "web", "--disk", "scsi0:0", "--to", "x.raw", "--point", "nope"], 4, "no restore point nope"),
        (["--vm", "web", "--disk", "scsi0:0", "--to", "disk.raw"], 9, "--overwrite"),
        (["--vm", "web", "--disk", "scsi0:0", "--to", "missing/x.raw"], 12, "missing/x.raw"),
        (["--vm", "web", "--disk", "scsi0:0"], 2, "--to"),
    ],
)
def test_a_restore_that_cannot_be_says_why(shell: Shell, arguments: list[str], exit_code: int, said: str) -> None:
    result = shell.run("restore", "--repository", "repo", "--passphrase-file", "passphrase", *arguments)

    assert result.returncode == exit_code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (shell.folder / "x.raw").exists()
    assert not list(shell.folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["nothing.raw", "--passphrase-file", "passphrase"], 4, "nothing.raw"),
        (["disk.raw", "--passphrase-file", "wrong"], 6, "passphrase"),
        (["disk.raw", "--passphrase-file", "absent"], 6, "absent"),
        (["disk.raw", "--passphrase-file", "passphrase", "--write-key-file", "wrong"], 3, "Give one of them"),
        (["disk.raw", "--passphrase-file", "passphrase", "--changed-areas", "wrong"], 3, "[[offset, length]"),
        (["disk.raw", "--passphrase-file", "passphrase", "--changed-areas", "absent"], 3, "absent"),
        (["disk.raw", "--passphrase-file", "passphrase", "--parent", "../x"], 3, "--parent"),
        (["disk.raw", "--passphrase-file", "passphrase", "--level", "most"], 2, "most"),
        (["nbd://127.0.0.1:1/disk", "--passphrase-file", "passphrase"], 8, "127.0.0.1"),
    ],
)
def test_a_backup_that_cannot_be_says_why(shell: Shell, arguments: list[str], exit_code: int, said: str) -> None:
    (shell.folder / "wrong").write_text("incorrect horse\n")

    result = shell.run("backup", "--repository", "repo", "--vm", "web", "--disk", "scsi0:0", *arguments)

    assert result.returncode == exit_code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_repository_is_named(shell: Shell) -> None:
    result = shell.run(
        "backup", "disk.raw", "--repository", "elsewhere", "--passphrase-file", "passphrase", "--vm", "web",
        "--disk", "scsi0:0",
    )  # fmt: skip

    assert result.returncode == 4
    assert "elsewhere" in result.stderr


def test_a_write_key_backs_up_and_cannot_restore(shell: Shell) -> None:
    made = shell.run(
        "repository", "keys", "export-write", "repo", "--passphrase-file", "passphrase", "--out", "write.key"
    )
    assert made.returncode == 0, made.stderr

    backup = shell.run(
        "backup", "disk.raw", "--repository", "repo", "--write-key-file", "write.key", "--vm", "web", "--disk",
        "scsi0:0", "--json",
    )  # fmt: skip
    restore = shell.run(
        "restore", "--repository", "repo", "--read-key-file", "write.key", "--vm", "web", "--disk", "scsi0:0",
        "--to", "never.raw",
    )  # fmt: skip

    assert backup.returncode == 0, backup.stderr
    assert restore.returncode == 6
    assert not (shell.folder / "never.raw").exists()


def test_an_interrupted_backup_leaves_a_tombstone_and_a_repository_that_goes_on(shell: Shell) -> None:
    make_disk(shell.folder / "large.raw", 3000 * BLOCK, [(0, os.urandom(3000 * BLOCK))])
    process = subprocess.Popen(
        [BIN / "proxy-worker", "backup", "large.raw", "--repository", "repo", "--passphrase-file", "passphrase",
         "--vm", "large", "--disk", "scsi0:0", "--level", "extreme"],
        cwd=shell.folder, env=shell.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((shell.folder / "repo" / "writers").glob("*/*/*")):
        assert time.monotonic() < deadline, "the backup did not start"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 130
    assert errors == "interrupted: nothing is left half done\n"
    assert not list((shell.folder / "repo" / "writers").glob("*/*/*"))
    assert shell.back_up(disk="large.raw").returncode == 0


def test_the_version_is_printed(shell: Shell) -> None:
    result = shell.run("--version")

    assert result.returncode == 0
    assert result.stdout.startswith("proxy-worker ")
