"""Images in, images out: `proxy-worker repository import` and `export`, with the images that qemu-img makes."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from proxy_worker.repository.repository import Repository
from proxy_worker.repository.store.local import LocalStore
from tests.repository.making import CHEAP
from tests.system.commands import run_forked

CONTENT = random.Random(3).randbytes(3 << 20) + bytes(4 << 20) + random.Random(4).randbytes(1 << 20)


class Shell:
    """A folder with a repository and one disk's content in images of several formats."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        (folder / "passphrase").write_text("correct horse\n")
        (folder / "disk.raw").write_bytes(CONTENT)
        (folder / "repo").mkdir()
        Repository.create(LocalStore(folder / "repo"), passphrase=b"correct horse", kdf_cost=CHEAP).close()
        for made, kind, options in (
            ("disk.qcow2", "qcow2", ()),
            ("old.qcow2", "qcow2", ("-o", "compat=0.10")),
            ("packed.qcow2", "qcow2", ("-c",)),
            ("disk.vmdk", "vmdk", ()),
        ):
            self.tool("qemu-img", "convert", "-q", "-f", "raw", "-O", kind, *options, "disk.raw", made)

    def ours(self, command: str, *words: str, code: int = 0) -> str:
        opened = ("repo", "--passphrase-file", "passphrase")
        called = ["proxy-worker", "repository", command, *opened, *words]
        done = run_forked(called, self.environment, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def tool(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def points(self) -> list[str]:
        return [point["point"] for point in json.loads(self.ours("list", "--json"))]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("images"))


def test_images_of_every_format_become_one_point_and_come_out_in_every_format(shell: Shell) -> None:
    images = ["disk.raw", "disk.qcow2", "old.qcow2", "packed.qcow2", "disk.vmdk"]
    named = [f"scsi0:{number}={image}" for number, image in enumerate(images)]
    imported = json.loads(shell.ours("import", "--vm", "web", *named, "--json"))

    assert [disk["image"] for disk in imported["disks"]] == images
    assert imported["disks"][1]["stored_bytes"] < 1 << 20  # what the first stored is known
    for number, kind in enumerate(["raw", "qcow2", "vmdk", "qcow2", "raw"]):
        made = f"out-{number}.{kind}"
        shell.ours("export", "--vm", "web", "--disk", f"scsi0:{number}", "--format", kind, "--to", made)
        told = shell.tool("qemu-img", "compare", "-f", kind, "-F", "raw", made, "disk.raw")
        assert "identical" in told
        assert stat.S_IMODE((shell.folder / made).stat().st_mode) == 0o600


def test_an_image_may_be_called_as_its_disk_is(shell: Shell) -> None:
    """For qemu-img, what stands before a colon is a protocol."""
    shell.ours("import", "--vm", "colon", "scsi0:0=disk.raw")
    shell.ours("export", "--vm", "colon", "--disk", "scsi0:0", "--format", "qcow2", "--to", "colon-scsi0:0.qcow2")

    shell.ours("import", "--vm", "again", "scsi0:0=colon-scsi0:0.qcow2")
    told = shell.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "./colon-scsi0:0.qcow2", "disk.raw")
    assert "identical" in told


def test_an_image_that_exists_is_left_alone_unless_told(shell: Shell) -> None:
    shell.ours("import", "--vm", "one", "scsi0:0=disk.raw")
    (shell.folder / "there.raw").write_text("mine")
    whose = ("--vm", "one", "--disk", "scsi0:0", "--format", "raw", "--to", "there.raw")

    assert "image there.raw: it exists" in shell.ours("export", *whose, code=3)
    assert (shell.folder / "there.raw").read_text() == "mine"
    shell.ours("export", *whose, "--overwrite")
    assert (shell.folder / "there.raw").read_bytes() == CONTENT


def _cut(shell: Shell, name: str) -> None:
    (shell.folder / name).write_bytes((shell.folder / "disk.qcow2").read_bytes()[: 2 << 20])


def _child(shell: Shell, name: str) -> None:
    shell.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", name)


def _no_image(shell: Shell, name: str) -> None:
    (shell.folder / name).write_text("no image")


def _external(shell: Shell, name: str) -> None:
    shell.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=x.data,data_file_raw=on", name, "1M")


def _encrypted(shell: Shell, name: str) -> None:
    image = bytearray((shell.folder / "disk.qcow2").read_bytes())
    image[32:36] = (2).to_bytes(4, "big")  # the header says LUKS
    (shell.folder / name).write_bytes(image)


