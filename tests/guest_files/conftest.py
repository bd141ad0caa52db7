"""A VM of three disks in a repository, and its guest as the appliance shows it: one for all tests, being slow."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy_worker.cli.opening import Opening, find_point
from proxy_worker.cli.restoring_files import opened_guest
from proxy_worker.guest_files.guest import Guest
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository
from tests.guest_files import guest_disks
from tests.guest_files.guest_disks import MIB, proxy_worker

MODIFIED = 1_000_000_000
REPORT = random.Random(1).randbytes(3 * MIB + 5)
LAST_WORDS = b"written when the power went\n"
ODD_NAME = b"caf\xe9 'x\n"


@dataclass(frozen=True)
class BackedUp:
    """A repository with a restore point of VM `web01`."""

    folder: Path


@pytest.fixture(scope="package")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    folder = tmp_path_factory.mktemp("guest")
    _disks(folder)
    (folder / "main.passphrase").write_text("correct horse\n")
    opened = ("--passphrase-file", "main.passphrase")
    proxy_worker("repository", "init", "repo", *opened, cwd=folder)
    disks = ("scsi0:0=root.raw", "scsi0:1=one.raw", "scsi0:2=two.raw")
    proxy_worker("repository", "import", "repo", *opened, "--vm", "web01", *disks, cwd=folder)
    return BackedUp(folder)


@pytest.fixture(scope="package")
def repository(backed_up: BackedUp) -> Iterator[Repository]:
    place = backed_up.folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        with Opening(str(place / "repo"), passphrase_file=place / "main.passphrase").repository() as repository:
            yield repository


@pytest.fixture(scope="package")
def point(repository: Repository) -> Point:
    return find_point(repository, "web01", None)


@pytest.fixture(scope="package")
def guest(repository: Repository, point: Point) -> Iterator[Guest]:
    with opened_guest(repository, point, ()) as guest:
        yield guest


def _disks(folder: Path) -> None:
    """A disk of partitions, and LVM over two more."""
    content = folder / "content"
    _fill(content)
    (folder / "report").write_bytes(REPORT)
    root = guest_disks.make_ext4(folder / "root", 24 * MIB, content)
    guest_disks.run("debugfs", "-w", "-R", "feature needs_recovery", root)  # as if its power had gone
    windows = guest_disks.make_ntfs(folder / "windows", 8 * MIB, {"report.docx": folder / "report"})
    short = guest_disks.make_ext4(folder / "short", 16 * MIB, content)
    os.truncate(short, 4 * MIB)
    lost_power = guest_disks.make_xfs(folder / "lost-power", 24 * MIB, {})
    guest_disks.leave_unreplayed(lost_power, "last.words", LAST_WORDS)
    (folder / "hibernation").write_bytes(b"hibr".ljust(8192, b"\0"))
    asleep = guest_disks.make_ntfs(
        folder / "asleep", 8 * MIB, {"dream.txt": folder / "report", "hiberfil.sys": folder / "hibernation"}
    )
    guest_disks.partitioned(folder / "root.raw", [root, windows, short, lost_power, asleep])
    data = guest_disks.make_xfs(folder / "data", 24 * MIB, {"report.bin": folder / "report"})
    guest_disks.spread_over([folder / "one.raw", folder / "two.raw"], "vg0", "data", data)


def _fill(content: Path) -> None:
    etc = content / "etc"
    (etc / "app.d").mkdir(parents=True)
    (etc / "app.d" / "empty").touch()
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "hosts").chmod(0o640)
    os.utime(etc / "hosts", (MODIFIED, MODIFIED))
    (etc / "hosts.too").hardlink_to(etc / "hosts")
    (etc / "link").symlink_to("/etc/hosts")
    os.mkfifo(etc / "fifo")
    (etc / os.fsdecode(ODD_NAME)).write_text("odd")
    with (etc / "sparse").open("wb") as file:
        file.truncate(5 * MIB)
        file.seek(-4, os.SEEK_END)
        file.write(b"last")
    etc.chmod(0o710)
    os.utime(etc, (MODIFIED, MODIFIED))
