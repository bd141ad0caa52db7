"""`python -m benchmarks.wide_area`: a backup to a gateway, and a restore, over a line of 80 Mbit/s and 100 ms.

Two network namespaces are the sites, `tc tbf` makes the line narrow, and a relay in user space makes it long. The
disk doesn't compress, so what is stored is what has to cross. The rate is what was stored by the wall time of the
whole command, from its start to its end. Exits with 1 below 85% of the line. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.far import COMMAND, certify, environment, gateway
from benchmarks.process import folder_bytes, run
from tests.two_sites import Sites, two_sites

MBIT_S = 80
ROUND_TRIP_S = 0.1
LEAST = 0.85
MIB = 1 << 20
DISK = ("--vm", "bench", "--disk", "scsi0:0")


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wide_area", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--mib", type=int, default=384, help="size of the disk (384)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="proxyfleet-bench-") as name,
        two_sites(mbit_s=MBIT_S, delay_s=ROUND_TRIP_S / 2) as sites,
    ):
        folder = Path(name)
        certify(folder, host=sites.remote.address)
        disk = folder / "disk.raw"
        with disk.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(MIB))
        rounds = [_round(folder, sites, disk) for _ in range(options.rounds)]
    figures = {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]}
    missed = min(figures["backup_of_line"], figures["restore_of_line"]) < LEAST
    print(json.dumps({**figures, "rounds": rounds, "missed": missed}, indent=2))
    return int(missed)


def _round(folder: Path, sites: Sites, disk: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        with sites.remote.entered(), gateway(folder, place) as port:
            far = sites.reach(sites.remote, port)
            with sites.primary.entered():
                return _moved(folder, place, disk, f"proxyfleet://{far.host}:{far.port}/far")


def _moved(folder: Path, place: Path, disk: Path, location: str) -> dict[str, float]:
    def timed(*words: str | Path) -> float:
        command: Sequence[str | Path] = [COMMAND, *words]
        return run(command, environment=environment(folder, place), folder=place).wall_s

    timed("repository", "init", location, "--no-encryption")
    backup_s = timed("backup", disk, "--repository", location, *DISK)
    stored_bytes = folder_bytes(place / "far")
    restore_s = timed("restore", "--repository", location, *DISK, "--to", place / "back.raw")
    line_s = stored_bytes * 8 / (MBIT_S * 1e6)
    return {
        "stored_mib": stored_bytes / MIB,
        "backup_s": backup_s,
        "backup_of_line": line_s / backup_s,
        "restore_s": restore_s,
        "restore_of_line": line_s / restore_s,
    }


if __name__ == "__main__":
    sys.exit(main())
