"""The thread that asks vCenters how long datastores take: whatever an answer is like, it goes on asking."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy_worker.vsphere.faults import MissingPrivilegeError
from scheduler.vcenters.account import Account
from scheduler.vcenters.latency import LatencyWatch, Watched

ODD, GOOD = (Account(name, "127.0.0.1", "backup", name) for name in ("odd", "good"))


def test_an_answer_that_nobody_foresaw_ends_neither_the_look_nor_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def latencies(account: Account) -> Mapping[str, float]:
        if account is ODD:
            raise AttributeError("odd answer")
        return {"LocalDS_0": 5.0}

    looks = itertools.count()

    def watched() -> tuple[Watched, ...]:
        if next(looks) == 0:
            raise KeyError("odd row")
        return tuple(Watched(account, {"LocalDS_0": "ds1"}) for account in (ODD, GOOD))

    monkeypatch.setattr(LatencyWatch, "_session", lambda _, account: account)
    monkeypatch.setattr("scheduler.vcenters.latency.datastore_latency_ms", latencies)
    recorded: queue.Queue[Mapping[str, float]] = queue.Queue()
    watch = LatencyWatch(watched, recorded.put, tmp_path, every_s=0.01)
    watch.start()
    try:
        seen = [recorded.get(timeout=120) for _ in range(2)]
    finally:
        watch.close()

    assert seen == [{"ds1": 5.0}] * 2
    assert "odd row" in caplog.text
    assert "odd answer" in caplog.text


def test_a_login_that_is_refused_the_figures_is_ended_before_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins: queue.Queue[int] = queue.Queue()
    open_ones: set[Login] = set()

    class Login:
        def __init__(self, _endpoint: object, _password: str) -> None:
            open_ones.add(self)
            logins.put(len(open_ones))

        def close(self) -> None:
            open_ones.remove(self)

    def refused(_: Login) -> Mapping[str, float]:
        raise MissingPrivilegeError("latencies", privilege="Performance.ModifyIntervals", on="vCenter")

    (tmp_path / "good.password").write_text("secret")
    monkeypatch.setattr("scheduler.vcenters.latency.Session", Login)
    monkeypatch.setattr("scheduler.vcenters.latency.datastore_latency_ms", refused)
    watch = LatencyWatch(lambda: (Watched(GOOD, {"LocalDS_0": "ds1"}),), lambda _: None, tmp_path, every_s=0.01)
    watch.start()
    try:
        seen = [logins.get(timeout=120) for _ in range(3)]
    finally:
        watch.close(120)

    assert seen == [1, 1, 1]
    assert not open_ones
