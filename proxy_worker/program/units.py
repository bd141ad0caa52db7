"""Figures as people read them."""

from __future__ import annotations

from typing import Final

_KIB: Final = 1024


def size(size_bytes: float | None) -> str:
    """`1.4 GiB`; a dash when it isn't known."""
    if size_bytes is None:
        return "-"
    if size_bytes < _KIB:
        return f"{size_bytes:.0f} B"
    value, unit = float(size_bytes), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):  # noqa: B007 - the last one reached is the unit
        value /= _KIB
        if value < _KIB - 0.5:
            break
    digits = 0 if value >= 100 else 1  # noqa: PLR2004 - three significant figures are enough to read
    return f"{value:.{digits}f} {unit}"
