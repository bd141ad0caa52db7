"""What a process may do: the warden keeps one capability, the gateway has none. capabilities(7), prctl(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from proxy_worker.contract.errors import ConfigurationError

_LINUX_IMMUTABLE: Final = 9
_VERSION_3: Final = 0x20080522
_SET_DUMPABLE: Final = 4
_SET_KEEPCAPS: Final = 8
_SET_NO_NEW_PRIVS: Final = 38


class HardeningRefusedError(ConfigurationError):
    """A repository can't be hardened here, and isn't said to be."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep_immutability_alone(owner: os.stat_result, group: int) -> None:
    """Become the owner of a folder, with one more group, CAP_LINUX_IMMUTABLE and nothing else, for good.

    Nobody else may look into this process then, or stop it by a debugger. Raises `HardeningRefusedError`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _succeeded(libc.prctl(_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setgroups([group])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    elif os.geteuid() != owner.st_uid:
        raise HardeningRefusedError(
            "warden",
            why=f"it runs as user {os.geteuid()}, and the repository's folder belongs to user {owner.st_uid}",
            remedy="Start it as root: it becomes that user by itself.",
        )
    wanted = (_Capabilities * 2)(_Capabilities(1 << _LINUX_IMMUTABLE, 1 << _LINUX_IMMUTABLE, 0))
    if libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), wanted):
        raise HardeningRefusedError(
            "warden",
            why="it lacks the capability CAP_LINUX_IMMUTABLE, without which nothing is made immutable",
            remedy="Start it as root, and not in a container that is denied it: see docs/hardened-repository.md.",
        )
    _succeeded(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _succeeded(libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0))


def require_no_rights() -> None:
    """Raise `HardeningRefusedError` if this process could undo what makes objects immutable."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.partition(":")[::2] for line in status.splitlines())
    if os.geteuid() == 0 or int(fields["CapPrm"], 16) >> _LINUX_IMMUTABLE & 1:
        raise HardeningRefusedError(
            "gateway of a hardened repository",
            why="it runs as root, or may undo what makes objects immutable",
            remedy="Run it as the user whom the repository's folder belongs to, as its systemd unit does.",
        )


def _succeeded(code: int) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
