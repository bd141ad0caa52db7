"""`proxy-worker restore`: one disk of a restore point to a file or a block device, without a fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import find_point, open_repository
from proxy_worker.cli.progress import TerminalControl, pace
from proxy_worker.contract.specification import DiskRestore, RepositoryReference, VmIdentity
from proxy_worker.mover.restore import restore_disk
from proxy_worker.program.units import size

JOB = "standalone"

app = typer.Typer(add_completion=False)


@app.command()
def restore(
    *,
    repository: Annotated[str, typer.Option(metavar="REPOSITORY", help="The repository's folder.")],
    vm: Annotated[str, typer.Option(metavar="NAME", help="The VM, by name or id.")],
    disk_key: Annotated[str, typer.Option("--disk", metavar="KEY", help="The disk's place in it, e.g. scsi0:0.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="The file to make, or a block device to write.")],
    passphrase_file: Annotated[Path | None, typer.Option(help="A file with the repository's passphrase.")] = None,
    read_key_file: Annotated[Path | None, typer.Option(help="A key that may read blocks.")] = None,
    point: Annotated[
        str | None, typer.Option(metavar="ID", help="The restore point; the newest by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at PATH, or write over the device.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Restore a disk; a file appears under its name only when it is complete."""
    with open_repository(repository, passphrase_file=passphrase_file, key_file=read_key_file) as opened:
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
        with TerminalControl() as control:
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
    typer.echo(f"  {pace(report)}")
