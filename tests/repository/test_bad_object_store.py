"""A bad way to a real object store: what is tried again, what isn't, what it counts, and that nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.check import check
from proxy_worker.repository.collector import collect
from proxy_worker.repository.store import ObjectNotFoundError, StoreReadOnlyError
from proxy_worker.repository.store.objects import ObjectStore, StoreUnfitError
from proxy_worker.repository.withdrawal import end_point
from tests.repository.making import VM, back_up, make_repository, noise, restore
from tests.simulators.bad_line import BadLine, Fault, bad_line
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage

BUSY = Fault(status=503, body=b"<Error><Code>SlowDown</Code></Error>")
DENIED = Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
DELETE_DENIED = Fault(
    status=200,
    body=b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error><Key>{key}</Key>'
    b"<Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>",
)
"""As S3 answers a request to delete several objects."""
NOTHING_LISTED = Fault(
    status=200,
    body=b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>backup</Name><KeyCount>0</KeyCount>'
    b"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>",
)


@pytest.fixture
def server(object_storage: ObjectStorage) -> ObjectStorage:
    return object_storage


@pytest.fixture
def line(server: ObjectStorage) -> Iterator[tuple[BadLine, str]]:
    with bad_line(server.endpoint) as opened:
        yield opened


@pytest.fixture
def store(server: ObjectStorage, line: tuple[BadLine, str]) -> ObjectStore:
    """By the line."""
    return ObjectStore(server.url().replace(server.endpoint, line[1]), access_key=ACCESS_KEY)


@pytest.mark.parametrize(
    ("fault", "method"), [(BUSY, "PUT"), (Fault(status=500), "GET"), (BUSY, "HEAD"), (BUSY, "DELETE")]
)
def test_a_server_that_fails_for_a_moment_is_asked_again(
    store: ObjectStore, line: tuple[BadLine, str], fault: Fault, method: str
) -> None:
    line[0].first(2, method, fault)

    assert store.put_if_absent("points/vm/run", [b"content"])
    assert (store.size("points/vm/run"), store.get("points/vm/run")) == (7, b"content")
    store.delete("points/vm/run")
    assert line[0].seen[method] == 3


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_large_object_survives_a_busy_server(store: ObjectStore, line: tuple[BadLine, str], method: str) -> None:
    line[0].first(2, method, BUSY)
    content = os.urandom(9 << 20)
    writer = store.create("packs/ab/large")
    writer.write(content)

    assert writer.finish()
    assert store.get("packs/ab/large") == content


def test_what_is_refused_is_not_tried_again(store: ObjectStore, line: tuple[BadLine, str]) -> None:
    line[0].always("PUT", DENIED)
    with pytest.raises(StoreReadOnlyError, match="isn't allowed to"):
        store.put_if_absent("points/vm/run", [b"content"])
    with pytest.raises(ObjectNotFoundError):
        store.get("points/vm/run")

    assert line[0].seen == {"PUT": 1, "GET": 1}


def test_a_server_that_stays_broken_is_an_error_that_may_pass(
    store: ObjectStore, line: tuple[BadLine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_worker.repository.store.retrying.FIRST_PAUSE_S", 0.0)
    line[0].always("PUT", BUSY)

    with pytest.raises(StoreError, match="can't write points/vm/run") as failed:
        store.put_if_absent("points/vm/run", [b"content"])
    assert failed.value.retryable


@pytest.mark.parametrize("theirs", [None, b"another's"])
def test_an_answer_that_is_lost_is_cleared_up(
    store: ObjectStore, server: ObjectStorage, line: tuple[BadLine, str], theirs: bytes | None
) -> None:
    if theirs is not None:  # somebody else was first
        direct = ObjectStore(store.location.replace(line[1], server.endpoint), access_key=ACCESS_KEY)
        assert direct.put_if_absent("points/vm/run", [theirs])
    line[0].first(1, "PUT", Fault(lose_answer=True))

    assert store.put_if_absent("points/vm/run", [b"mine"]) is (theirs is None)
    assert store.get("points/vm/run") == (theirs or b"mine")


def test_a_store_that_lists_late_is_refused(store: ObjectStore, line: tuple[BadLine, str]) -> None:
    line[0].fault = lambda method, target: NOTHING_LISTED if method == "GET" and "list-type=2" in target else None
    with pytest.raises(StoreUnfitError, match="isn't listed at once"):
        store.prepare()


def test_a_slow_store_takes_longer(store: ObjectStore, line: tuple[BadLine, str]) -> None:
    line[0].fault = lambda _method, _target: Fault(delay_s=0.02)
    repository = make_repository(store)
    point = back_up(repository, noise(3), run="monday", vm=VM)

    assert restore(repository, point) == noise(3)


def test_a_store_that_denies_deletes_loses_nothing_and_the_next_collection_goes_on(
    store: ObjectStore, line: tuple[BadLine, str]
) -> None:
    repository = make_repository(store)
    back_up(repository, noise(2, 1), run="monday", vm=VM)
    kept = back_up(repository, noise(2, 2), run="tuesday", vm=VM)
    end_point(repository.access, vm_id=VM.vm_id, run="monday")

    line[0].always("DELETE", DELETE_DENIED)
    with pytest.raises(StoreReadOnlyError, match="can't delete"):
        collect(repository)
    assert restore(repository, kept) == noise(2, 2)
    assert check(repository.access).findings == ()

    line[0].fault = lambda _method, _target: None
    assert collect(repository).freed_bytes > 0
    assert restore(repository, kept) == noise(2, 2)


def test_who_may_not_delete_backs_up_and_restores_all_the_same(
    store: ObjectStore, line: tuple[BadLine, str]
) -> None:
    repository = make_repository(store)
    line[0].always("DELETE", DELETE_DENIED)

    point = back_up(repository, noise(3), run="monday", vm=VM)
    assert restore(repository, point) == noise(3)


def test_every_request_is_counted(store: ObjectStore, line: tuple[BadLine, str], tmp_path: Path) -> None:
    repository = make_repository(store)
    point = back_up(repository, noise(8), run="monday", vm=VM)
    restore(repository, point)
    check(repository.access)
    large = store.create("packs/ab/large")
    large.write(bytes(9 << 20))
    large.finish()
    store.delete("packs/ab/large")

    asked, seen = store.requests.so_far(), line[0].seen
    assert asked.puts == seen["PUT"] + seen["POST"]
    assert asked.gets + asked.lists == seen["GET"]
    assert (asked.heads, asked.deletes) == (seen["HEAD"], seen["DELETE"])
    assert asked.lists > 0
