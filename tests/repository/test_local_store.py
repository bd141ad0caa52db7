"""What a folder on a real file system can do to a store."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store import (
    ObjectNotFoundError,
    ObjectUnreadableError,
    StoreFullError,
    StoreMissingError,
    StoreReadOnlyError,
)
from proxy_worker.repository.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    store.prepare()
    return store


def fail(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_file_system_is_called_full_and_keeps_nothing_half(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with monkeypatch.context() as patched:
        fail(patched, call, number)
        with pytest.raises(StoreFullError, match="Free space"):
            store.put_if_absent("packs/ab/one", [b"content"])

    assert not store.exists("packs/ab/one")
    assert list(store.leftovers()) == []
    assert store.put_if_absent("packs/ab/one", [b"content"])


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_may_not_be_written_is_called_read_only(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail(monkeypatch, "link", number)

    with pytest.raises(StoreReadOnlyError, match="writable"):
        store.put_if_absent("packs/ab/one", [b"content"])


def test_an_error_of_the_disk_is_passed_on_as_retryable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, "fsync", errno.EIO)

    with pytest.raises(StoreError, match="Input/output error") as caught:
        store.put_if_absent("packs/ab/one", [b"content"])
    assert caught.value.retryable


def test_a_folder_that_is_gone_is_not_made_again(store: LocalStore, tmp_path: Path) -> None:
    """An unmounted file system leaves an empty place, and nothing must be written there."""
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(StoreMissingError, match="mounted"):
        store.put_if_absent("packs/ab/one", [b"content"])
    assert not (tmp_path / "store").exists()

    (tmp_path / "store").mkdir()
    with pytest.raises(StoreMissingError, match="mounted"):
        store.put_if_absent("packs/ab/one", [b"content"])
    assert list((tmp_path / "store").iterdir()) == []
    with pytest.raises(ObjectNotFoundError):
        store.get("packs/ab/one")


def test_a_folder_that_is_gone_is_not_listed_as_an_empty_one(store: LocalStore, tmp_path: Path) -> None:
    """What isn't mounted any more has not lost its restore points."""
    assert list(store.list("points/")) == []
    shutil.rmtree(tmp_path / "store")
    for _ in range(2):
        with pytest.raises(StoreMissingError, match="mounted"):
            list(store.list("points/"))
        (tmp_path / "store").mkdir(exist_ok=True)


def test_content_and_folder_are_synced_before_the_store_says_so(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content first, then the name, then the folder that holds the name."""
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(file: int) -> None:
        events.append("sync " + Path(f"/proc/self/fd/{file}").readlink().parent.name)
        fsync(file)

    def noted_link(*arguments: Path) -> None:
        events.append("name")
        link(*arguments)

    store.put_if_absent("packs/ab/zero", [b"makes the folders"])
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store.put_if_absent("packs/ab/one", [b"content"])

    assert events == ["sync tmp", "name", "sync packs"]


def test_a_name_that_is_taken_is_durable_too_before_the_store_says_so(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever took it may have been killed before that: a commit that is tried again relies on it."""
    store.put_if_absent("points/vm/run", [b"first"])
    synced: list[Path] = []
    fsync = os.fsync

    def noted_fsync(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted_fsync)

    assert not store.put_if_absent("points/vm/run", [b"second"])
    assert synced[-1] == tmp_path / "store" / "points" / "vm"


def test_files_that_are_no_objects_are_not_listed(store: LocalStore, tmp_path: Path) -> None:
    """File managers and NFS leave such files."""
    store.put_if_absent("points/vm/run", [b"content"])
    (tmp_path / "store" / "points" / ".DS_Store").write_bytes(b"")
    (tmp_path / "store" / "points" / "vm" / ".nfs0001").write_bytes(b"")

    assert list(store.list("points/")) == ["points/vm/run"]


def test_folders_that_were_moved_and_linked_to_are_listed(store: LocalStore, tmp_path: Path) -> None:
    """As somebody does who spreads a repository over two file systems."""
    store.put_if_absent("points/vm/run", [b"content"])
    store.put_if_absent("packs/ab/one", [b"content"])
    for folder in ("points/vm", "packs"):
        (tmp_path / "store" / folder).rename(tmp_path / folder.replace("/", "-"))
        (tmp_path / "store" / folder).symlink_to(tmp_path / folder.replace("/", "-"))

    assert list(store.list("points/")) == ["points/vm/run"]
    store.put_if_absent("packs/cd/two", [b"content"])
    assert sorted(store.list("packs/")) == ["packs/ab/one", "packs/cd/two"]


@pytest.mark.parametrize("link", ["points", "points/vm", "points/vm/run"])
def test_a_link_to_what_is_not_there_is_no_empty_folder(store: LocalStore, tmp_path: Path, link: str) -> None:
    """Whoever lists points would take it for a repository without any, and free what they need."""
    path = tmp_path / "store" / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "not mounted")

    with pytest.raises(StoreMissingError, match="mounted"):
        list(store.list("points/"))


