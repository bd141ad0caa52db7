"""Temporary folders: whose process was killed, those are gone at the next start, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy_worker.program.scratch import ScratchError, ScratchFolder
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore

DEADLINE_S = 120.0
FRAGMENT = "index/" + 32 * "0"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders go, for this process and those it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / f"proxyfleet-{os.getuid()}"


def purposes(home: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in home.glob("*"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def proxy_worker(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "proxy_worker", *arguments]


@pytest.fixture
def killed_check(home: Path, tmp_path: Path) -> list[str | Path]:
    """A check that was killed in the middle; the command to start another."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    Repository.create(LocalStore(tmp_path / "repository"), passphrase=b"correct horse").close()
    command = proxy_worker(
        "repository", "check", tmp_path / "repository", "--passphrase-file", tmp_path / "passphrase"
    )
    fragment = tmp_path / "repository" / FRAGMENT
    fragment.parent.mkdir()
    os.mkfifo(fragment)  # reading it, the check waits for somebody who writes
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: purposes(home) == ["index"])
        finally:
            process.kill()
    fragment.unlink()
    assert purposes(home) == ["index"]
    return command


def test_a_command_removes_what_a_killed_one_has_left(killed_check: list[str | Path], home: Path) -> None:
    with ScratchFolder("mine") as mine:
        subprocess.run(killed_check, check=True, stdout=subprocess.DEVNULL)

        assert list(home.glob("*")) == [mine], "what has an owner stays"

    assert purposes(home) == []


@pytest.mark.usefixtures("killed_check")
def test_a_proxy_removes_it_when_it_starts(home: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder, so that the proxy goes no further")
    (tmp_path / "proxy.toml").write_text(
        f'name = "p1"\nsite = "primary"\nstate_dir = "{tmp_path / "state"}"\n'
        f'scheduler_public_keys = ["{43 * "A"}="]\n'
    )

    result = subprocess.run(
        proxy_worker("run", "--config", tmp_path / "proxy.toml"), capture_output=True, text=True, check=False
    )

    assert "state folder" in result.stderr
    assert purposes(home) == []


def test_a_folder_that_somebody_else_has_made_is_not_used(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)

    with pytest.raises(ScratchError, match="isn't a folder of this user alone"):
        ScratchFolder("mine")
