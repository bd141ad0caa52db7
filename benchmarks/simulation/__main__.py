"""`python -m benchmarks.simulation`: simulate, print the table or JSON, exit 1 when a promise isn't kept."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.simulation.figures import Figure, behind_a_large_job, memory, with_mishaps, without_mishaps
from benchmarks.simulation.simulation import Mishaps
from benchmarks.simulation.workload import Workload, fleet, job_sizes, jobs

DATASTORES = 50
BAD_DAY = Mishaps(failing_share=0.02, slow_share=0.05, outages=10)


def main() -> int:
    """Simulate; the exit code."""
    options = _options()
    sections = dict(_sections(options))
    kept = all(figure.holds for figures in sections.values() for figure in figures)
    if options.json:
        print(json.dumps({title: [_as_json(figure) for figure in figures] for title, figures in sections.items()}))
    else:
        Console(width=120).print(_table(sections))
    return 0 if kept else 1


def _sections(options: argparse.Namespace) -> Iterator[tuple[str, list[Figure]]]:
    proxies = fleet(options.proxies, options.slots, DATASTORES, seed=options.seed, reach=DATASTORES // 2)
    largest = options.disks // 10
    sizes = job_sizes(options.disks, largest, seed=options.seed)
    workload = Workload(proxies, tuple(jobs(sizes, DATASTORES, seed=options.seed)))
    what = f"{options.disks:,} disks of {len(sizes)} jobs, {len(proxies):,} proxies with {options.slots} slots each"
    yield what, without_mishaps(workload)
    yield (
        "the same, 2% of attempts fail, 5% of proxies are 3 times slower, 10 go away",
        with_mishaps(workload, BAD_DAY),
    )
    alike = fleet(options.proxies, options.slots, DATASTORES, seed=options.seed, reach=DATASTORES)
    large = Workload(alike, tuple(jobs([largest], DATASTORES, seed=options.seed)))
    small = list(jobs([0, 2], DATASTORES, seed=options.seed, since=600.0))
    yield (
        f"a job of 2 disks, 10 minutes after one of {largest:,}, any proxy reaches any disk",
        behind_a_large_job(large, small),
    )
    peak = Figure("peak of the process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    yield "memory", [*memory(DATASTORES, disks=options.disks), peak]


def _table(sections: dict[str, list[Figure]]) -> Table:
    table = Table("FIGURE", "VALUE", "UNIT", "PROMISED", "", box=None, header_style="bold", pad_edge=False)
    table.columns[1].justify = "right"
    for title, figures in sections.items():
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        for figure in figures:
            table.add_row(
                f"  {figure.name}", _number(figure.value), figure.unit, _promise(figure), _verdict(figure)
            )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def _promise(figure: Figure) -> str:
    if figure.at_most is not None:
        return f"at most {figure.at_most:,g}"
    return f"at least {figure.at_least:,g}" if figure.at_least is not None else ""


def _verdict(figure: Figure) -> str:
    if figure.at_most is None and figure.at_least is None:
        return ""
    return "[green]kept[/green]" if figure.holds else "[bold red]missed[/bold red]"


def _as_json(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "at_most": figure.at_most,
        "at_least": figure.at_least,
        "holds": figure.holds,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--proxies", type=int, default=1_000)
    parser.add_argument("--slots", type=int, default=4, help="of each proxy")
    parser.add_argument("--disks", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
