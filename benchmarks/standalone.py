"""The contender: `proxy-worker` alone, each command a process of its own, measured from start to exit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
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

    @property
    def cache(self) -> Path:
        """Where its commands keep indexes."""
        return self.work / "cache" / "proxyfleet"

    @property
    def _environment(self) -> dict[str, str]:
        return {"XDG_CACHE_HOME": str(self.cache.parent)}

    def _run(self, *arguments: str | Path) -> Measured:
        return run([COMMAND, *arguments], environment=self._environment, folder=self.work)

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

    def collect(self, *options: str) -> tuple[Measured, dict[str, Any]]:
        """Free what no restore point needs; what it took, and the command's own JSON."""
        measured = self._run(
            "repository", "collect", self.folder, "--passphrase-file", self.passphrase_file, "--json", *options
        )
        return measured, json.loads(measured.output)

    def serve_point(self) -> subprocess.Popen[str]:
        """Serve the newest restore point's disk on a socket; the process says where on its first line."""
        return subprocess.Popen(
            [COMMAND, "serve-point", "--repository", self.folder, "--passphrase-file", self.passphrase_file,
             "--vm", VM, "--disk", DISK_KEY, "--socket", self.work / "export.sock", "--json"],
            env={**os.environ, **self._environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stored_bytes(self) -> int:
        return folder_bytes(self.folder)
