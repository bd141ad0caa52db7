"""The work of `proxy-worker restore`: mover and repository put together, without a fleet."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from proxy_worker.cli.opening import Opening, find_point
from proxy_worker.cli.progress import TerminalControl, pace
from proxy_worker.contract.disks import DiskRestore
from proxy_worker.contract.subjects import RepositoryReference, VmIdentity
from proxy_worker.mover.restore import restore_disk
from proxy_worker.program.units import size

JOB = "standalone"


def restore_one(
    opening: Opening,
    *,
    repository: str,
    vm: str,
    disk_key: str,
    to: Path,
    point: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Restore a disk, and print what came of it."""
    with opening.repository() as opened:
        chosen = find_point(opened, vm, point)
        chosen.disk(disk_key)
        request = DiskRestore(
            repository=RepositoryReference(name=JOB, location=repository, credential=JOB),
            vm=VmIdentity(vm_id=chosen.vm_id, name=chosen.vm_name),
            run=chosen.run,
            disk_key=disk_key,
            target_path=str(to),
            overwrite=overwrite,
        )
        with TerminalControl(opening) as control:
            result = restore_disk(opened, request, control)
    report = result.report
    if as_json:
        figures = {"written_bytes": report.stored_bytes, **report.model_dump(mode="json")}
        typer.echo(
            json.dumps({"point": chosen.run, "vm": chosen.vm_name, "disk": disk_key, "path": str(to), **figures})
        )
        return
    typer.echo(f"{to}: disk {disk_key} of {chosen.vm_name}, restore point {chosen.run}, {size(report.size_bytes)}")
    typer.echo(f"  read {size(report.read_bytes)}, wrote {size(report.stored_bytes)}, every block verified")
    if report.requests is not None:
        typer.echo(f"  requests: {report.requests}")
    typer.echo(f"  {pace(report)}")
