"""A Redis that is absent, strange, full, or gone: a named error with a remedy each, and no password in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey, free_port
from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import TaskKind
from proxy_worker.ledger import (
    Ledger,
    LedgerFullError,
    LedgerPasswordError,
    LedgerReadOnlyError,
    LedgerUnavailableError,
    NewTask,
)
from proxy_worker.ledger.access import RedisAccess
from proxy_worker.ledger.broker import publish, publisher


def submit_for_ever(ledger: Ledger, submitted: list[str]) -> None:
    while True:
        task_id = f"task {len(submitted)}"
        ledger.submit(NewTask(task_id, TaskKind.DISK_BACKUP, "x" * 50_000))
        submitted.append(task_id)


def test_absent_server_is_unavailable() -> None:
    port = free_port()
    with (
        Ledger(f"redis://127.0.0.1:{port}/0") as ledger,
        pytest.raises(LedgerUnavailableError, match=f"ledger in Redis at redis://127.0.0.1:{port}/0: no answer"),
    ):
        ledger.view()


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_or_missing_password_is_named_and_not_shown(valkey: EmbeddedValkey, password: str | None) -> None:
    with (
        Ledger(valkey.url, password=password) as ledger,
        pytest.raises(LedgerPasswordError, match="refuses the password") as caught,
    ):
        ledger.view()
    assert not caught.value.retryable
    assert valkey.password not in str(caught.value)


def test_password_in_the_url_is_never_shown() -> None:
    with Ledger("redis://user:secret@127.0.0.1:1/0") as ledger:
        assert ledger.where == "redis://user@127.0.0.1:1/0"
        with pytest.raises(LedgerUnavailableError) as caught:
            ledger.view()
    assert "secret" not in str(caught.value)


def test_url_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Write it as redis://host:6379/0"):
        Ledger("http://127.0.0.1")


def test_full_server_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with (
        EmbeddedValkey(tmp_path, "pw", extra_settings=["maxmemory 4mb"]).start() as server,
        Ledger(server.url, password="pw") as ledger,
    ):
        ledger.open_epoch(1)
        submitted: list[str] = []
        with pytest.raises(LedgerFullError, match="maxmemory"):
            submit_for_ever(ledger, submitted)
        assert set(ledger.view().tasks) == set(submitted)


def test_server_that_was_restarted_goes_on_with_what_it_had(own_valkey: EmbeddedValkey) -> None:
    with Ledger(own_valkey.url, password=own_valkey.password) as ledger:
        ledger.open_epoch(1)
        ledger.submit(NewTask("t1", TaskKind.DISK_BACKUP, "title"))
        own_valkey.kill()
        with pytest.raises(LedgerUnavailableError):
            ledger.view()

        own_valkey.start()

        assert set(ledger.view().tasks) == {"t1"}


def test_message_that_cannot_be_published_is_a_ledger_error() -> None:
    app = publisher(f"redis://127.0.0.1:{free_port()}/0", "secret")
    with pytest.raises(LedgerUnavailableError, match="could not be published") as caught:
        publish(app, kind=TaskKind.DISK_BACKUP, title="disk.backup web01", lane="proxy.a", task_id="t", number=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/0", "redis://:p%40ss%2F@host:6379/0"),
        ("rediss://user@host:6379/1", "rediss://user:p%40ss%2F@host:6379/1"),
        ("unix:///run/redis.sock", "redis+socket://:p%40ss%2F@/run/redis.sock"),
    ],
)
def test_broker_url_carries_the_password(url: str, expected: str) -> None:
    assert RedisAccess(url, password="p@ss/").broker_url() == expected


def test_a_server_that_takes_no_writes_is_named_and_may_be_tried_again(own_valkey: EmbeddedValkey) -> None:
    with (
        redis.Redis(port=own_valkey.port, password=own_valkey.password) as client,
        Ledger(own_valkey.url, password=own_valkey.password) as ledger,
    ):
        ledger.open_epoch(1)
        client.config_set("min-replicas-to-write", 1)
        with pytest.raises(LedgerReadOnlyError, match="takes no writes") as refused:
            ledger.open_epoch(2)
        client.config_set("min-replicas-to-write", 0)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(LedgerReadOnlyError, match="REPLICAOF NO ONE"):
            ledger.open_epoch(2)

    assert refused.value.retryable
