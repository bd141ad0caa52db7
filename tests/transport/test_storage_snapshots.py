"""Storage snapshots on real file systems: btrfs subvolumes, XFS reflinks."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.contract.subjects import StorageSnapshotMark
from proxy_worker.transport.datastore import DiskNotFoundError
from proxy_worker.transport.image import open_image
from proxy_worker.transport.named import open_path
from proxy_worker.transport.storage_snapshot.making import snapshots_of
from proxy_worker.transport.storage_snapshot.provider import (
    FOLDER,
    StorageFullError,
    StorageSnapshotError,
    StorageSnapshotGoneError,
    StorageSnapshots,
    StorageSnapshotSettings,
    StorageUnsuitableError,
    folder_name,
)
from tests.simulators.loop_devices import mounted, run
from tests.transport.conftest import convert, read_all, write_flat

MIB = 1 << 20
MARK = StorageSnapshotMark(installation="installation-1", journal="run-1.1")
OTHER = StorageSnapshotMark(installation="installation-2", journal="run-1.1")
"""Of another installation, by chance with the same name in its journal."""
PROVIDER = {"btrfs": "btrfs", "xfs": "reflink"}


@pytest.fixture(scope="module", params=["btrfs", "xfs"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real file system."""
    with mounted(request.param, tmp_path_factory.mktemp("storage")) as point:
        yield point


