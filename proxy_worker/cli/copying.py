"""The work of `proxy-worker repository copy`: choose restore points, copy them one by one, say what came of it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial

import typer

from proxy_worker.cli.opening import Opening, OptionError
from proxy_worker.cli.progress import TerminalControl
from proxy_worker.contract.errors import DamageError
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.mover.copying import CopiedPoint, Copying, CopyOutcome
from proxy_worker.program.units import size
from proxy_worker.repository.errors import CannotReadError, PointNotFoundError, ShutOutError
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository


class NotAllCopiedError(DamageError):
    """Some restore points could not be copied; the others were."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which restore points."""

    vms: tuple[str, ...] = ()
    """Names or ids; none: all."""
    runs: tuple[str, ...] = ()
    """None: all of them, or the newest."""
    newest: bool = False

    def of(self, points: list[Point]) -> list[Point]:
        """Those to copy, oldest first for each VM; raises `PointNotFoundError` for what isn't there."""
        for vm in self.vms:
            if not any(vm in {point.vm_name, point.vm_id} for point in points):
                raise PointNotFoundError(
                    f"VM {vm} is not in the source", remedy="`proxy-worker repository list` shows the VMs that are."
                )
        found = [point for point in points if not self.vms or {point.vm_name, point.vm_id} & set(self.vms)]
        for run in self.runs:
            if all(point.run != run for point in found):
                raise PointNotFoundError(
                    f"restore point {run} is not in the source",
                    remedy="`proxy-worker repository list` shows the points that are.",
                )
        if self.newest:
            return list({point.vm_id: point for point in found}.values())
        return [point for point in found if not self.runs or point.run in self.runs]

    def damaged(self, source: Repository, points: list[Point]) -> list[str]:
        """What is wrong with restore points that can't be read, and might have been among `points`."""
        vm_ids = {point.vm_id for point in points}
        found = []
        for name, error in source.damaged_points.items():
            _, vm_id, _run = name.split("/")
            # What a writer had committed that was shut out since doesn't count.
            if not isinstance(error, ShutOutError) and not self.runs and (not self.vms or vm_id in vm_ids):
                found.append(str(error))
        return found


def copy_chosen(
    opening: Opening,
    opening_target: Opening,
    *,
    source: str,
    target: str,
    chosen: Chosen,
    level: CompressionLevel,
    as_json: bool,
) -> None:
    """Copy, print what came of each point, and raise `NotAllCopiedError` where some couldn't be."""
    with opening.repository() as original, opening_target.repository() as copy:
        copying = Copying(original, copy, source, level)
        _require_usable(copying, source, target)
        points = chosen.of(original.points())
        damaged = chosen.damaged(original, points)
        results = []
        with TerminalControl(opening, opening_target) as control:
            for number, point in enumerate(points, 1):
                title = f"{point.vm_name} {point.run} ({number} of {len(points)})"
                result = copying.copy(point, control=control, about=partial(_title, title))
                results.append(result)
                if not as_json:
                    _over_progress(_line(result))
    if as_json:
        typer.echo(json.dumps([_figures(result) for result in results], indent=2))
    failures = [str(result.error) for result in results if result.error is not None]
    if failures or damaged:
        raise NotAllCopiedError(
            f"{len(failures) + len(damaged)} restore points of {source} were not copied",
            why="; ".join((*failures, *damaged)),
        )


def _require_usable(copying: Copying, source: str, target: str) -> None:
    if copying.source.access.store.location == copying.target.access.store.location:
        raise OptionError("repository copy", why=f"source and target are both {source}", remedy="Name two.")
    if not copying.sealed and not copying.source.can_read:
        raise CannotReadError(
            f"restore points of {source}",
            why=f"{target} has keys of its own, so blocks are sealed anew, and a write key can't read them",
            remedy="Use the source's passphrase or a read key.",
        )


def _title(title: str, key: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{title}: {key}", file=sys.stderr)


def _over_progress(line: str) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    typer.echo(line)


def _line(result: CopiedPoint) -> str:
    name = f"{result.point.vm_name} {result.point.run}"
    match result.outcome:
        case CopyOutcome.COPIED:
            how = "as it is sealed" if result.sealed else "sealed anew"
            stored, whole = size(_stored(result)), size(_whole(result))
            return f"{name}: {stored} stored {how}, of {whole}, {result.duration_s:.1f} s"
        case CopyOutcome.THERE:
            return f"{name}: is there already"
        case CopyOutcome.REMOVED:
            return f"{name}: was copied before and removed from the target since; left out"
        case CopyOutcome.GONE:
            return f"{name}: was removed from the source meanwhile; left out"
        case CopyOutcome.FAILED:
            return f"{name}: not copied: {result.error}"


def _figures(result: CopiedPoint) -> dict[str, object]:
    return {
        "vm": result.point.vm_name,
        "vm_id": result.point.vm_id,
        "point": result.point.run,
        "outcome": str(result.outcome),
        "copy": result.run or None,
        "sealed_as_it_was": result.sealed,
        "size_bytes": _whole(result),
        "read_bytes": sum(report.read_bytes for report in result.reports),
        "stored_bytes": _stored(result),
        "duration_seconds": round(result.duration_s, 3),
        "error": None if result.error is None else str(result.error),
    }


def _whole(result: CopiedPoint) -> int:
    return sum(disk.size_bytes for disk in result.point.disks)


def _stored(result: CopiedPoint) -> int:
    return sum(report.stored_bytes for report in result.reports)
