"""`scheduler restore files` finds point, repository and key, and `proxy-worker` takes over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_worker.repository.points import Point
from scheduler.state.access import DatabaseAccess
from scheduler.state.models import Point as CataloguedPoint
from scheduler.state.models import Repository, Site
from scheduler.state.store import open_state
from tests.guest_files.conftest import BackedUp


@pytest.fixture
def configured(backed_up: BackedUp, point: Point, tmp_path: Path) -> Path:
    """A scheduler that knows the restore point, with the passphrase among its secrets."""
    (tmp_path / "scheduler.toml").write_text('state_dir = "state"\nsecrets_dir = "."\n')
    (tmp_path / "main.passphrase").write_bytes((backed_up.folder / "main.passphrase").read_bytes())
    (tmp_path / "state").mkdir()
    state = open_state(DatabaseAccess(f"sqlite:///{tmp_path / 'state' / 'scheduler.db'}"), migrate=True)
    with state.write() as session:
        session.add(Site(name="primary"))
        session.flush()
        session.add(
            Repository(name="main", location=str(backed_up.folder / "repo"), site="primary", credential="main")
        )
        session.add(
            CataloguedPoint(
                repository="main", vm_id=point.vm_id, point=point.run, vm_name=point.vm_name, job="nightly",
                created_at=point.created_at, disks=(),
            )
        )  # fmt: skip
    state.close()
    return tmp_path


def restore_files(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("scheduler"), "restore", "files", *words], cwd=folder, capture_output=True,
        text=True, check=False, timeout=120, env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    return done.returncode, done.stderr


def test_the_point_is_opened_with_the_server_s_own_key(configured: Path) -> None:
    """All the way to the point's disks: that there is no such one, only the repository can say."""
    code, said = restore_files(configured, "--vm", "web01", "--disk", "scsi0:7", "--path", "/etc", "--to", "x")
    assert (code, said.startswith("proxy-worker: ")) == (4, True)
    assert "scsi0:7" in said


def test_a_server_without_a_key_says_how_it_is_done_elsewhere(configured: Path) -> None:
    (configured / "main.passphrase").unlink()
    code, said = restore_files(configured, "--vm", "web01", "--list")
    assert code == 6
    assert "neither main.passphrase nor main.key" in said
    assert "proxy-worker restore-files --repository" in said
