"""QEMU's monitor: one command, asked on its socket. Source: QEMU's `docs/interop/qmp-spec`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 10.0


def take_picture(monitor: Path, to: Path) -> bool:
    """Write a guest's screen to a PNG file; False when QEMU has ended, or can't."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_TIMEOUT_S)
            link.connect(str(monitor))
            with link.makefile("rwb") as lines:
                lines.readline()  # its greeting
                for command in (
                    {"execute": "qmp_capabilities"},
                    {"execute": "screendump", "arguments": {"filename": str(to), "format": "png"}},
                ):
                    lines.write(json.dumps(command).encode() + b"\n")
                    lines.flush()
                    answer = json.loads(lines.readline())
                    while "event" in answer:
                        answer = json.loads(lines.readline())
                    if "return" not in answer:
                        return False
    except (OSError, ValueError):
        return False
    return True
