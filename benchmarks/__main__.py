"""`python -m benchmarks`: measure, print the table, write the JSON, exit 1 when a row is missed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from benchmarks import fleet
from benchmarks.peers import Borg, PeerMissingError, Restic
from benchmarks.process import CommandFailedError
from benchmarks.rounds import Contenders, measure_round
from benchmarks.rows import judge
from benchmarks.second_day import prepare
from benchmarks.standalone import Repository
from benchmarks.telling import tell

GIB = 1 << 30


def main() -> int:
    """Run the benchmark; the exit code."""
    options = _options()
    folder: Path = options.folder.resolve()
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    disks = prepare(folder / f"disks-{options.gib}", options.gib * GIB)
    restic = borg = None
    versions = {"python": platform.python_version()}
    if not options.no_peers:
        restic, borg = Restic.install(folder / "tools", work), Borg.install(folder / "tools", work)
        versions |= {"restic": restic.version(), "borg": borg.version()}
    print(f"{versions}, {len(os.sched_getaffinity(0))} cores", flush=True)
    contenders = Contenders(
        Repository(work / "optimal"), Repository(work / "high"), Repository(work / "wide"), restic, borg
    )
    rounds = []
    for number in range(options.rounds):
        figures = measure_round(contenders, disks, work)
        if not options.no_fleet:
            figures |= fleet.measure(disks, work / "fleet")
        rounds.append(figures)
        brief = ", ".join(
            f"{k.removesuffix('_s')} {v:.1f}" for k, v in figures.items() if k.endswith("_s") and "cpu" not in k
        )
        print(f"round {number + 1} of {options.rounds}, seconds: {brief}", flush=True)
    about = {"versions": versions, "disk_gib": options.gib}
    return tell(judge(rounds), rounds, about, options.json or folder / "results.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--gib", type=int, default=4, help="size of the reference disk (4)")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where everything is made (.bench)")
    parser.add_argument("--json", type=Path, help="where the result goes (FOLDER/results.json)")
    parser.add_argument("--no-peers", action="store_true", help="leave out restic and borg, and their rows")
    parser.add_argument("--no-fleet", action="store_true", help="leave out the rows about the fleet")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PeerMissingError, CommandFailedError, fleet.FleetFailedError) as error:
        sys.exit(f"benchmark: {error}")
