"""The contender: `proxy-worker` alone, each command a process of its own, measured from start to exit."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process import Measured, folder_bytes, run

VM, DISK_KEY = "bench", "scsi0:0"
COMMAND = Path(sys.executable).with_name("proxy-worker")


@dataclass(frozen=True)
class Repository:
    """A repository of the benchmark, and the commands on it."""

    work: Path

    @property
    def folder(self) -> Path:
        return self.work / "repo"

    @property
    def passphrase_file(self) -> Path:
        return self.work / "passphrase"

    def _run(self, *arguments: str | Path) -> Measured:
        environment = {"XDG_CACHE_HOME": str(self.work / "cache")}
        return run([COMMAND, *arguments], environment=environment, folder=self.work)

    def init(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.passphrase_file.write_text("bench\n")
        self._run("repository", "init", self.folder, "--passphrase-file", self.passphrase_file)

    def back_up(
        self, disk: Path, *, level: str = "optimal", areas: Path | None = None
    ) -> tuple[Measured, dict[str, Any]]:
        """Back up a disk; what it took, and the command's own JSON."""
        changed = ["--changed-areas", str(areas)] if areas else []
        measured = self._run(
            "backup", disk, "--repository", self.folder, "--passphrase-file", self.passphrase_file, "--vm", VM,
            "--disk", DISK_KEY, "--level", level, "--json", *changed,
        )  # fmt: skip
        return measured, json.loads(measured.output.splitlines()[-1])

    def restore(self, target: Path) -> Measured:
        target.unlink(missing_ok=True)
        return self._run(
            "restore", "--repository", self.folder, "--passphrase-file", self.passphrase_file, "--vm", VM,
            "--disk", DISK_KEY, "--to", target, "--json",
        )  # fmt: skip

    def check(self) -> Measured:
        return self._run("repository", "check", self.folder, "--passphrase-file", self.passphrase_file, "--json")

    def stored_bytes(self) -> int:
        return folder_bytes(self.folder)
