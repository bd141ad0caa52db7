"""Whether a machine can keep the promise of a hardened repository. Where it can't, the warden doesn't start."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

from proxy_worker.warden import flags
from proxy_worker.warden.flags import Flag
from proxy_worker.warden.rights import HardeningRefusedError

_UNFIT: Final = {
    "tmpfs": "what it holds is gone when the machine restarts",
    "ramfs": "what it holds is gone when the machine restarts",
    "overlay": "what lies beneath it can be changed all the same",
}
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_OTHERS_WRITE, _OTHERS_ENTER, _GROUP_WRITES, _GROUP_ENTERS = 0o002, 0o001, 0o020, 0o010


def require_immutability(folder: Path) -> None:
    """Try out that files in a repository's folder can be made immutable; raises `HardeningRefusedError`."""
    kind = _file_system_of(folder)
    if kind in _UNFIT:
        raise _refused(folder, f"its file system is {kind}: {_UNFIT[kind]}")
    try:
        (folder / "tmp").mkdir(mode=0o770, exist_ok=True)
        probe = folder / "tmp" / f"probe-{secrets.token_hex(8)}"
        file = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused(folder, f"nothing can be written there: {error.strerror}") from error
    try:
        _try_out(folder, probe, file, kind)
    finally:
        with suppress(OSError):
            flags.take(file, Flag.IMMUTABLE)
        os.close(file)
        probe.unlink(missing_ok=True)


def _try_out(folder: Path, probe: Path, file: int, kind: str) -> None:
    try:
        flags.put(file, Flag.IMMUTABLE)
    except OSError as error:
        if error.errno == errno.EPERM:
            why = "the kernel doesn't let this process set the flag: CAP_LINUX_IMMUTABLE is missing"
        else:
            why = f"its file system, {kind}, has no flag that makes files immutable"
        raise _refused(folder, why) from error
    with suppress(PermissionError):
        probe.unlink()
        raise _refused(folder, f"its file system, {kind}, deletes files that it says are immutable")


def require_out_of_reach(place: Path, owner: os.stat_result, *, hidden: bool = False) -> None:
    """Raise `HardeningRefusedError` if whoever a repository's folder belongs to may write, or with `hidden`, enter
    this file or folder, or put another in its place: the gateway runs as that user."""
    if _may(place.stat(), owner, *((_OTHERS_ENTER, _GROUP_ENTERS) if hidden else (_OTHERS_WRITE, _GROUP_WRITES))):
        raise _in_reach(place, owner, "enter" if hidden else "change")
    require_kept_in_place(place, owner)


def require_kept_in_place(place: Path, owner: os.stat_result) -> None:
    """Raise `HardeningRefusedError` if that user may put another file or folder in the place of this one.

    It would have to change a folder above it, or above what its links lead to; in a sticky one everybody may rename
    what is their own.
    """
    for path in (place.absolute(), place.resolve()):
        for below, above in pairwise((path, *path.parents)):
            found = above.stat()
            sticky = found.st_mode & stat.S_ISVTX and owner.st_uid not in (found.st_uid, below.lstat().st_uid)
            if not sticky and _may(found, owner, _OTHERS_WRITE, _GROUP_WRITES):
                raise _in_reach(above, owner, "change")


def _may(found: os.stat_result, owner: os.stat_result, others: int, group: int) -> bool:
    return bool(
        found.st_uid == owner.st_uid
        or found.st_mode & others
        or (found.st_gid == owner.st_gid and found.st_mode & group)
    )


def _in_reach(place: Path, owner: os.stat_result, action: str) -> HardeningRefusedError:
    return HardeningRefusedError(
        f"warden: {place}",
        why=f"user {owner.st_uid}, whom the gateway runs as, may {action} it",
        remedy="Give it to root: whoever breaks into the gateway mustn't end terms by it.",
    )


def _file_system_of(folder: Path) -> str:
    """By /proc/self/mountinfo, proc_pid_mountinfo(5); of mounts over each other the last one counts."""
    place, best, kind = folder.resolve(), -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda escaped: chr(int(escaped[1], 8)), before.split(" ")[4]))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _refused(folder: Path, why: str) -> HardeningRefusedError:
    return HardeningRefusedError(
        f"repository in {folder} can't be hardened",
        why=why,
        remedy="Use a folder of its own on ext4, XFS or Btrfs, or offer the repository without hardening.",
    )
