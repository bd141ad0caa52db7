"""One round of measurements: every contender does the same things, one after the other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from benchmarks.bound import bound_s
from benchmarks.peers import Borg, Restic
from benchmarks.process import Measured, rest
from benchmarks.restores import measure_restores
from benchmarks.second_day import ReferenceDisks
from benchmarks.standalone import Repository

BLOCK_BYTES = 256 << 10
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Contenders:
    """Who is measured. Peers may be left out."""

    optimal: Repository
    high: Repository
    wide: Repository
    restic: Restic | None
    borg: Borg | None


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    subprocess.run(["cat", str(path)], check=True, stdout=subprocess.DEVNULL)


def warm_folder(folder: Path) -> None:
    """The same for a repository: restores and checks are compared without the disk it lies on."""
    for path in folder.rglob("*"):
        if path.is_file():
            warm(path)


def rested(read: Callable[Concatenate[Path, P], T], disk: Path, /, *arguments: P.args, **options: P.kwargs) -> T:
    """Let the machine's disk rest, then have `disk` read from memory, and what is made of it written."""
    rest()
    return warmed(read, disk, *arguments, **options)


def warmed(read: Callable[Concatenate[Path, P], T], disk: Path, /, *arguments: P.args, **options: P.kwargs) -> T:
    """Have `disk` read from memory: what an earlier contender wrote may have taken its place there."""
    warm(disk)
    return read(disk, *arguments, **options)


def touched_block_bytes(areas: Path) -> int:
    """Bytes of the blocks that changed areas touch."""
    blocks: set[int] = set()
    for offset, length in json.loads(areas.read_text()):
        blocks.update(range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)))
    return len(blocks) * BLOCK_BYTES


def measure_round(contenders: Contenders, disks: ReferenceDisks, work: Path) -> dict[str, float]:
    """Measure everything once, and check that the restored disk equals its original."""
    figures: dict[str, float] = {}

    def note(name: str, measured: Measured) -> None:
        figures[f"{name}_s"] = measured.wall_s
        figures[f"{name}_cpu_s"] = measured.cpu_s
        figures[f"{name}_peak_bytes"] = measured.peak_anonymous_bytes

    ours, high, wide = contenders.optimal, contenders.high, contenders.wide
    restic, borg = contenders.restic, contenders.borg
    for contender in (ours, high, wide, restic, borg):
        if contender is not None:
            contender.init()

    if restic:
        note("restic_full", rested(restic.back_up, disks.first))
        figures["restic_stored_bytes"] = restic.stored_bytes()
    note("full", rested(ours.back_up, disks.first)[0])
    figures["stored_bytes"] = ours.stored_bytes()
    note("high", rested(high.back_up, disks.first, level="high")[0])
    figures["high_stored_bytes"] = high.stored_bytes()
    figures["bound_s"], stages = rested(bound_s, disks.first, work / "scratch")
    figures |= {f"bound_{name}_s": seconds for name, seconds in asdict(stages).items()}
    if borg:
        note("borg_full", rested(borg.back_up, disks.first))
        figures["borg_stored_bytes"] = borg.stored_bytes()

    if restic:
        note("restic_incremental", warmed(restic.back_up, disks.second))
        figures["restic_added_bytes"] = restic.stored_bytes() - figures["restic_stored_bytes"]
    note("digests", warmed(ours.back_up, disks.second)[0])
    figures["digests_added_bytes"] = ours.stored_bytes() - figures["stored_bytes"]
    measured, report = warmed(high.back_up, disks.second, areas=disks.areas)
    note("areas", measured)
    figures["areas_read_bytes"] = report["read_bytes"]
    figures["touched_bytes"] = touched_block_bytes(disks.areas)

    for folder in (ours.folder, *([restic.folder] if restic else [])):
        warm_folder(folder)
    measure_restores(ours, restic, disks.second, work, note)
    if restic:
        warm_folder(restic.folder)
        note("restic_check", restic.check())
    warm_folder(ours.folder)
    note("check", ours.check())

    note("wide", warmed(wide.back_up, disks.wide_first)[0])
    note("wide_areas", warmed(wide.back_up, disks.wide_second, areas=disks.wide_areas)[0])
    return figures