def test_a_link_to_a_folder_above_does_not_lead_round_and_round(store: LocalStore, tmp_path: Path) -> None:
    store.put_if_absent("points/vm/run", [b"content"])
    (tmp_path / "store" / "points" / "vm" / "all").symlink_to(tmp_path / "store" / "points")

    assert "points/vm/run" in set(store.list("points/"))


def test_folders_go_with_their_last_object(store: LocalStore, tmp_path: Path) -> None:
    """Else every run would leave one, for listings to walk through for ever."""
    for name in ("writers/vm/run/disk.1", "writers/vm/run/disk.2", "writers/other/run/disk.1"):
        store.put_if_absent(name, [b""])

    store.delete("writers/vm/run/disk.1")
    assert store.exists("writers/vm/run/disk.2")
    store.delete("writers/vm/run/disk.2")
    assert [path.name for path in (tmp_path / "store" / "writers").iterdir()] == ["other"]
    store.delete("writers/other/run/disk.1")
    assert list((tmp_path / "store" / "writers").iterdir()) == []


def test_an_object_gets_its_name_whatever_becomes_of_its_folder(store: LocalStore) -> None:
    def put_and_delete(number: int) -> None:
        for _ in range(50):
            assert store.put_if_absent(f"writers/vm/run/{number}", [b""])
            store.delete(f"writers/vm/run/{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put_and_delete, range(4)))


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o750, 0o640), (0o007, 0o770, 0o660)])
def test_others_get_no_rights_and_the_group_what_the_umask_allows(
    tmp_path: Path, umask: int, folder: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        store = LocalStore(tmp_path / "shared")
        store.prepare()
        store.put_if_absent("packs/ab/one", [b"content"])
    finally:
        os.umask(before)

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "shared").rglob("*") if path.is_dir()}
    assert modes == {folder}
    assert (tmp_path / "shared/packs/ab/one").stat().st_mode & 0o777 == file


def test_a_bad_sector_is_told_from_a_store_that_does_not_answer(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    store.put_if_absent("packs/ab/one", [b"content"])
    for call in ("preadv", "pread"):
        monkeypatch.setattr(os, call, fail)

    with pytest.raises(ObjectUnreadableError, match="Input/output error"):
        store.get("packs/ab/one")
    with pytest.raises(ObjectUnreadableError, match="Input/output error"):
        store.read_into("packs/ab/one", 0, memoryview(bytearray(7)))


MIB = 1 << 20


@pytest.mark.parametrize("length", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 4097])
@pytest.mark.parametrize("refused", ["nowhere", "when asked", "when written"])
def test_what_is_written_past_the_cache_comes_back(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, length: int, refused: str
) -> None:
    if refused == "when asked":  # as file systems without direct I/O do
        patched = failing_once(fcntl.fcntl, lambda _, command, *__: command == fcntl.F_SETFL)
        monkeypatch.setattr(fcntl, "fcntl", patched)
    if refused == "when written":
        monkeypatch.setattr(os, "write", failing_once(os.write, lambda _, data: len(data) == MIB))
    content = random.Random(length).randbytes(length)

    store.put_if_absent("packs/ab/one", (content[at : at + 99_999] for at in range(0, length, 99_999)))

    assert store.get("packs/ab/one") == content


def failing_once(call: Callable[..., Any], where: Callable[..., bool]) -> Callable[..., Any]:
    """`call`, the first time with these arguments failing as the kernel does where it takes no direct I/O."""
    failed = False

    def calling(*arguments: Any) -> Any:
        nonlocal failed
        if not failed and where(*arguments):
            failed = True
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return call(*arguments)

    return calling


def test_a_write_that_failed_fails_for_good(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store.create("packs/ab/one")
    write = os.write

    def write_and_fail(file: int, data: bytes) -> int:
        write(file, data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_and_fail)
        with pytest.raises(StoreFullError):
            writer.write(bytes(8 << 20))

    with pytest.raises(StoreFullError):
        writer.write(b"more")
    with pytest.raises(StoreFullError):
        writer.finish()
    writer.discard()
    assert not store.exists("packs/ab/one")
    assert list(store.leftovers()) == []


def test_a_piece_that_failed_behind_the_writers_back_is_told_by_finish(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = store.create("packs/ab/one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        writer.write(bytes(2 << 20))  # handed to the thread that writes
        for _ in range(2):
            with pytest.raises(StoreFullError):
                writer.finish()
    writer.discard()

    assert not store.exists("packs/ab/one")
    assert list(store.leftovers()) == []
