"""What is done as root on a proxy's machine, in folders that belong to the proxy's user."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from scheduler.deployment import agent


def wanted(path: Path, content: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(content).decode()
    return {"path": str(path), "content": encoded, "mode": 0o600, "owner": None, "secret": False}


def test_links_that_the_proxys_user_laid_are_not_followed(tmp_path: Path) -> None:
    elsewhere, secret = tmp_path / "shadow", tmp_path / "secret"
    elsewhere.write_bytes(b"same")
    elsewhere.chmod(0o644)
    secret.symlink_to(elsewhere)
    assert agent.write({"folders": [], "files": [wanted(secret, b"same")]}) == {"changed": {str(secret): None}}
    assert (secret.is_symlink(), secret.read_bytes(), secret.stat().st_mode & 0o777) == (False, b"same", 0o600)
    assert elsewhere.stat().st_mode & 0o777 == 0o644

    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "folder").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        agent.write({"folders": [{"path": str(tmp_path / "folder"), "mode": 0o700, "owner": None}], "files": []})
    assert (tmp_path / "theirs").stat().st_mode & 0o777 == 0o755


def test_no_file_is_changed_unless_all_can_be_written(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_bytes(b"before")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        agent.write({"folders": [], "files": [wanted(first, b"after"), wanted(tmp_path / "file/second", b"")]})
    assert first.read_bytes() == b"before"
