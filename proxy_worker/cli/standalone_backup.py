"""The work of `proxy-worker backup`: transport, mover and repository put together, without a fleet."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import typer
from pydantic import ValidationError

from proxy_worker.cli.opening import Opening, OptionError, abandon
from proxy_worker.cli.progress import TerminalControl, pace
from proxy_worker.contract.disks import DiskBackup, DiskBackupResult
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import (
    DiskAddress,
    DiskIdentity,
    Extent,
    RepositoryReference,
    TransportPreference,
    VmIdentity,
)
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.program.units import size
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository, new_run_id
from proxy_worker.transport.named import open_path

FENCE = 1
"""Nobody else works on this run, so its only writer is the first."""
JOB = "standalone"


def back_up(
    opening: Opening,
    *,
    vm: str,
    disk: str,
    disk_key: str,
    repository: str,
    level: CompressionLevel,
    changed_areas: Path | None,
    parent: str | None,
    as_json: bool,
) -> None:
    """Back up a disk, commit it as a restore point, and print what came of it."""
    areas = read_areas(changed_areas) if changed_areas is not None else None
    identity = vm_identity(vm)
    with open_path(disk) as source, opening.repository() as opened:
        request = disk_request(
            vm=identity,
            disk=disk,
            disk_key=disk_key,
            repository=repository,
            level=level,
            run=new_run_id(),
            areas=areas,
            parent=parent,
        )
        started_at = time.time()
        committed = False
        try:
            with TerminalControl(opening) as control:
                result = back_up_disk(source, opened, request, fence=FENCE, control=control)
                point = _commit(opened, request, result, started_at)
            committed = True
        finally:
            if not committed:
                abandon(opened, vm_id=identity.vm_id, run=request.run, reason="the command did not finish")
    _show(result, point, as_json=as_json)


def read_areas(path: Path) -> tuple[Extent, ...]:
    """Changed areas from a JSON file; raises `OptionError`."""
    try:
        pairs = msgspec.json.decode(path.read_bytes(), type=list[tuple[int, int]])
        return tuple(Extent(offset=offset, length=length) for offset, length in pairs if length)
    except OSError as error:
        raise OptionError(f"changed areas {path} can't be read", why=error.strerror or str(error)) from error
    except (msgspec.MsgspecError, ValidationError) as error:
        raise OptionError(
            f"changed areas {path} can't be used",
            why="they are not JSON of the form [[offset, length], …] with offsets and lengths in bytes",
        ) from error


def vm_identity(vm: str) -> VmIdentity:
    """A VM that is known by its name alone; raises `OptionError`."""
    try:
        return VmIdentity.of_name(vm)
    except ValidationError as error:
        raise OptionError(f"VM name {vm[:60]!r} can't be used", why="names have 1 to 255 characters") from error


def disk_request(
    *,
    vm: VmIdentity,
    disk: str,
    disk_key: str,
    repository: str,
    level: CompressionLevel,
    run: str,
    areas: tuple[Extent, ...] | None = None,
    parent: str | None = None,
) -> DiskBackup:
    """What a disk task would be told; raises `OptionError` for what it wouldn't take."""
    address = DiskAddress(nbd_uri=disk) if disk.startswith("nbd") and "://" in disk else DiskAddress(path=disk)
    try:
        return DiskBackup(
            run=run,
            job=JOB,
            vm=vm,
            disk=DiskIdentity(key=disk_key, address=address),
            transport=TransportPreference(),
            repository=RepositoryReference(name=JOB, location=repository, credential=JOB),
            level=level,
            changed_areas=areas,
            parent=parent,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        option = {"disk": "--disk", "parent": "--parent"}.get(str(wrong["loc"][0]), str(wrong["loc"][0]))
        raise OptionError(f"{option} {wrong['input']!r} can't be used", why=wrong["msg"]) from error


def _commit(opened: Repository, request: DiskBackup, result: DiskBackupResult, started_at: float) -> Point:
    return opened.commit(
        vm=request.vm,
        run=request.run,
        job=JOB,
        disks=[(request.disk, FENCE, result.sealed_result)],
        started_at=started_at,
    )


def _show(result: DiskBackupResult, point: Point, *, as_json: bool) -> None:
    report = result.report
    key = point.disks[0].key
    if as_json:
        figures = report.model_dump(mode="json")
        typer.echo(json.dumps({"point": point.run, "vm": point.vm_name, "disk": key, **figures}))
        return
    typer.echo(
        f"restore point {point.run} of {point.vm_name}: disk {point.disks[0].key}, {size(report.size_bytes)}"
    )
    typer.echo(f"  read {size(report.read_bytes)} by {report.mode} ({report.mode_reason})")
    typer.echo(
        f"  zeros {size(report.zero_bytes)}, unchanged {size(report.unchanged_bytes)}, "
        f"known {size(report.duplicate_bytes)}, stored {size(report.stored_bytes)}"
    )
    if report.full_read_reason:
        typer.echo(f"  read whole: {report.full_read_reason}")
    if report.requests is not None:
        typer.echo(f"  requests: {report.requests}")
    typer.echo(f"  {pace(report)}")