def _says(size_bytes: int) -> Callable[[Shell, str], None]:
    """A qcow2 whose header says another size than its tables have."""

    def make(shell: Shell, name: str) -> None:
        image = bytearray((shell.folder / "disk.qcow2").read_bytes())
        image[24:32] = size_bytes.to_bytes(8, "big")
        (shell.folder / name).write_bytes(image)

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_says(1 << 40), "L1 table is too small"),
        (_says((1 << 63) - 512), "Image is too big"),
        (_cut, "it is damaged or cut short"),
        (_child, "it has a backing file. Make one file of it"),
        (_no_image, "isn't a qcow2 image"),
        (_external, "its data is in another file"),
        (_encrypted, "it is encrypted"),
    ],
)
def test_an_image_that_is_not_whole_imports_nothing(
    shell: Shell, make: Callable[[Shell, str], None], said: str
) -> None:
    before = shell.points()
    name = f"{said.rsplit(maxsplit=1)[-1]}.qcow2"
    make(shell, name)

    told = shell.ours("import", "--vm", "bad", "scsi0:0=disk.raw", f"scsi0:1={name}", code=8)

    assert said in told
    assert shell.points() == before


@pytest.mark.parametrize("header", [True, False])
def test_a_vmdk_that_lies_about_its_size_imports_nothing(shell: Shell, header: bool) -> None:
    before = shell.points()
    if header:  # the sparse extent's own header against the descriptor in it
        image = bytearray((shell.folder / "disk.vmdk").read_bytes())
        image[12:20] = (1 << 30).to_bytes(8, "little")
        (shell.folder / "lies.vmdk").write_bytes(image)
    else:
        sectors = len(CONTENT) // 512 + 1
        (shell.folder / "lies.vmdk").write_text(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
            f'createType="monolithicFlat"\nRW {sectors} FLAT "disk.raw" 0\n'
        )

    told = shell.ours("import", "--vm", "bad", "scsi0:0=lies.vmdk", code=8)

    assert "sectors" in told if header else "is truncated" in told
    assert shell.points() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("disk.raw",), 3, "it isn't of the form KEY=IMAGE"),
        (("scsi0:0=disk.raw", "scsi0:0=disk.vmdk"), 3, "scsi0:0 is disk.raw already"),
        (("scsi0:0=missing.raw",), 4, "missing.raw"),
        (("scsi0:0=passphrase",), 3, "it isn't a disk: it has 14 bytes"),
        (("scsi0:0=empty.raw",), 3, "it isn't a disk: it has 0 bytes"),
        (("a place=disk.raw",), 3, "key 'a place'"),
    ],
)
def test_what_cannot_be_imported_is_named(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    (shell.folder / "empty.raw").touch()
    assert said in shell.ours("import", "--vm", "bad", *words, code=code)


def test_what_appears_at_the_place_of_an_image_meanwhile_is_left_alone(shell: Shell) -> None:
    shell.ours("import", "--vm", "late", "scsi0:0=disk.raw")
    tools = shell.folder / "tools"
    tools.mkdir()
    slow = tools / "qemu-img"
    slow.write_text(f'#!/bin/sh\necho mine >{shell.folder}/late.raw\nexec {shutil.which("qemu-img")} "$@"\n')
    slow.chmod(0o755)
    whose = ("--vm", "late", "--disk", "scsi0:0", "--format", "raw", "--to", "late.raw")

    environment = {**shell.environment, "PATH": f"{tools}:{shell.environment['PATH']}"}
    with patch.object(shell, "environment", environment):
        assert "image late.raw: it has appeared meanwhile" in shell.ours("export", *whose, code=3)

    assert (shell.folder / "late.raw").read_text() == "mine\n"
    assert [path.name for path in shell.folder.iterdir() if "late" in path.name] == ["late.raw"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--to", "out.xyz"), 3, "its name ends in none of .raw, .qcow2, .vmdk"),
        (("--to", "nowhere/out.raw"), 12, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_exported_is_named(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    shell.ours("import", "--vm", "named", "scsi0:0=disk.raw")
    assert said in shell.ours("export", "--vm", "named", "--disk", "scsi0:0", *words, code=code)


def test_a_damaged_block_leaves_no_image(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ours("import", "--vm", "web", "scsi0:0=disk.raw")
    pack = max((tmp_path / "repo").rglob("packs/*/*"), key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"rot")
    whose = ("--vm", "web", "--disk", "scsi0:0", "--format", "raw", "--to", "out.raw")

    assert "is damaged" in shell.ours("export", *whose, code=5)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
