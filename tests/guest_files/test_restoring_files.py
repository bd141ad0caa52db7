"""Files and folders of ext4, NTFS and XFS on LVM, out of a restore point; and all that can't be had."""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy_worker.cli.browsing_files import Browser
from proxy_worker.cli.opening import OptionError
from proxy_worker.cli.restoring_files import Wish, list_files, restore_all
from proxy_worker.guest_files.errors import (
    FileTargetError,
    GuestPathError,
    GuestReadError,
    NoSuchFileError,
    NoSuchVolumeError,
    TargetFileExistsError,
    UnreadableVolumeError,
    WhichVolumeError,
)
from proxy_worker.guest_files.guest import Entry, Guest
from proxy_worker.guest_files.landing import restore
from proxy_worker.guest_files.volumes import Volume
from proxy_worker.repository.points import Point
from tests.guest_files.conftest import LAST_WORDS, MODIFIED, ODD_NAME, REPORT


def wish(*paths: str, to: Path | None = None, volume: str | None = None, only_list: bool = False) -> Wish:
    return Wish(paths=paths, to=to, volume=volume, only_list=only_list, browse=False, as_json=True)


def test_volumes_are_listed_with_what_they_are(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    list_files(guest, wish(only_list=True))
    volumes = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {name: one["filesystem"] for name, one in volumes.items()} == {
        "scsi0:0/1": "ext4",
        "scsi0:0/2": "ntfs",
        "scsi0:0/3": "ext4",
        "scsi0:0/4": "xfs",
        "scsi0:0/5": "ntfs",
        "scsi0:1": "LVM2_member",
        "scsi0:2": "LVM2_member",
        "vg0/data": "xfs",
    }
    assert (volumes["scsi0:0/2"]["label"], volumes["scsi0:0/2"]["size_bytes"]) == ("Windows", 8 << 20)
    assert volumes["scsi0:1"]["problem"] == "it is a part of LVM, whose volumes have names of their own"
    assert volumes["scsi0:0/1"]["problem"] is None


@pytest.mark.parametrize(
    ("filesystem", "problem"),
    [
        ("crypto_LUKS", "it is encrypted (LUKS)"),
        ("BitLocker", "it is encrypted (BitLocker)"),
        ("linux_raid_member", "it is a part of a RAID, whose volumes have names of their own"),
        ("swap", "it is swap space"),
        ("", "its filesystem is unknown"),
        ("btrfs", None),
    ],
)
def test_what_holds_no_files_says_why(filesystem: str, problem: str | None) -> None:
    assert Volume("scsi0:0", "/dev/sda", filesystem, 1, "").problem == problem


def test_a_volume_on_disks_that_were_left_out_says_so() -> None:
    assert Volume("vg0/data", "", "", 0, "").problem == "a part of it is on a disk that isn't among these"


def test_a_folder_is_listed(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    list_files(guest, wish("/etc", only_list=True))
    found = {one["path"]: one for one in json.loads(capsys.readouterr().out)}
    assert sorted(path.removeprefix("/etc/") for path in found) == [
        *("app.d", "caf\\xe9 'x\\n", "fifo", "hosts", "hosts.too", "link", "sparse"),
    ]
    hosts = found["/etc/hosts"]
    assert (hosts["kind"], hosts["mode"], hosts["size_bytes"]) == ("file", "0640", 20)
    assert hosts["modified"] == "2001-09-09T01:46:40+00:00"
    assert (found["/etc/link"]["kind"], found["/etc/fifo"]["kind"]) == ("link", "fifo")


def test_files_of_three_filesystems_are_restored_at_once_with_mode_and_time(
    point: Point, guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ext4 is as after a power failure: its journal is replayed, in an overlay."""
    to = tmp_path / "restored"
    restore_all(guest, point, wish("/etc/hosts", "/report.docx", "/report.bin", to=to))
    told = json.loads(capsys.readouterr().out)
    assert [one["to"] for one in told["restored"]] == [
        str(to / name) for name in ("hosts", "report.docx", "report.bin")
    ]
    assert (to / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert (to / "report.docx").read_bytes() == REPORT
    assert (to / "report.bin").read_bytes() == REPORT
    found = (to / "hosts").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, MODIFIED)
    owner = (to / "report.bin").stat()
    assert (owner.st_uid, owner.st_gid) == ((7, 8) if os.geteuid() == 0 else (os.geteuid(), os.getegid()))
    assert "scsi0:0/1" not in guest.notes


def test_an_xfs_that_lost_its_power_has_its_log_replayed(guest: Guest, tmp_path: Path) -> None:
    guest.use(guest.volume("scsi0:0/4"))
    restore(guest, guest.entry(b"/last.words"), tmp_path)
    assert (tmp_path / "last.words").read_bytes() == LAST_WORDS
    assert "scsi0:0/4" not in guest.notes


def test_a_windows_that_was_hibernated_is_read_with_a_word_of_what_may_be_missing(
    guest: Guest, tmp_path: Path
) -> None:
    guest.use(guest.volume("scsi0:0/5"))
    restore(guest, guest.entry(b"/dream.txt"), tmp_path)
    assert (tmp_path / "dream.txt").read_bytes() == REPORT
    assert "Windows was hibernated" in guest.notes["scsi0:0/5"]


def test_a_folder_is_restored_with_all_that_files_can_be(
    point: Point, guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore_all(guest, point, wish("/etc/", to=tmp_path))
    told = json.loads(capsys.readouterr().out)["restored"][0]
    assert (told["files"], told["folders"], told["links"]) == (5, 2, 1)
    assert told["left_out"] == [["/etc/fifo", "special files hold nothing to restore"]]
    etc = tmp_path / "etc"
    assert stat.S_IMODE(etc.stat().st_mode) == 0o710
    assert etc.stat().st_mtime == MODIFIED
    assert (etc / "link").readlink() == Path("/etc/hosts")
    assert (etc / "hosts").samefile(etc / "hosts.too")
    assert (etc / os.fsdecode(ODD_NAME)).read_text() == "odd"
    assert (etc / "sparse").read_bytes() == bytes((5 << 20) - 4) + b"last"
    assert (etc / "sparse").stat().st_blocks * 512 < 5 << 20
    assert (etc / "app.d" / "empty").exists()
    assert list(tmp_path.iterdir()) == [etc]


def test_what_cannot_be_had_is_an_error_that_says_why(guest: Guest) -> None:
    with pytest.raises(
        NoSuchFileError, match="/etc/nothing: no volume that can be read has it; scsi0:0/3: its ext4"
    ):
        guest.locate([b"/etc/hosts", b"/etc/nothing"])
    with pytest.raises(
        WhichVolumeError, match=r"/: several volumes have it: scsi0:0/1 .* Choose one with --volume"
    ):
        guest.locate([b"/"])
    with pytest.raises(GuestPathError, match="doesn't begin with a slash"):
        guest.locate([b"C:\\Users"])
    with pytest.raises(NoSuchVolumeError, match=r"volume 'vg0/root': there are: scsi0:0/1 \(ext4\)"):
        guest.volume("vg0/root")
    for name, why in (
        ("scsi0:0/3", "its ext4 can't be mounted"),
        ("scsi0:1", "it is a part of LVM"),
    ):
        with pytest.raises(UnreadableVolumeError, match=f"volume {name}: {why}"):
            guest.use(guest.volume(name))


def test_a_target_that_exists_or_has_no_room_is_left_as_it_was(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "report.bin").write_text("mine")
    guest.use(guest.volume("vg0/data"))
    report = guest.entry(b"/report.bin")
    with pytest.raises(TargetFileExistsError, match="nothing is written over"):
        restore(guest, report, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(FileTargetError, match="File too large"):
            restore(guest, report, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "full").iterdir()) == []
    assert (tmp_path / "report.bin").read_text() == "mine"
    restore(guest, report, tmp_path / "later")
    assert (tmp_path / "later" / "report.bin").read_bytes() == REPORT, "the appliance has to be of use after that"


def test_the_browser_looks_around_and_restores(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = Browser(guest, tmp_path, title="web01")
    browser.cmdqueue = [
        *("use scsi0:0/1", "cd etc", "ls", "get hosts", "get link", "cd /nowhere", "cd hosts", "use vg0/data"),
        *(f"get report.bin {tmp_path}/data", "get", "remove everything", 'ls "', "help", "quit"),
    ]
    browser.run()
    printed = capsys.readouterr()
    assert "-rw-r-----" in printed.out
    assert "2001-09-09 01:46 hosts\n" in printed.out
    assert "link -> /etc/hosts\n" in printed.out
    assert "caf\\xe9 'x\\n\n" in printed.out
    assert (tmp_path / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "data" / "report.bin").read_bytes() == REPORT
    assert printed.err.splitlines() == [
        "/nowhere: volume scsi0:0/1 has no such file",
        "/etc/hosts: it is no folder",
        "get PATH [FOLDER]",
        "remove everything: there is no such command; `help` shows those there are.",
        'ls ": No closing quotation',
    ]
    assert browser.complete_use("vg") == ["vg0/data"]
    assert browser.completedefault("rep") == ["report.bin"]
    assert browser.completedefault("/nowhere/x") == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (wish("/etc"), "--path or --to is missing"),
        (wish(to=Path("x")), "--path or --to is missing"),
        (replace(wish(), browse=True), "--browse: it is for people, alone"),
    ],
)
def test_options_that_do_not_go_together_are_refused(asked: Wish, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        asked.check()


class _Hostile(Guest):
    """A guest whose folders are archives that somebody has made up."""

    def __init__(self, *members: tarfile.TarInfo) -> None:
        self._members = members

    @contextmanager
    def archive(self, entry: Entry) -> Iterator[io.BytesIO]:  # noqa: ARG002 - as the real one's
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for member in self._members:
                archive.addfile(member, io.BytesIO(bytes(member.size)))
        made.seek(0)
        yield made


def _member(name: str, kind: bytes = tarfile.REGTYPE, *, leads: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, leads
    return member


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ((_member("../outside"),), GuestReadError),
        ((_member("a", tarfile.SYMTYPE, leads=".."), _member("a/outside")), FileTargetError),
        ((_member("a", tarfile.LNKTYPE, leads="../../secret"),), GuestReadError),
    ],
)
def test_nothing_lands_outside_of_the_target(
    members: tuple[tarfile.TarInfo, ...], error: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / "secret").touch()
    folder = Entry(b"/etc", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0)
    with pytest.raises(error):
        restore(_Hostile(*members), folder, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []
    assert list(tmp_path.rglob("outside")) == []


def test_no_hard_link_goes_through_a_symbolic_one(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").touch()
    members = (
        _member("d", tarfile.SYMTYPE, leads=str(tmp_path / "host")),
        _member("x", tarfile.LNKTYPE, leads="d/secret"),
        _member("again", tarfile.LNKTYPE, leads="d"),
    )
    restore(_Hostile(*members), Entry(b"/etc", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0), tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to" / "etc").iterdir()) == ["again", "d"]
    assert (tmp_path / "to" / "etc" / "again").is_symlink()
    assert (tmp_path / "host" / "secret").stat().st_nlink == 1
