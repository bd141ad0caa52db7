"""`scheduler repository import` and `export`: images of this machine, by the server's own secrets."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.commands import run_forked

FLEET = """
[[site]]
name = "primary"
[[repository]]
name = "main"
location = "{folder}/repository"
site = "primary"
credential = "main"
"""
CONTENT = os.urandom(3 << 20) + bytes(5 << 20)


class Server:
    """A server's folder, with a repository and its passphrase; nothing of it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "secrets").mkdir()
        (folder / "secrets" / "main.passphrase").write_text("correct horse\n")
        (folder / "secrets" / "main.passphrase").chmod(0o600)
        config = folder / "scheduler.toml"
        config.write_text(
            f'state_dir = "{folder}/state"\nsecrets_dir = "{folder}/secrets"\n'
            '[redis]\nurl = "redis://127.0.0.1:1/0"\n'
        )
        (folder / "fleet.toml").write_text(FLEET.format(folder=folder))
        (folder / "disk.raw").write_bytes(CONTENT)
        self.environment = os.environ | {"SCHEDULER_CONFIG": str(config), "XDG_CACHE_HOME": str(folder / "cache")}
        opening = ("--passphrase-file", "secrets/main.passphrase")
        self.run("proxy-worker", "repository", "init", "repository", *opening)
        self.run("scheduler", "apply", "-f", "fleet.toml")
        tool("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2", cwd=folder)

    def run(self, *words: str, code: int = 0) -> str:
        """The command's output."""
        done = run_forked(words, self.environment, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def points(self) -> list[dict[str, Any]]:
        """Of the catalogue."""
        listed: list[dict[str, Any]] = json.loads(self.run("scheduler", "point", "list", "--json"))
        return listed


def tool(*words: str, cwd: Path) -> None:
    """Run a program of others, which has to succeed."""
    subprocess.run(words, cwd=cwd, check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("server"))


def test_what_is_imported_is_a_point_of_the_catalogue_and_comes_out_again(server: Server) -> None:
    words = ("repository", "import", "main", "scsi0:0=disk.qcow2", "--vm", "web01")
    first = json.loads(server.run("scheduler", *words, "--vm-id", "4211-77", "--json"))
    assert (first["vm_id"], first["disks"][0]["size_bytes"]) == ("4211-77", len(CONTENT))

    again = json.loads(server.run("scheduler", *words, "--json"))
    assert again["vm_id"] == "4211-77", "the name wasn't known for the VM's"
    assert again["disks"][0]["stored_bytes"] < len(CONTENT) // 10
    assert {point["point"] for point in server.points()} == {first["point"], again["point"]}

    asked = ("--vm", "web01", "--disk", "scsi0:0", "--point", first["point"])
    assert "back.vmdk (vmdk)" in server.run("scheduler", "repository", "export", *asked, "--to", "back.vmdk")
    tool("qemu-img", "compare", "-q", "-f", "vmdk", "-F", "raw", "back.vmdk", "disk.raw", cwd=server.folder)


def test_an_import_that_fails_leaves_no_point_and_says_why(server: Server) -> None:
    before = server.points()
    (server.folder / "cut.qcow2").write_bytes((server.folder / "disk.qcow2").read_bytes()[: 1 << 20])

    told = server.run("scheduler", "repository", "import", "main", "scsi0:0=cut.qcow2", "--vm", "bad", code=8)

    assert "damaged or cut short" in told
    assert server.points() == before


def test_without_a_key_on_this_machine_it_says_where_to_do_it(server: Server) -> None:
    secret = server.folder / "secrets" / "main.passphrase"
    away = secret.rename(server.folder / "away")
    try:
        words = ("repository", "import", "main", "scsi0:0=disk.raw", "--vm", "web01")
        assert "neither main.passphrase nor main.key" in server.run("scheduler", *words, code=6)
    finally:
        away.rename(secret)
