"""The peers: restic with its defaults, borg 1.4 with fixed chunks of 1 MiB and zstd 3, both encrypted.

They are installed from public packages into a folder of their own, without root: restic is Debian's, borg is
PyPI's, built there against Debian's development files.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Measured, folder_bytes, run

RESTIC_RELEASE = "trixie"
"""The Debian release that has restic 0.18."""
BORG = "borgbackup==1.4.5"
_BORG_LIBRARIES = (
    "libacl1", "libacl1-dev", "libattr1", "libattr1-dev", "liblz4-1", "liblz4-dev", "libssl3", "libssl-dev",
    "libxxhash0", "libxxhash-dev", "libzstd1", "libzstd-dev",
)  # fmt: skip
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class PeerMissingError(Exception):
    """A peer can't be installed on this machine."""


def _checked(command: list[str | Path], *, folder: Path, environment: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise PeerMissingError(f"{command[0]} failed in {folder}:\n{(result.stderr or result.stdout)[-2000:]}")
    return result.stdout


def _unpack(packages: tuple[str, ...], release: str, folder: Path) -> Path:
    """Unpack Debian packages of a release below `folder`, through apt with lists of its own; returns the root."""
    for name in ("state/lists/partial", "cache/archives/partial", "downloads"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sites = [
        site
        for site in _checked(["apt-get", "indextargets", "--format", "$(SITE)"], folder=folder).split()
        if site.rstrip("/").endswith("/debian")
    ]
    if not sites:
        raise PeerMissingError("no Debian mirror is configured for apt, so the peers can't be installed")
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {sites[0]} {release} main\n")
    apt: list[str | Path] = ["apt-get", "-o", "APT::Sandbox::User=root"]
    for option in (f"Etc::sourcelist={sources}", "Etc::sourceparts=-", f"State={folder / 'state'}",
                   f"Cache={folder / 'cache'}", "State::status=/var/lib/dpkg/status"):  # fmt: skip
        apt += ["-o", f"Dir::{option}"]
    _checked([*apt, "update"], folder=folder)
    _checked([*apt, "download", *packages], folder=folder / "downloads")
    for package in (folder / "downloads").glob("*.deb"):
        _checked(["dpkg-deb", "-x", package, folder / "root"], folder=folder)
    return folder / "root"


def _install_restic(folder: Path) -> Path:
    binary = folder / "root" / "usr" / "bin" / "restic"
    if not binary.exists():
        _unpack(("restic",), RESTIC_RELEASE, folder)
    return binary


def _install_borg(folder: Path) -> Path:
    binary = folder / "venv" / "bin" / "borg"
    if not binary.exists():
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        usr = _unpack(_BORG_LIBRARIES, release, folder) / "usr"
        libraries = next((usr / "lib").glob("*-linux-gnu"))
        names = ("OPENSSL", "LIBLZ4", "LIBZSTD", "LIBXXHASH", "LIBACL")
        environment = {f"BORG_{name}_PREFIX": str(usr) for name in names}
        environment["CFLAGS"] = f"-I{usr / 'include'} -I{usr / 'include' / libraries.name}"
        environment["LDFLAGS"] = f"-L{libraries} -Wl,-rpath,{libraries}"
        _checked([sys.executable, "-m", "venv", folder / "venv"], folder=folder)
        pip = folder / "venv" / "bin" / "pip"
        _checked([pip, "install", "--no-cache-dir", BORG], folder=folder, environment=environment)
    return binary


@dataclass(frozen=True)
class Restic:
    """restic 0.18 with its defaults."""

    binary: Path
    work: Path

    @classmethod
    def install(cls, tools: Path, work: Path) -> Restic:
        folder = tools / "restic"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(_install_restic(folder), work / "restic")

    @property
    def folder(self) -> Path:
        return self.work / "repo"

    def version(self) -> str:
        return _checked([self.binary, "version"], folder=self.binary.parent).strip()

    @property
    def _environment(self) -> dict[str, str]:
        return {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(self.work / "cache")}

    def _run(self, *arguments: str | Path) -> Measured:
        command = [self.binary, "-r", self.folder, *arguments]
        return run(command, environment=self._environment, folder=self.work)

    def _run_unmeasured(self, *arguments: str | Path) -> None:
        _checked([self.binary, "-r", self.folder, *arguments], folder=self.work, environment=self._environment)

    def init(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self._run("init")

    def back_up(self, disk: Path) -> Measured:
        return self._run("backup", disk)

    def restore(self, target: Path, *, sparse: bool = False) -> Measured:
        """By default the whole file is written; to a sparse one is restic's fastest way."""
        return self._run("restore", "latest", *(["--sparse"] if sparse else []), "--target", target)

    def check(self) -> Measured:
        return self._run("check", "--read-data")

    def snapshot(self, folder: Path) -> None:
        """Back up a folder beside others that do; not measured, as a disk of its own `host`."""
        self._run_unmeasured("backup", "--host", folder.name, folder)

    def forget(self, *, keep_last: int) -> None:
        """Forget all but the newest snapshots of each host."""
        self._run_unmeasured("forget", "--keep-last", str(keep_last), "--group-by", "host")

    def prune(self) -> Measured:
        return self._run("prune")

    def stored_bytes(self) -> int:
        return folder_bytes(self.folder)


@dataclass(frozen=True)
class Borg:
    """borg 1.4, `fixed,1048576 -C zstd,3`, encrypted."""

    binary: Path
    work: Path

    @classmethod
    def install(cls, tools: Path, work: Path) -> Borg:
        folder = tools / "borg"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(_install_borg(folder), work / "borg")

    def version(self) -> str:
        return _checked([self.binary, "--version"], folder=self.binary.parent).strip()

    def _run(self, *arguments: str | Path) -> Measured:
        environment = {
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(self.work / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        return run([self.binary, *arguments], environment=environment, folder=self.work)

    def init(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self._run("init", "-e", "repokey-blake2", self.work / "repo")

    def back_up(self, disk: Path) -> Measured:
        return self._run(
            "create",
            "--chunker-params",
            "fixed,1048576",
            "-C",
            "zstd,3",
            f"{self.work / 'repo'}::{disk.stem}",
            disk,
        )

    def stored_bytes(self) -> int:
        return folder_bytes(self.work / "repo")
