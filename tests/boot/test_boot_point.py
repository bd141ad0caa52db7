"""`proxy-worker boot-point` as a user has it, with a Linux that starts from its own boot sector. Without KVM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import DiskIdentity, VmIdentity
from proxy_worker.mover.configuration import ConfigurationFile, store_configuration
from proxy_worker.repository.repository import Repository
from tests.boot import linux_disk
from tests.repository.making import identity_of, make_repository, report_of, store_content

BIN = Path(sys.executable).parent
_DEADLINE_S = 240.0
_VMX = """\
displayName = "web01"
uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"
memSize = "256"
numvcpus = "1"
firmware = "{firmware}"
nvme0.present = "TRUE"
nvme0:0.fileName = "web01.vmdk"
"""
_EVERY_BUS = """\
displayName = "blank"
memSize = "65536"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi1.present = "TRUE"
scsi1.virtualDev = "lsisas1068"
scsi2.present = "TRUE"
scsi2.virtualDev = "lsilogic"
"""
_PLACES = {
    "scsi0:0": "pvscsi",
    "scsi1:0": "lsisas1068",
    "scsi2:0": "sata",
    "sata0:0": "sata",
    "ide0:0": "ide",
    "nvme0:0": "nvme",
}


@dataclass(frozen=True)
class World:
    """A folder with a repository; what runs in it keeps its temporary files in it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp")}

    @property
    def repository(self) -> Path:
        return self.folder / "repo"

    def command(self, vm: str, *words: str) -> list[str]:
        return [str(BIN / "proxy-worker"), "boot-point", "--repository", "repo", "--vm", vm, "--no-kvm", *words]

    def boot(self, vm: str, *words: str, code: int = 0) -> str:
        """What the command prints and says."""
        done = subprocess.run(
            self.command(vm, *words), cwd=self.folder, env=self.environment, capture_output=True, text=True,
            check=False, timeout=_DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[Path, int]:
        """All of the repository, and when it was last changed."""
        return {path: path.stat().st_mtime_ns for path in self.repository.rglob("*") if path.is_file()}

    def left(self) -> list[str]:
        """Temporary files, and processes that use them."""
        tmp = self.folder / "tmp"
        running = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                running.append(path.read_bytes().decode(errors="replace"))
        return [command for command in running if str(tmp) in command] + [str(path) for path in tmp.glob("*/*")]


def back_up(repository: Repository, vm: str, disks: dict[str, bytes], vmx: str | None) -> None:
    """A restore point of disks and a VMX, by hand: a datastore of this layout would need more."""
    identity = VmIdentity(vm_id=vm, name=vm)
    run = f"run-of-{vm}"
    results: list[tuple[DiskIdentity, int, str]] = []
    for key, content in disks.items():
        with repository.begin_disk(vm_id=vm, run=run, disk_key=key, fence=1, level=CompressionLevel.FAST) as writer:
            files = [ConfigurationFile(f"{vm}.vmx", vmx.encode())] if vmx is not None and not results else []
            sealed = writer.finish(
                size_bytes=len(content),
                segments=store_content(writer, content),
                report=report_of(writer, len(content)),
                configuration=store_configuration(writer, files),
            )
        results.append((identity_of(key), 1, sealed))
    repository.commit(vm=identity, run=run, job="nightly", disks=results, started_at=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("booted"))
    (world.folder / "tmp").mkdir()
    (world.folder / "disk").mkdir()
    linux = linux_disk.make_linux_disk(world.folder / "disk")
    with make_repository(world.repository, encrypted=False) as repository:
        back_up(repository, "web01", {linux_disk.KEY: linux}, _VMX.format(firmware="bios"))
        back_up(repository, "efi01", {linux_disk.KEY: linux}, _VMX.format(firmware="efi"))
        back_up(repository, "blank", dict.fromkeys(_PLACES, bytes(1 << 20)), _EVERY_BUS)
    yield world
    assert world.left() == []


def test_linux_starts_from_its_boot_sector_and_what_it_writes_is_forgotten(world: World) -> None:
    before = world.files()
    told: dict[str, Any] = json.loads(world.boot("web01", "--json", "--console", "console.log"))
    assert (told["booted"], told["prompt"], told["why"]) == (True, linux_disk.PROMPT, None)
    assert (told["firmware"], told["memory_mib"], told["cpus"], told["kvm"]) == ("bios", 256, 1, False)
    assert told["disks"] == [{"disk": linux_disk.KEY, "bus": "nvme"}]
    assert told["duration_seconds"] > 0

    console = (world.folder / "console.log").read_text()
    assert console.index("SeaBIOS") < console.index("Linux version") < console.index("written: before the backup")
    assert "written: by-the-guest" in console
    assert "networks: lo\n" in console
    assert "asked: io.systemd.credential:getty.ttys.serial=ttyS0" in console
    assert not (world.folder / "console.log.png").exists()
    assert world.files() == before
    assert world.left() == []


def test_a_vm_of_uefi_starts_by_uefi_and_any_prompt_can_be_waited_for(world: World) -> None:
    said = world.boot("efi01", "--prompt", "efi: EFI v[0-9.]+ by .*")
    assert said.startswith("efi01, restore point run-of-efi01: 'efi: EFI v")
    assert "\n  uefi, 1 CPU (emulated), 256 MiB, nvme0:0 by nvme, console in boot-run-of-efi01.log\n" in said
    assert ":\\EFI\\debian\\grubx64.efi\n" in (world.folder / "boot-run-of-efi01.log").read_text()


def test_a_vm_that_does_not_start_says_why_and_its_screen_is_kept(world: World) -> None:
    """It has a disk on each kind of controller, none of which has a boot sector."""
    said = world.boot("blank", code=1)
    assert "blank, restore point run-of-blank, showed no login prompt" in said
    assert "it said 'No bootable device.'" in said
    assert "2048 MiB" in said
    for key, bus in _PLACES.items():
        assert f"{key} by {bus}" in said
    assert "What it said is in boot-run-of-blank.log, its screen in boot-run-of-blank.log.png." in said
    assert "Boot failed" in (world.folder / "boot-run-of-blank.log").read_text()
    assert (world.folder / "boot-run-of-blank.log.png").read_bytes().startswith(b"\x89PNG")
    assert world.left() == []


def test_one_that_takes_too_long_is_ended(world: World) -> None:
    told = json.loads(
        world.boot("web01", "--json", "--minutes", "0.01", "--prompt", "never", code=1).partition("\nproxy")[0]
    )
    assert (told["booted"], told["prompt"]) == (False, None)
    assert told["why"].startswith("no prompt within 1 s")
    assert world.left() == []


def test_ctrl_c_ends_the_vm_with_the_command(world: World) -> None:
    console = world.folder / "interrupted.log"
    command = world.command("web01", "--console", str(console))
    with subprocess.Popen(command, cwd=world.folder, env=world.environment) as process:
        deadline = time.monotonic() + _DEADLINE_S
        while not console.exists() or not console.stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(_DEADLINE_S) == 130
    assert world.left() == []


def test_lost_blocks(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "tmp").mkdir()
    with make_repository(world.repository, encrypted=False) as repository:
        back_up(repository, "web01", {"ide0:0": bytes(510) + b"\x55\xaa" + bytes(65536 - 512)}, None)
    for pack in (tmp_path / "repo/packs").glob("*/*"):
        content = bytearray(pack.read_bytes())
        content[100:140] = bytes(40)
        pack.chmod(0o600)
        pack.write_bytes(content)
    said = world.boot("web01", "--json", code=5)
    assert "is damaged" in said
    assert world.left() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--prompt", "("), 3, "it is no regular expression: missing ), unterminated subpattern"),
        (("--memory", "999999999"), 3, "QEMU doesn't start the VM: "),
        (("--console", "nowhere/log"), 12, "console log nowhere/log: No such file or directory"),
        (("--overlay", "nowhere"), 12, "overlay in nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_started_is_named(world: World, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in world.boot("web01", *words, code=code)
