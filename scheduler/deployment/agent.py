"""Runs on the machine that is to be a proxy, as `python3 -c <this text> VERB`: JSON in, JSON out.

It may use nothing but Python's own library. Each verb can be done again: what is as it should be is left alone.
A refusal is `{"problem": …}`; anything else that goes wrong there comes back as one line on stderr.
"""

from __future__ import annotations

import base64
import grp
import json
import os
import platform
import pwd
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

COMPLETE = ".complete"
"""Marks a release whose installation came to its end."""
CONNECT_TIMEOUT_S = 10
NOBODY = 65534


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """What the machine has, and what it reaches."""
    status = os.statvfs(_existing(Path(asked["software"])))
    software = Path(asked["software"])
    current = software / "current"
    certificate = Path(asked["config"]) / "secrets/redis-certificate.pem"
    owner, running = software / "name", software / "running"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free_bytes": status.f_bavail * status.f_frsize,
        "clock": time.time(),
        "libc": list(platform.libc_ver()),
        "systemd": Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None,
        "release": current.readlink().name if current.is_symlink() else None,
        "proxy": owner.read_text().strip() if owner.exists() else None,
        "running": running.read_text() if running.exists() else None,
        "certificate": certificate.read_text() if certificate.exists() else None,
        "unreached": {name: _problem(way, asked["account"]) for name, way in asked["reach"].items()},
        "folders": {
            name: [one for one in places if Path(one).is_dir()] for name, places in asked["places"].items()
        },
        "mounts": _mounts(),
        "others": [
            one
            for one in asked["own"]
            if Path(one).exists() and (not Path(one).is_dir() or any(Path(one).iterdir()))
        ],
    }