@pytest.fixture
def datastore(storage: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A datastore on it, for one test."""
    path = storage / f"ds-{random.randbytes(4).hex()}"
    if storage.name == "btrfs":
        run("btrfs", "subvolume", "create", path)
    else:
        path.mkdir()
    yield path
    if storage.name == "btrfs":
        for snapshot in (path / FOLDER).glob("*"):
            run("btrfs", "subvolume", "delete", snapshot)
        run("btrfs", "subvolume", "delete", path)
    else:
        run("rm", "-rf", path)


@pytest.fixture
def provider(storage: Path, datastore: Path) -> StorageSnapshots:
    """Its provider."""
    return snapshots_of("ds1", datastore, StorageSnapshotSettings(provider=PROVIDER[storage.name]))


def content(provider: StorageSnapshots, mark: StorageSnapshotMark, path: str) -> bytes:
    """A flat disk's bytes as they are in a snapshot."""
    with closing(open_image(provider.find(mark), path.replace(".vmdk", "-flat.vmdk"))) as image:
        assert image.raw is not None
        return image.raw.read_at(0, image.size_bytes)


def write_disk(datastore: Path, name: str, data: bytes) -> Path:
    """A flat disk `name/name.vmdk`; the path of the file with its bytes."""
    (datastore / name).mkdir()
    return write_flat(datastore / name, name, data).with_name(f"{name}-flat.vmdk")


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that is killed before its n-th change of a file system; False if it got to its end."""
    child = os.fork()
    if child == 0:
        steps = itertools.count(1)

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            making = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if (making or event in CHANGES) and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.ioctl"}
"""What Python tells audit hooks of before it changes a file system."""


def test_disks_stay_as_they_were(provider: StorageSnapshots, datastore: Path) -> None:
    provider.probe()
    before = random.Random(1).randbytes(3 * MIB)
    flat = write_disk(datastore, "web", before)
    write_disk(datastore, "app", bytes(512 * 100))

    provider.create(MARK, ["web/web.vmdk", "app/app.vmdk"])
    with flat.open("r+b") as file:
        file.seek(MIB)
        file.write(b"changed" * 1000)
    assert content(provider, MARK, "web/web.vmdk") == before

    flat.unlink()
    provider.create(MARK, ["web/web.vmdk"])  # done again, it is found done, whatever became of the disk
    assert content(provider, MARK, "web/web.vmdk") == before
    assert provider.list("installation-1") == ("run-1.1",)
    assert provider.remove(MARK) is True
    assert provider.remove(MARK) is False
    assert provider.list("installation-1") == ()
    with pytest.raises(
        StorageSnapshotGoneError, match=r"run-1\.1 of datastore ds1.*Run the backup of the VM again"
    ):
        provider.find(MARK)


def test_delta_chains_are_frozen_whole(provider: StorageSnapshots, datastore: Path, raw_image: Path) -> None:
    (datastore / "web").mkdir()
    base, delta = datastore / "web/web.vmdk", datastore / "web/web-000001.vmdk"
    convert(raw_image, base, "monolithicSparse")
    options = ["create", "-q", "-f", "vmdk", "-b", base.name, "-F", "vmdk", str(delta)]
    run("qemu-img", *options)
    run("qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 64k", str(delta))
    with open_path(str(delta)) as source:
        before = read_all(source)
    provider.create(MARK, ["web/web-000001.vmdk"])
    run("qemu-io", "-f", "vmdk", "-c", "write -P 8 0 2M", str(delta))
    with open_path(str(provider.find(MARK).root / "web/web-000001.vmdk")) as source:
        assert read_all(source) == before
    provider.remove(MARK)


def test_each_installation_has_its_own(provider: StorageSnapshots, datastore: Path) -> None:
    write_disk(datastore, "web", bytes(512))
    provider.create(MARK, ["web/web.vmdk"])
    provider.create(OTHER, ["web/web.vmdk"])
    assert provider.remove(MARK)
    assert provider.list(MARK.installation) == ()
    assert provider.list(OTHER.installation) == ("run-1.1",)
    assert provider.remove(OTHER)


def test_several_processes_make_one(provider: StorageSnapshots, datastore: Path) -> None:
    data = random.Random(2).randbytes(MIB)
    write_disk(datastore, "web", data)
    with ThreadPoolExecutor(6) as pool:
        for made in [pool.submit(provider.create, MARK, ["web/web.vmdk"]) for _ in range(6)]:
            made.result()
    assert [path.name for path in (datastore / FOLDER).iterdir()] == [folder_name(MARK)]
    assert content(provider, MARK, "web/web.vmdk") == data
    with ThreadPoolExecutor(6) as pool:
        for removed in [pool.submit(provider.remove, MARK) for _ in range(6)]:
            removed.result()
    assert not list((datastore / FOLDER).iterdir())


def test_killed_anywhere_it_is_whole_or_absent(provider: StorageSnapshots, datastore: Path) -> None:
    data = random.Random(3).randbytes(MIB)
    write_disk(datastore, "web", data)
    kept = datastore / FOLDER

    def create() -> None:
        provider.create(MARK, ["web/web.vmdk"])

    made = itertools.takewhile(lambda step: killed_before(step, create), itertools.count(1))
    for _ in made:
        left = list(kept.iterdir()) if kept.exists() else []
        assert provider.list("installation-1") == (("run-1.1",) if left else ())
        if (kept / folder_name(MARK)).exists():
            assert content(provider, MARK, "web/web.vmdk") == data
        create()
        assert content(provider, MARK, "web/web.vmdk") == data
        assert provider.remove(MARK)
        assert not list(kept.iterdir()), "what was half made is removed too"
        kept.rmdir()
    create()
    for step in itertools.count(1):
        killed = killed_before(step, lambda: provider.remove(MARK))
        if (kept / folder_name(MARK)).exists():
            assert content(provider, MARK, "web/web.vmdk") == data
        assert provider.list("installation-1") == (("run-1.1",) if list(kept.iterdir()) else ())
        provider.remove(MARK)
        assert not list(kept.iterdir())
        create()
        if not killed:
            assert step > 2
            break


def test_what_fails_leaves_nothing(provider: StorageSnapshots, datastore: Path) -> None:
    write_disk(datastore, "web", bytes(512))
    with pytest.raises(DiskNotFoundError, match=r"gone/gone\.vmdk"):
        provider.create(MARK, ["web/web.vmdk", "gone/gone.vmdk"])
    assert provider.list("installation-1") == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("btrfs", r"datastore ds1 at .*: it doesn't lie on btrfs"),
        ("reflink", r"its file system can't share blocks between files"),
    ],
)
def test_another_file_system_is_named(tmp_path: Path, settings: str, words: str) -> None:
    with mounted("ext4", tmp_path) as point:
        write_disk(point, "web", bytes(512))
        provider = snapshots_of("ds1", point, StorageSnapshotSettings.model_validate({"provider": settings}))
        for attempt in (provider.probe, lambda: provider.create(MARK, ["web/web.vmdk"])):
            with pytest.raises(StorageUnsuitableError, match=words) as caught:
                attempt()
            assert "Correct `provider` or `folder`" in caught.value.remedy
        assert provider.list("installation-1") == ()
        assert not list(point.glob(".proxyfleet-snapshots/*"))


def test_a_folder_elsewhere_is_refused(storage: Path, datastore: Path, tmp_path: Path) -> None:
    settings = StorageSnapshotSettings(provider=PROVIDER[storage.name], folder=tmp_path / "elsewhere")
    provider = snapshots_of("ds1", datastore, settings)
    with pytest.raises(StorageUnsuitableError, match="datastore ds1"):
        provider.probe()
    write_disk(datastore, "web", bytes(1 << 20))
    with pytest.raises(StorageUnsuitableError, match="datastore ds1"):
        provider.create(MARK, ["web/web.vmdk"])
    assert provider.list("installation-1") == ()


def test_vms_in_subvolumes_of_their_own_are_not_taken_for_frozen(tmp_path: Path) -> None:
    with mounted("btrfs", tmp_path) as point:
        run("btrfs", "subvolume", "create", point / "web")
        write_flat(point / "web", "web", bytes(512))
        provider = snapshots_of("ds1", point, StorageSnapshotSettings(provider="btrfs"))
        with pytest.raises(
            StorageSnapshotError, match=r"perhaps in a subvolume of its own.*provider = \"reflink\""
        ):
            provider.create(MARK, ["web/web.vmdk"])
        assert provider.list("installation-1") == ()


def test_a_part_of_a_subvolume_is_enough(tmp_path: Path) -> None:
    with mounted("btrfs", tmp_path) as point:
        (point / "exports/ds1").mkdir(parents=True)
        (point / "snapshots").mkdir()
        write_disk(point / "exports/ds1", "web", b"as it was" * 512)
        settings = StorageSnapshotSettings(provider="btrfs", folder=point / "snapshots")
        provider = snapshots_of("ds1", point / "exports/ds1", settings)
        provider.probe()
        provider.create(MARK, ["web/web.vmdk"])
        assert content(provider, MARK, "web/web.vmdk") == b"as it was" * 512
        assert provider.remove(MARK)

        alone = tmp_path / "alone"
        alone.mkdir()
        run("mount", "--bind", point / "exports/ds1", alone)
        try:
            with pytest.raises(StorageUnsuitableError, match="mounted by itself"):
                snapshots_of("ds1", alone, settings).probe()
        finally:
            run("umount", alone)


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_full_storage_is_named(tmp_path: Path, kind: str) -> None:
    with mounted(kind, tmp_path) as point:
        write_disk(point, "web", bytes(MIB))
        fill(point)
        provider = snapshots_of("ds1", point, StorageSnapshotSettings.model_validate({"provider": PROVIDER[kind]}))
        made: list[str] = []
        with pytest.raises(StorageFullError, match=r"No space left on device\. Free space on the datastore"):
            make_without_end(provider, made)
        assert sorted(provider.list("installation-1")) == sorted(made), "what failed leaves nothing"


def make_without_end(provider: StorageSnapshots, made: list[str]) -> None:
    """One after the other: what the file system keeps for itself is used up first."""
    for number in itertools.count():
        provider.create(MARK.model_copy(update={"journal": f"run-{number}"}), ["web/web.vmdk"])
        made.append(f"run-{number}")


def fill(point: Path) -> None:
    """Leave a file system no room."""
    size = 8 * MIB
    for number in itertools.count():
        try:
            with (point / f"ballast-{number}").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size //= 2
            if size < 4096:
                return
