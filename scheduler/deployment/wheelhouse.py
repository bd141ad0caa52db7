"""The wheelhouse: this package and its locked dependencies as wheels for one kind of machine, kept from then on.

    <state_dir>/wheelhouse/<digest of the lock>/<kind of machine>/*.whl     the dependencies, as pip downloaded them

pip compares each with the digest in the lock file, when it downloads and again where it installs. What pip is told
by its own configuration (an index, `find-links`) holds here too. This package itself, and pip, which a bare Python
doesn't have, are packed into wheels from what is installed here.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import importlib.metadata
import importlib.resources
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import Marker

from scheduler.deployment.errors import WheelhouseError

PACKAGE: Final = "proxyfleet"
_SOURCES: Final = ("proxy_worker", "scheduler")
_LOCK: Final = "requirements.lock"
_COMPLETE: Final = ".complete"
_TURN: Final = ".lock"
"""Held by whoever downloads."""
_OLDEST_GLIBC: Final = 17
_DIGITS: Final = 10
_EPOCH: Final = (2020, 1, 1, 0, 0, 0)
"""Every file's time in a wheel, so that the same sources make the same wheel."""


@dataclass(frozen=True)
class Kind:
    """What decides which wheels fit a machine."""

    architecture: str
    """`x86_64` or `aarch64`."""
    python: tuple[int, int, int]
    glibc: tuple[int, int]

    @property
    def name(self) -> str:
        """E.g. `x86_64-cp311-glibc236`."""
        return f"{self.architecture}-{self.tag}-glibc{''.join(map(str, self.glibc))}"

    @property
    def tag(self) -> str:
        """E.g. `cp311`."""
        return f"cp{self.python[0]}{self.python[1]}"

    @property
    def platforms(self) -> tuple[str, ...]:
        """Every platform tag whose wheels run there, newest first."""
        major, minor = self.glibc
        numbered = [f"manylinux_{major}_{one}_{self.architecture}" for one in range(minor, _OLDEST_GLIBC - 1, -1)]
        return (*numbered, *(f"manylinux{one}_{self.architecture}" for one in ("2014", "2010", "1")))

    @property
    def environment(self) -> dict[str, str]:
        """What a requirement's marker may ask about; pip would answer for this machine instead."""
        full = ".".join(map(str, self.python))
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": full,
            "python_version": full.rpartition(".")[0],
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Wheels:
    """All that is carried to a machine."""

    release: str
    """Version and a digest of everything."""
    archive: bytes
    """A tar of the wheels and the lock file."""


def packed(folder: Path, kind: Kind) -> Wheels:
    """The wheels for a machine, downloaded into `folder` where they aren't there yet; raises `WheelhouseError`."""
    lock = needed((importlib.resources.files(__package__) / _LOCK).read_text(), kind)
    digest = hashlib.sha256(lock.encode()).hexdigest()[:_DIGITS]
    dependencies = folder / digest / kind.name
    with _alone(folder, kind):
        if not (dependencies / _COMPLETE).exists():
            _download(dependencies, lock, kind)
            _forget_others(folder, digest)
    own = _own_wheel()
    hashed = hashlib.sha256(own).hexdigest()
    version = importlib.metadata.version(PACKAGE)
    lock += f"{PACKAGE}=={version} --hash=sha256:{hashed}\n"
    members = {path.name: path.read_bytes() for path in sorted(dependencies.glob("*.whl"))}
    members |= {f"{PACKAGE}-{version}-py3-none-any.whl": own, _LOCK: lock.encode()}
    pip = importlib.metadata.distribution("pip")
    members[f"pip-{pip.version}-py3-none-any.whl"] = _zipped(dict(_files_of(pip)))
    release = f"{version}-{hashlib.sha256(lock.encode()).hexdigest()[:_DIGITS]}"
    return Wheels(release, _tarred(members))


def needed(lock: str, kind: Kind) -> str:
    """The requirements of a lock file that a machine of this kind needs, without their markers."""
    kept: list[str] = []
    for entry in re.split(r"(?<!\\)\n", lock):
        requirement, _, rest = entry.partition("\\\n")
        name, _, marker = requirement.partition(";")
        if entry.startswith("#") or not entry.strip():
            continue
        if not marker.strip() or Marker(marker.strip()).evaluate(kind.environment):
            kept.append(f"{name.strip()} \\\n{rest}\n")
    return "".join(kept)


@contextmanager
def _alone(folder: Path, kind: Kind) -> Iterator[None]:
    """Nobody else downloads, or removes what is downloaded, during the block; another deployment waits for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _TURN).open("a")
    except OSError as error:
        raise _impossible(kind, f"{error.filename}: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(folder: Path, lock: str, kind: Kind) -> None:
    draft = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / _LOCK).write_text(lock)
        major, minor, _ = kind.python
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(draft)),
                *("--implementation", "cp", "--python-version", f"{major}.{minor}"),
                *(word for abi in (kind.tag, "abi3", "none") for word in ("--abi", abi)),
                *(word for platform in kind.platforms for word in ("--platform", platform)),
                *("-r", str(draft / _LOCK)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise _impossible(kind, " ".join(lines).removeprefix("ERROR: ") or done.stderr.strip()[-500:])
        (draft / _COMPLETE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    except OSError as error:
        raise _impossible(kind, f"{error.filename or draft}: {error.strerror or error}") from error


def _impossible(kind: Kind, why: str) -> WheelhouseError:
    return WheelhouseError(
        f"packages for {kind.architecture} with Python {kind.python[0]}.{kind.python[1]}",
        why=why,
        remedy="This machine downloads them once, from where pip is configured to (`pip config set "
        "global.index-url …`, or `find-links` with a folder of wheels); proxies need no internet.",
    )


def _forget_others(folder: Path, digest: str) -> None:
    for other in folder.iterdir():
        if other.name not in {digest, _TURN}:
            shutil.rmtree(other, ignore_errors=True)


def _own_wheel() -> bytes:
    distribution = importlib.metadata.distribution(PACKAGE)
    info = f"{PACKAGE}-{distribution.version}.dist-info"
    members = {
        f"{source}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for source in _SOURCES
        for root in [Path(str(importlib.resources.files(source)))]
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    members |= {f"{info}/METADATA": metadata.encode()}
    members |= {f"{info}/entry_points.txt": (distribution.read_text("entry_points.txt") or "").encode()}
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: scheduler\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    listed = [f"{name},sha256={_urlsafe(content)},{len(content)}" for name, content in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*listed, f"{info}/RECORD,,", ""]).encode()
    return _zipped(members)


def _files_of(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    for file in distribution.files or ():
        if re.match(r"\.\.|.*__pycache__", str(file)) is None:
            yield str(file), Path(str(file.locate())).read_bytes()


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _tarred(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
