"""A command that waits for a gateway, as it may for half an hour: it says why, and the first signal ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy_worker.link.errors import LinkUnavailableError
from proxy_worker.link.identity import CERTIFICATE_VARIABLE
from proxy_worker.program.commands import INTERRUPTED
from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from proxy_worker.repository.store.remote import RemoteStore
from tests.gateway.serving import Fleet, serving
from tests.gateway.test_hardened import Vault, ext4, vault
from tests.repository.making import CREDENTIAL, KEY, PASSPHRASE, make_repository, noise, restore
from tests.surviving.relay import Relay, Wire

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
        _, told = waiting.communicate(timeout=120)
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


CALLS: tuple[Callable[[RemoteStore], object], ...] = (
    lambda store: store.exists("config/1"),
    lambda store: store.get("config/1"),
    lambda store: list(store.list("packs/")),
)


@pytest.mark.parametrize("call", CALLS, ids=["exists", "get", "list"])
def test_a_call_that_nobody_answers_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[RemoteStore], object]
) -> None:
    monkeypatch.setattr("proxy_worker.link.client._LAST_S", 0.1)
    with serving(Fleet.made(tmp_path / "fleet"), {"main": LocalStore(tmp_path)}) as served:
        relay = Relay(served.port)
        store = served.store(port=relay.port)
        assert not store.exists("config/1")
        relay.wire = Wire.HUNG
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(call, store)
            store.give_up()
            with pytest.raises(LinkUnavailableError, match="it was given up"):
                answer.result(120)
        relay.close()


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
