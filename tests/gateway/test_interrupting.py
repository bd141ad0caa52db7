"""A command that waits for a gateway, as it may for half an hour: it says why, and the first signal ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy_worker.link.identity import CERTIFICATE_VARIABLE
from proxy_worker.program.commands import INTERRUPTED
from proxy_worker.repository.repository import Repository
from tests.gateway.test_hardened import Vault, ext4, vault
from tests.repository.making import CREDENTIAL, KEY, PASSPHRASE, make_repository, noise, restore

__all__ = ["ext4", "vault"]
"""Fixtures."""
CONTENT = noise(20)


@pytest.mark.parametrize("waits_for", ["packs/", "points/"])
def test_a_signal_ends_a_backup_that_waits_and_the_next_one_is_whole(
    vault: Vault, tmp_path: Path, waits_for: str
) -> None:
    make_repository(vault.keepers).close()
    disk = tmp_path / "disk.raw"
    disk.write_bytes(CONTENT)
    vault.warden.not_heard = waits_for

    with backup(vault, disk, tmp_path) as waiting:
        assert waiting.stderr is not None
        why = waiting.stderr.readline()
        waiting.terminate()
        _, told = waiting.communicate(timeout=60)
    assert "the warden doesn't answer" in why
    assert "trying again for 1800 s" in why
    assert waiting.returncode == INTERRUPTED
    assert told.startswith("interrupted")

    vault.warden.not_heard = None
    with backup(vault, disk, tmp_path) as again:
        _, told = again.communicate()
    assert again.returncode == 0, told
    with Repository.open(vault.proxys, CREDENTIAL) as repository:
        assert restore(repository, repository.points()[-1]) == CONTENT


@contextmanager
def backup(vault: Vault, disk: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A backup by hand, for the length of the block."""
    passphrase = folder / "passphrase"
    passphrase.write_bytes(PASSPHRASE)
    command = [sys.executable, "-m", "proxy_worker", "backup", str(disk), "--repository", vault.proxys.location]
    process = subprocess.Popen(
        [*command, "--vm", "web01", "--disk", KEY, "--passphrase-file", str(passphrase)],
        env=os.environ
        | {CERTIFICATE_VARIABLE: str(vault.served.proxy.certificate), "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
