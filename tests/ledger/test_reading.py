"""What proxies of another version wrote must not stop the scheduler: it is named, and the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from ops.demo.valkey import EmbeddedValkey
from proxy_worker.contract.names import TaskKind
from proxy_worker.contract.offers import ProxyRegistration
from proxy_worker.contract.outcome import RepositoryAbandonResult
from proxy_worker.ledger import Claim, Ledger, NewTask, ProxyIdentity

OF_LATER_VERSION = {"invented later": 1}
REGISTRATION = ProxyRegistration(
    name="proxy-1",
    instance_id="instance",
    site="primary",
    max_concurrent_tasks=2,
    datastores={},
    modes=(),
    credentials={},
    version="1",
    contract_version=1,
)


@pytest.fixture
def ledger(valkey: EmbeddedValkey) -> Iterator[Ledger]:
    with Ledger(valkey.url, password=valkey.password) as opened:
        opened.open_epoch(1)
        for name in ("proxy-1", "proxy-2"):
            opened.register(REGISTRATION, ProxyIdentity(name, "instance", life=f"life of {name}", lock=name))
        yield opened


@pytest.fixture
def claim(ledger: Ledger) -> Claim:
    ledger.submit(NewTask("t1", TaskKind.REPOSITORY_ABANDON, "repository.abandon web01"))
    ledger.dispatch("t1", lane="repository.main", sign=lambda _: b"specification")
    claimed = ledger.claim(
        "t1",
        1,
        kind=TaskKind.REPOSITORY_ABANDON,
        lane="repository.main",
        identity=ProxyIdentity("proxy-1", "instance", life="life of proxy-1"),
    )
    assert isinstance(claimed, Claim)
    return claimed


def rewrite(valkey: EmbeddedValkey, key: str, field: str, value: dict[str, object]) -> None:
    with redis.Redis(port=valkey.port, password=valkey.password) as client:
        client.hset(f"{{pf}}:{key}", field, json.dumps(value))


def test_proxy_whose_registration_can_not_be_read_is_left_out_and_named_once(
    ledger: Ledger, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(valkey, "proxy:proxy-1", "registration", REGISTRATION.model_dump(mode="json") | OF_LATER_VERSION)

    assert set(ledger.view().proxies) == {"proxy-2"}
    assert ledger.epoch() == 1
    assert [record.message for record in caplog.records if "proxy-1" in record.message] == [
        "proxy proxy-1 gets no tasks: this version can't read its registration (invented later: "
        "Extra inputs are not permitted)"
    ]


def test_progress_that_can_not_be_read_is_not_shown(ledger: Ledger, claim: Claim, valkey: EmbeddedValkey) -> None:
    rewrite(valkey, f"task:{claim.fence.task_id}", "progress", OF_LATER_VERSION)

    assert ledger.view().tasks["t1"].progress is None


@pytest.mark.parametrize("ending", ["done", "failed"])
def test_outcome_that_can_not_be_read_is_a_failure(
    ledger: Ledger, claim: Claim, valkey: EmbeddedValkey, ending: str
) -> None:
    ledger.complete(claim.fence, RepositoryAbandonResult(committed=False))
    rewrite(valkey, "task:t1", "outcome", OF_LATER_VERSION)
    with redis.Redis(port=valkey.port, password=valkey.password) as client:
        client.hset("{pf}:task:t1", "state", ending)

    [ended] = ledger.finished()

    assert ended.result is None
    assert ended.failure is not None
    assert ended.failure.code == "unreadable-outcome"
    assert "this version can't read what proxy-1 reported" in ended.failure.why
