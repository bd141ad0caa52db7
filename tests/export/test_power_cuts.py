"""What a power cut leaves of a share: what was synced, of files and of names in folders. The rest may be gone."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.contract.using import PointServe
from proxy_worker.export.disk import Extent
from proxy_worker.export.durable import DurableOverlay, OverlayDamagedError, make_files
from proxy_worker.export.nfs.kept import ShareFolderError, open_share
from proxy_worker.export.overlay import GRAIN
from proxy_worker.node.served_points import OpenShares, begin_share

SIZE = 2 * GRAIN + 512
TOKEN = bytes(range(16))
FLAT = "scsi0-0-flat.vmdk"
BODY = PointServe(
    repository=RepositoryReference(name="main", location="/repository", credential="main"),
    vm=VmIdentity(vm_id="vm-1", name="web01"),
    run="20260101T000000Z",
    share=TOKEN.hex(),
)


class Below:
    """A disk of one letter."""

    size_bytes = SIZE
    block_size = GRAIN

    def read_into(self, offset: int, view: memoryview) -> None:
        del offset
        view[:] = b"B" * len(view)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        del offset
        yield Extent(length, zero=False)


class Platter:
    """What is durable of files and folders, by their inodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.moments: list[list[set[bytes]]] = []
        """Before each sync: what each watched file may hold if the power goes, whatever the others do."""
        self._watched: tuple[Path, ...] = ()
        for call in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, call, self._sync)

    def watch(self, *files: Path) -> None:
        """Note moments of these from here on."""
        self._watched, self.moments = files, []

    def _sync(self, number: int) -> None:
        if self._watched:
            moment = [{self.contents[path.stat().st_ino], path.read_bytes()} for path in self._watched]
            self.moments.append(moment)
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            self.names[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(number)}
        else:
            self.contents[found.st_ino] = Path(f"/proc/self/fd/{number}").read_bytes()

    def leave(self, folder: Path, to: Path) -> Path:
        """Put beside it what a power cut now would leave of a folder."""
        to.mkdir()
        self._leave(folder.stat().st_ino, to)
        return to

    def _leave(self, folder: int, to: Path) -> None:
        for name, inode in self.names.get(folder, {}).items():
            if inode in self.names:
                (to / name).mkdir()
                self._leave(inode, to / name)
            else:
                (to / name).write_bytes(self.contents.get(inode, b""))


@pytest.fixture
def platter(monkeypatch: pytest.MonkeyPatch) -> Platter:
    return Platter(monkeypatch)


def read(disk: DurableOverlay, grain: int) -> bytes:
    found = bytearray(GRAIN)
    disk.read_into(grain * GRAIN, memoryview(found))
    assert len(set(found)) == 1, "a grain is whole"
    return bytes(found[:1])


def test_a_share_that_has_begun_is_there_and_so_is_what_was_flushed(platter: Platter, tmp_path: Path) -> None:
    begin_share(tmp_path / "served", BODY, {"scsi0:0": SIZE})
    with open_share(tmp_path / "served" / BODY.share, TOKEN, {"scsi0:0": Below()}).disks[FLAT] as disk:
        disk.write(0, memoryview(b"W" * GRAIN))
        disk.flush()
        left = platter.leave(tmp_path, tmp_path / "left") / "served" / BODY.share

    assert PointServe.model_validate_json((left / "point.json").read_text()) == BODY
    assert f'"{FLAT}"' in (left / "files" / "scsi0-0.vmdk").read_text()
    with open_share(left, TOKEN, {"scsi0:0": Below()}).disks[FLAT] as found:
        assert (read(found, 0), read(found, 1)) == (b"W", b"B")


def test_a_grain_reads_as_before_or_as_written_whenever_the_power_goes(platter: Platter, tmp_path: Path) -> None:
    files = tmp_path / "data", tmp_path / "marks"
    make_files(SIZE, *files)
    with DurableOverlay(Below(), *files) as disk:
        platter.watch(*files)
        disk.write(0, memoryview(b"W" * GRAIN))
        disk.flush()
        moments = list(platter.moments)

    assert len(moments) == 2, "the data is synced, and the marks are"
    for contents in itertools.chain(*(itertools.product(*moment) for moment in moments)):
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
        with DurableOverlay(Below(), *files) as found:
            assert read(found, 0) in {b"B", b"W"}


@pytest.mark.parametrize("lost", ["gone", "empty"])
def test_marks_that_are_lost_are_damage_and_not_a_disk_that_nobody_wrote_to(tmp_path: Path, lost: str) -> None:
    begin_share(tmp_path, BODY, {"scsi0:0": SIZE})
    folder = tmp_path / BODY.share
    with open_share(folder, TOKEN, {"scsi0:0": Below()}).disks[FLAT] as disk:
        disk.write(0, memoryview(b"W" * GRAIN))
    marks = folder / "marks" / FLAT
    marks.unlink() if lost == "gone" else os.truncate(marks, 0)

    for _ in range(2):  # and it isn't held by the first who tried
        with pytest.raises(OverlayDamagedError, match="Restore the disk anew"):
            open_share(folder, TOKEN, {"scsi0:0": Below()})


@pytest.mark.parametrize("left", ["", "{", '{"share": 1}', "\xff"])
def test_a_point_that_cant_be_read_is_named(tmp_path: Path, left: str) -> None:
    point = tmp_path / BODY.share / "point.json"
    point.parent.mkdir()
    point.write_text(left, encoding="latin-1")

    with pytest.raises(ShareFolderError, match=r"point\.json: .* Cancel the instant restore"):
        OpenShares(tmp_path, lambda _: pytest.fail("there is no repository to open"))(TOKEN)
