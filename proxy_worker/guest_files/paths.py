"""Paths inside guests: bytes that anybody may have chosen."""

from __future__ import annotations

import posixpath

from proxy_worker.guest_files.errors import GuestPathError


def checked(path: bytes) -> bytes:
    """A path from its volume's root on, without `.` and `..`; raises `GuestPathError`."""
    if not path.startswith(b"/"):
        raise GuestPathError(
            f"path {shown(path)}",
            why="it doesn't begin with a slash",
            remedy="Name it from the volume's root on, with slashes: /etc/hosts, /Users/me/report.docx.",
        )
    return b"/" + posixpath.normpath(path).lstrip(b"/")


def shown(path: bytes) -> str:
    """A path for people: bytes that are no UTF-8, and what would control a terminal, look like \\xe9."""
    text = path.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
