"""`python -m benchmarks.repository`: how fast a repository is checked, collected, restored from and looked into.

What restic does too is measured beside it, in every round. The repositories are made once and kept in the folder;
what a collection or a prune changes, each does in a copy of its own. Exits with 1 when a row is missed.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.export_reads import WrongContentError, read_at_random
from benchmarks.many_points import POINTS, make_ours, make_restics, remember_yesterday
from benchmarks.peers import PeerMissingError, Restic
from benchmarks.process import CommandFailedError, Measured
from benchmarks.restores import measure_restores
from benchmarks.rounds import warm_folder
from benchmarks.rows import REPOSITORY_ROWS, judge
from benchmarks.second_day import ReferenceDisks, prepare
from benchmarks.standalone import Repository
from benchmarks.telling import tell

GIB = 1 << 30
_MADE = "made"
"""A file that says that all of a folder is."""


@dataclass(frozen=True)
class Many:
    """The repositories with 1,000 restore points each: as they were made, and a copy to work on.

    They are made where the copy will be, since the local index goes by the place of its repository.
    """

    kept: Path
    copy: Path
    restic_binary: Path

    @property
    def ours(self) -> Repository:
        return Repository(self.copy / "ours")

    @property
    def restic(self) -> Restic:
        return Restic(self.restic_binary, self.copy / "restic")

    def make(self) -> None:
        """Make both."""
        _emptied(self.copy)
        make_ours(self.ours)
        make_restics(self.restic)
        shutil.rmtree(self.kept, ignore_errors=True)
        self.copy.rename(self.kept)

    def renew(self) -> None:
        """Make the copy what was made."""
        shutil.rmtree(self.copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.kept), str(self.copy)], check=True)


def main() -> int:
    """Run the benchmark; the exit code."""
    options = _options()
    folder: Path = options.folder.resolve()
    work = folder / "repositories"
    disks = prepare(folder / f"disks-{options.gib}", options.gib * GIB)
    restic = Restic.install(folder / "tools", work / f"disk-{options.gib}")
    ours, many = Repository(restic.work.with_name("ours")), Many(work / "many", work / "collected", restic.binary)
    print(restic.version(), flush=True)
    _make(restic, ours, many, disks)
    rounds = []
    for number in range(options.rounds):
        figures = _measure(restic, ours, disks, work)
        figures |= _measure_many(many, check=number == 0)
        rounds.append(figures)
        brief = ", ".join(f"{k} {v:.1f}" for k, v in figures.items() if "cpu" not in k and "peak" not in k)
        print(f"round {number + 1} of {options.rounds}: {brief}", flush=True)
    about = {
        "versions": {"python": platform.python_version(), "restic": restic.version()},
        "disk_gib": options.gib,
    }
    return tell(judge(rounds, REPOSITORY_ROWS), rounds, about, options.json or folder / "repository.json")


def _make(restic: Restic, ours: Repository, many: Many, disks: ReferenceDisks) -> None:
    """Make the repositories that no earlier run has made."""
    made = restic.work.parent / _MADE
    if not made.exists():
        _emptied(made.parent)
        for contender in (restic, ours):
            contender.init()
            for disk in (disks.first, disks.second):
                contender.back_up(disk)
        made.touch()
    if not many.kept.exists():
        print(f"making repositories of 1,000 restore points in {many.kept} (once, some ten minutes)", flush=True)
        many.make()


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _measure(restic: Restic, ours: Repository, disks: ReferenceDisks, work: Path) -> dict[str, float]:
    """What is done with the repositories of the reference disk, all read from memory."""
    figures: dict[str, float] = {}
    for repository in (restic, ours):
        warm_folder(repository.folder)
    measure_restores(ours, restic, disks.second, work, partial(_note, figures))
    for repository in (restic, ours):
        warm_folder(repository.folder)
    _note(figures, "restic_check", restic.check())
    _note(figures, "check", ours.check())
    reads = read_at_random(ours, disks.second)
    return figures | {"export_mib_per_s": reads.mib_per_s, "export_first_byte_s": reads.first_byte_s}


def _measure_many(many: Many, *, check: bool) -> dict[str, float]:
    """Collections and a prune; copying has brought both repositories into memory.

    Both have their caches: restic of all it wrote, ours of the index and of what a collection of the day before has
    read, without which one is measured too, as if it were the first. With `check`, what they leave is checked.
    """
    figures: dict[str, float] = {}
    for name in ("first_collect", "collect"):
        many.renew()
        remember_yesterday(many.ours)
        if name == "collect":
            _note(figures, "restic_prune", many.restic.prune())
        else:
            for remembered in many.ours.cache.rglob("*.known"):
                remembered.unlink()
        measured, report = many.ours.collect()
        if report["waiting_for"] or report["points"] * 2 != POINTS:
            raise CommandFailedError(f"the collection didn't do what it was to: {report}")
        _note(figures, name, measured)
        if check:
            many.ours.check()
        shutil.rmtree(many.copy)
    return figures


def _note(figures: dict[str, float], name: str, measured: Measured) -> None:
    figures[f"{name}_s"] = measured.wall_s
    figures[f"{name}_cpu_s"] = measured.cpu_s
    figures[f"{name}_peak_bytes"] = measured.peak_anonymous_bytes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repository", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--gib", type=int, default=4, help="size of the reference disk (4)")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where everything is made (.bench)")
    parser.add_argument("--json", type=Path, help="where the result goes (FOLDER/repository.json)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PeerMissingError, CommandFailedError, WrongContentError) as error:
        sys.exit(f"benchmark: {error}")
