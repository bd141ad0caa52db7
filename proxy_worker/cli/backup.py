"""`proxy-worker backup`: one disk into a repository, as a restore point of its own, without a fleet."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError

from proxy_worker.cli.opening import OptionError, open_repository
from proxy_worker.cli.progress import TerminalControl, pace
from proxy_worker.contract.errors import StoreError
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.outcome import DiskBackupResult
from proxy_worker.contract.specification import (
    DiskAddress,
    DiskBackup,
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
from proxy_worker.transport.select import open_path

FENCE = 1
"""Nobody else works on this run, so its only writer is the first."""
JOB = "standalone"

app = typer.Typer(add_completion=False)


@app.command()
def backup(
    *,
    disk: Annotated[str, typer.Argument(metavar="DISK", help="The disk: a path (raw or VMDK) or an NBD URI.")],
    repository: Annotated[str, typer.Option(metavar="REPOSITORY", help="The repository's folder.")],
    vm: Annotated[str, typer.Option(metavar="NAME", help="The VM that the disk belongs to.")],
    disk_key: Annotated[str, typer.Option("--disk", metavar="KEY", help="The disk's place in it, e.g. scsi0:0.")],
    passphrase_file: Annotated[Path | None, typer.Option(help="A file with the repository's passphrase.")] = None,
    write_key_file: Annotated[Path | None, typer.Option(help="A key that may add restore points.")] = None,
    level: Annotated[CompressionLevel, typer.Option(help="How hard to compress.")] = CompressionLevel.OPTIMAL,
    changed_areas: Annotated[
        Path | None, typer.Option(help="JSON [[offset, length], …] in bytes: all that changed since the parent.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="The restore point to compare with; the newest by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Back up a disk and commit it as a restore point."""
    areas = read_areas(changed_areas) if changed_areas is not None else None
    identity = _identity(vm)
    with (
        open_path(disk) as source,
        open_repository(repository, passphrase_file=passphrase_file, key_file=write_key_file) as opened,
    ):
        request = _request(
            vm=identity,
            disk=disk,
            disk_key=disk_key,
            repository=repository,
            level=level,
            areas=areas,
            parent=parent,
        )
        started_at = time.time()
        committed = False
        try:
            with TerminalControl() as control:
                result = back_up_disk(source, opened, request, fence=FENCE, control=control)
                point = _commit(opened, request, result, started_at)
            committed = True
        finally:
            if not committed:
                with contextlib.suppress(StoreError):  # what ended the backup is the error to show
                    opened.abandon(vm_id=identity.vm_id, run=request.run, reason="the command did not finish")
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


def _identity(vm: str) -> VmIdentity:
    try:
        return VmIdentity.of_name(vm)
    except ValidationError as error:
        raise OptionError(f"VM name {vm[:60]!r} can't be used", why="names have 1 to 255 characters") from error


def _request(
    *,
    vm: VmIdentity,
    disk: str,
    disk_key: str,
    repository: str,
    level: CompressionLevel,
    areas: tuple[Extent, ...] | None,
    parent: str | None,
) -> DiskBackup:
    address = DiskAddress(nbd_uri=disk) if disk.startswith("nbd") and "://" in disk else DiskAddress(path=disk)
    try:
        return DiskBackup(
            run=new_run_id(),
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
    typer.echo(f"  {pace(report)}")
