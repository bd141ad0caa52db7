"""A whole repository in object storage, against a real server; and what a server must do, or answers wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import ObjectNotFoundError, StoreReadOnlyError
from proxy_worker.repository.store.objects import ObjectStore, StoreUnfitError, StoreUrlError
from tests.simulators.object_storage import ACCESS_KEY, ObjectStorage

COMMAND = Path(sys.executable).with_name("proxy-worker")


@pytest.fixture
def server(object_storage: ObjectStorage) -> ObjectStorage:
    return object_storage


@pytest.fixture
def store(server: ObjectStorage) -> ObjectStore:
    return ObjectStore(server.url(), access_key=ACCESS_KEY)


def test_the_life_of_a_repository(server: ObjectStorage, tmp_path: Path) -> None:
    url = server.url()
    environment = {**os.environ, **server.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "passphrase").write_text("correct horse\n")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(os.urandom(30 << 20) + bytes(10 << 20))

    def run(*words: str) -> str:
        done = subprocess.run(
            [COMMAND, *words, "--passphrase-file", "passphrase"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def back_up() -> dict[str, Any]:
        whose = ("--repository", url, "--vm", "web", "--disk", "scsi0:0", "--json")
        made: dict[str, Any] = json.loads(run("backup", "disk.raw", *whose))
        return made

    run("repository", "init", url)
    first = back_up()
    with disk.open("r+b") as file:
        file.write(os.urandom(20 << 20))
    second = back_up()
    assert (second["parent"], second["stored_bytes"] < first["stored_bytes"]) == (first["point"], True)

    run("restore", "--repository", url, "--vm", "web", "--disk", "scsi0:0", "--to", "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == disk.read_bytes()
    assert json.loads(run("repository", "check", url, "--json"))["ok"]

    run("repository", "remove", url, str(first["point"]))
    collected = json.loads(run("repository", "collect", url, "--json"))
    assert collected["freed_bytes"] > 0
    run("restore", "--repository", url, "--vm", "web", "--disk", "scsi0:0", "--to", "again.raw")
    assert (tmp_path / "again.raw").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("conflicts", [1, 100])
def test_a_conflict_over_an_object_that_is_not_there_is_tried_again(
    store: ObjectStore, conflicts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S3 answers 409 (ConditionalRequestConflict) to some who write at once, which obstore takes for a taken name.
    # No server does that when it is told to.
    real, said = obstore.put, []

    def put(where: Any, name: str, content: bytes, **how: Any) -> Any:
        if len(said) < conflicts:
            said.append(name)
            raise AlreadyExistsError("409 Conflict: ConditionalRequestConflict")
        return real(where, name, content, **how)

    monkeypatch.setattr(obstore, "put", put)
    monkeypatch.setattr("proxy_worker.repository.store.retrying.FIRST_PAUSE_S", 0.0)

    if conflicts == 1:
        assert store.put_if_absent("points/vm/run", [b"mine"])
        assert store.get("points/vm/run") == b"mine"
        assert not store.put_if_absent("points/vm/run", [b"another's"])
    else:
        with pytest.raises(StoreError, match="and then that it doesn't"):
            store.put_if_absent("points/vm/run", [b"mine"])
        assert len(said) < conflicts


def test_a_server_that_overwrites_is_found_unfit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server without conditional writes is played by dropping the condition.
    real = obstore.put
    monkeypatch.setattr(obstore, "put", lambda where, name, content, **_: real(where, name, content))

    with pytest.raises(StoreUnfitError, match="overwrites an object"):
        store.prepare()
    assert list(store.leftovers()) == []


def test_a_large_object_comes_in_parts_and_is_read_by_ranges(store: ObjectStore) -> None:
    content = os.urandom(20 << 20)
    writer = store.create("packs/ab/large")
    for at in range(0, len(content), 1 << 20):
        writer.write(content[at : at + (1 << 20)])
    assert writer.finish()

    found = bytearray(9 << 20)
    assert store.read_into("packs/ab/large", 11 << 20, memoryview(found)) == 9 << 20
    assert found == content[11 << 20 :]


def test_a_key_that_is_not_known_and_an_object_that_is_not_there(server: ObjectStorage, store: ObjectStore) -> None:
    stranger = ObjectStore(server.url(), access_key=(ACCESS_KEY[0], "wrong"))
    with pytest.raises(StoreReadOnlyError, match="isn't allowed to, or isn't known") as refused:
        stranger.put_if_absent("points/vm/run", [b"x"])
    assert "wrong" not in str(refused.value)
    with pytest.raises(ObjectNotFoundError):
        store.get("points/vm/none")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3:///prefix", "isn't of the form"),
        ("s3://user:geheim@bucket/prefix", "isn't of the form"),
        ("s3://bucket/prefix?endpint=x", "unknown option 'endpint'"),
        ("s3://bucket/prefix?endpoint=ftp://x", "no http or https URL"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, said: str) -> None:
    with pytest.raises(StoreUrlError, match=said) as refused:
        ObjectStore(url)
    assert "geheim" not in str(refused.value)
