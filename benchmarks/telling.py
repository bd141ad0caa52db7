"""What a benchmark came to, as a table for people and as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Judged, Round


def tell(judged: Sequence[Judged], rounds: Sequence[Round], about: Mapping[str, object], target: Path) -> int:
    """Print the table, write the JSON to `target`; the exit code, 1 when a row is missed."""
    _show(judged)
    result = {
        **about,
        "cores": len(os.sched_getaffinity(0)),
        "rows": [
            {
                "row": j.row.name,
                "unit": j.row.unit,
                "limit": j.row.limit if math.isfinite(j.row.limit) else None,
                "at_least": j.row.at_least,
                "median": round(j.median, 4),
                "rounds": [round(figure, 4) for figure in j.figures],
                "holds": j.holds,
            }
            for j in judged
        ],
        "rounds": list(rounds),
    }
    target.write_text(json.dumps(result, indent=1))
    print(f"written to {target}")
    return 0 if all(j.holds for j in judged) else 1


def _show(judged: Sequence[Judged]) -> None:
    table = Table("row", "limit", "median", "rounds", "")
    for j in judged:
        bound = "at least " if j.row.at_least else ""
        table.add_row(
            j.row.name,
            f"{bound}{j.row.limit:g} {j.row.unit}" if math.isfinite(j.row.limit) else "",
            f"{j.median:.3g} {j.row.unit}",
            " ".join(f"{figure:.3g}" for figure in j.figures),
            _verdict(j),
        )
    Console(width=120).print(table)


def _verdict(judged: Judged) -> str:
    if not math.isfinite(judged.row.limit):
        return "for information"
    return "holds" if judged.holds else "[bold red]MISSED[/]"