def unpack(asked: dict[str, Any], stream: Any) -> dict[str, Any]:
    """Unpack the tar archive that follows into a new folder."""
    folder = Path(asked["folder"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if not member.isfile() or "/" in member.name:
                raise ValueError(f"an unexpected member of the archive: {member.name}")
            archive.extract(member, folder)
    return {}


def has_release(asked: dict[str, Any]) -> dict[str, Any]:
    """Whether a release is installed whole."""
    return {"installed": (Path(asked["folder"]) / COMPLETE).exists()}


def install(asked: dict[str, Any]) -> dict[str, Any]:
    """Make a release: an environment of its own, from the wheels that were unpacked, each by its digest."""
    folder, wheels = Path(asked["folder"]), Path(asked["wheels"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = folder / "bin/python"
    pip = next(wheels.glob("pip-*.whl"))
    _run(
        *(str(python), str(pip / "pip"), "install", "--quiet", "--no-index", "--find-links", str(wheels)),
        *("--no-deps", "--require-hashes", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"),
        *("-r", str(wheels / "requirements.lock")),
    )
    _said(str(python), "-m", "compileall", "-q", "-j", "0", str(folder / "lib"))  # what can't be compiled isn't run
    (folder / COMPLETE).touch()
    shutil.rmtree(wheels)
    return {}


def account(asked: dict[str, Any]) -> dict[str, Any]:
    """Make sure of the system user that the proxy runs as."""
    name = asked["account"]
    try:
        pwd.getpwnam(name)
    except KeyError:
        home = ("--no-create-home", "--home-dir", asked["state"], "--shell", "/usr/sbin/nologin")
        _run("useradd", "--system", "--user-group", *home, name)
        return {"made": True}
    return {"made": False}


def write(asked: dict[str, Any]) -> dict[str, Any]:
    """Make folders and files what they are to be; says what the changed ones were, unless they are secret.

    No file is changed before all new ones are on the disk. Links that the proxy's user may have laid in its folders
    are never followed.
    """
    for folder in asked["folders"]:
        path = Path(folder["path"])
        path.mkdir(parents=True, exist_ok=True)
        if folder["mode"] is not None:
            _set(path, folder, os.O_DIRECTORY)
    changed: dict[str, str | None] = {}
    drafts: dict[Path, Path | None] = {}
    for file in asked["files"]:
        path, content = Path(file["path"]), _decoded(file["content"])
        before = path.read_bytes() if path.exists() and not path.is_symlink() else None
        if content is None:
            drafts[path] = None
        elif before != content:
            drafts[path] = _drafted(path, content, file)
        else:
            _set(path, file)
        if before != content:
            kept = before is not None and not file["secret"]
            changed[file["path"]] = base64.b64encode(before).decode() if kept and before is not None else None
    for path, draft in drafts.items():
        if draft is None:
            path.unlink(missing_ok=True)
        else:
            draft.replace(path)
    return {"changed": changed}


def activate(asked: dict[str, Any]) -> dict[str, Any]:
    """Let `current` be a release, in one step."""
    current = Path(asked["current"])
    before = current.readlink().name if current.is_symlink() else None
    draft = current.with_name(".current")
    draft.unlink(missing_ok=True)
    draft.symlink_to(f"releases/{asked['release']}")
    draft.replace(current)
    return {"before": before}


def prune(asked: dict[str, Any]) -> dict[str, Any]:
    """Remove all releases but some, without being waited for."""
    others = [str(one) for one in Path(asked["releases"]).iterdir() if one.name not in asked["keep"]]
    if others:
        quiet = subprocess.DEVNULL
        command = ["rm", "-rf", "--", *others]
        subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    return {}


def systemd(asked: dict[str, Any]) -> dict[str, Any]:
    """Start, stop or look at the unit."""
    unit, what = asked["unit"], asked["what"]
    if what == "start":
        _run("systemctl", "daemon-reload")
        _run("systemctl", "enable", "--quiet", unit)
        _run("systemctl", "restart", unit)
    elif what == "stop" and _said("systemctl", "cat", unit):
        _run("systemctl", "disable", "--quiet", unit)
        _run("systemctl", "stop", unit)
    running = _said("systemctl", "is-active", unit).strip() in {"active", "activating"}
    log = _said("journalctl", "--unit", unit, "--lines", "15", "--no-pager", "--output", "cat")
    return {"running": running, "log": log}


def supervisor(asked: dict[str, Any]) -> dict[str, Any]:
    """Start, stop or look at the supervisor that keeps the proxy running where there is no systemd."""
    script = Path(asked["script"])
    answer = {"running": False}
    if script.exists():
        answer = json.loads(_run(sys.executable, "-I", str(script), asked["what"]))
    log = script.with_name("proxy.log")
    lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
    return {**answer, "log": "\n".join(lines)}


def remove(asked: dict[str, Any]) -> dict[str, Any]:
    """Remove files and folders, and folders that this leaves empty."""
    removed = []
    for text in asked["paths"]:
        path = Path(text)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        removed.append(text)
    for text in asked["emptied"]:
        path = Path(text)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if asked["unit"]:
        _run("systemctl", "daemon-reload")
    return {"removed": removed}


def _problem(way: dict[str, Any], name: str) -> str | None:
    """Why something isn't reached; None when it is."""
    if "path" in way:
        path = way["path"]
        if not Path(path).is_dir():
            return f"there is no folder {path}"
        readable = _as_account(name, "test", "-r", path, "-a", "-x", path)
        return None if readable else f"{name} may not read {path}"
    if "command" in way:
        return None if shutil.which(way["command"]) else f"there is no command {way['command']}"
    try:
        socket.create_connection((way["host"], way["port"]), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{way['host']}:{way['port']}: {error.strerror or error}"
    return None


def _as_account(name: str, *command: str) -> bool:
    """Whether a command succeeds for the proxy's user, who may do what anybody may as long as it doesn't exist."""
    if os.geteuid() != 0:
        return subprocess.run(command, check=False).returncode == 0
    try:
        found = pwd.getpwnam(name)
        user, group, groups = found.pw_uid, found.pw_gid, os.getgrouplist(name, found.pw_gid)
    except KeyError:
        user, group, groups = NOBODY, NOBODY, []
    return subprocess.run(command, check=False, user=user, group=group, extra_groups=groups).returncode == 0


def _mounts() -> list[str]:
    """Where network and local storage is mounted."""
    fields = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [one[1] for one in fields if one[0].startswith("/dev/") or one[2].startswith(("nfs", "vmfs", "btrfs"))]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _drafted(path: Path, content: bytes, wanted: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        _give(descriptor, wanted)
    return draft


def _set(path: Path, wanted: dict[str, Any], kind: int = 0) -> None:
    """Mode and owner of what is there; raises `OSError` for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | kind)
    try:
        _give(descriptor, wanted)
    finally:
        os.close(descriptor)


def _give(descriptor: int, wanted: dict[str, Any]) -> None:
    if wanted["owner"] is not None and os.geteuid() == 0:
        user, _, group = wanted["owner"].partition(":")
        os.fchown(descriptor, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
    os.fchmod(descriptor, wanted["mode"])


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise OSError(f"`{' '.join(command[:3])} …` failed: {' '.join(said) or f'code {done.returncode}'}")
    return done.stdout


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


VERBS = {
    verb.__name__: verb
    for verb in (look, has_release, install, account, write, activate, prune, systemd, supervisor, remove)
}


def main() -> int:
    """Do what is asked for; the first line of the input is JSON, an archive may follow."""
    os.umask(0o022)
    stream = sys.stdin.buffer
    asked = json.loads(stream.readline())
    try:
        answer = unpack(asked, stream) if sys.argv[1] == "unpack" else VERBS[sys.argv[1]](asked)
    except (OSError, ValueError, KeyError, tarfile.TarError, StopIteration) as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
