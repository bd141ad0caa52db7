"""The server's own proxy: what it is configured with, and that it is started again and ended."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from proxy_worker.config import load_configuration
from proxy_worker.contract.signing import encode_public_key
from proxy_worker.program.settings import RedisSettings
from scheduler import local_proxy
from scheduler.configuration import (
    LocalDatastore,
    LocalProxySettings,
    SchedulerConfiguration,
)
from scheduler.local_proxy import LocalProxy, proxy_toml
from scheduler.signing import signing_key


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_is_configured_as_scheduler_toml_says(tmp_path: Path) -> None:
    configuration = SchedulerConfiguration(
        state_dir=tmp_path,
        secrets_dir=tmp_path / "secrets",
        redis=RedisSettings(url="redis://host:1/2", credential="redis"),
        local_proxy=LocalProxySettings(
            site="hq",
            max_concurrent_tasks=3,
            datastores={
                "ds1": LocalDatastore(path=tmp_path / "ds1"),
                "ds2": LocalDatastore(network_uri="nbd://h/{path}"),
            },
        ),
    )
    public = encode_public_key(signing_key(configuration).public_key())
    (tmp_path / "proxy.toml").write_text(proxy_toml(configuration, tmp_path / "own", public))

    proxy = load_configuration(tmp_path / "proxy.toml", {})

    assert (proxy.name, proxy.site, proxy.max_concurrent_tasks) == ("server", "hq", 3)
    assert (proxy.redis.url, proxy.redis.credential) == ("redis://host:1/2", "redis")
    assert (proxy.state_dir, proxy.secrets_dir) == (tmp_path / "own", tmp_path / "secrets")
    assert proxy.scheduler_public_keys == (public,)
    assert proxy.datastores["ds1"].path == tmp_path / "ds1"
    assert proxy.datastores["ds2"].network_uri == "nbd://h/{path}"


def test_it_is_started_again_when_it_ends_and_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "proxy-worker"
    program.write_text(f'#!/bin/sh\nsleep 600 &\necho "$$ $!" >> {tmp_path}/pids\nwait\n')
    program.chmod(0o755)
    monkeypatch.setattr(local_proxy, "proxy_worker", lambda: program)
    monkeypatch.setattr(local_proxy, "_FIRST_PAUSE_S", 0.05)
    proxy = LocalProxy(SchedulerConfiguration(state_dir=tmp_path), "key")

    def lives() -> list[list[int]]:
        proxy.watch()
        text = (tmp_path / "pids").read_text() if (tmp_path / "pids").exists() else ""
        return [[int(pid) for pid in line.split()] for line in text.splitlines()]

    def wait_for_life(number: int) -> list[int]:
        deadline = time.monotonic() + 120
        while len(lives()) < number:
            assert time.monotonic() < deadline
        return lives()[number - 1]

    first = wait_for_life(1)
    os.kill(first[0], 9)
    second = wait_for_life(2)
    proxy.stop(threading.Event())

    gone = time.monotonic() + 120
    while any(_alive(pid) for pid in first + second):
        assert time.monotonic() < gone
