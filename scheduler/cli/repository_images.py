"""`scheduler repository import` and `export`: images on this machine as restore points of a VM, and back.

The scheduler never opens a repository: `proxy-worker`, with the secrets of this server, does the work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.outcome import PointDisk, PointSummary
from proxy_worker.contract.subjects import VmIdentity
from proxy_worker.program.units import size
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, AtPoint, InRepository, OfVm, RepositoryName
from scheduler.cli.finding import find_repository
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.own_secrets import opening
from scheduler.cli.printing import note, print_json
from scheduler.local_proxy import access_key, proxy_worker
from scheduler.runs.catalogue import add_point
from scheduler.state.asking import find_point
from scheduler.state.errors import AmbiguousVmError
from scheduler.state.models import Point, Repository, VcenterVm


def import_images(
    repository: RepositoryName,
    images: Annotated[
        list[str],
        typer.Argument(metavar="KEY=IMAGE...", help="Each disk's place in the VM, and its image on this machine."),
    ],
    *,
    vm: Annotated[
        str, typer.Option(metavar="VM", help="The VM's name, known or not.", autocompletion=completion.vms)
    ],
    vm_id: Annotated[
        str | None, typer.Option("--vm-id", metavar="ID", help="Its id, where several VMs have that name.")
    ] = None,
    level: Annotated[CompressionLevel, typer.Option(help="How hard to compress.")] = CompressionLevel.OPTIMAL,
    as_json: AsJson = False,
) -> None:
    """Make a restore point of raw, qcow2 or VMDK images. They lie on this machine, and may be another product's.

    It counts as one of the VM's own where the VM is known: the next backup stores only what differs. No job removes
    it; `scheduler point delete` does. Needs the repository's key or passphrase on this machine.

    \b
    Examples:
      scheduler repository import main --vm web01 scsi0:0=/import/web01.qcow2 scsi0:1=/import/data.vmdk
    """
    with opened_state() as state:
        with state.read() as session:
            chosen = find_repository(session, repository)
            known = vm_id or _id_of(session, vm)
            elsewhere = f"proxy-worker repository import {chosen.location} --write-key-file FILE …"
            command = [
                *(str(proxy_worker()), "repository", "import", chosen.location, *images, "--vm", vm),
                *("--level", level.value, *opening(chosen, "--write-key-file", elsewhere=elsewhere), "--json"),
                *(("--vm-id", known) if known is not None else ()),
            ]
            surroundings = os.environ | _access_key(chosen)
        sys.stderr.flush()
        done = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise typer.Exit(done.returncode)  # it has said why
        made: dict[str, Any] = json.loads(done.stdout)
        with state.write() as session:
            add_point(session, repository, _summary(made))
    if as_json:
        print_json(made)
        return
    note(f"Restore point {made['point']} of {made['vm']} is in repository {repository}:")
    for disk in made["disks"]:
        note(
            f"  {disk['disk']}  {size(disk['size_bytes'])}, {size(disk['stored_bytes'])} stored, "
            f"from {disk['image']}"
        )


def export_image(
    *,
    vm: OfVm,
    disk_key: Annotated[
        str, typer.Option("--disk", metavar="KEY", help="E.g. scsi0:0.", autocompletion=completion.disks)
    ],
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="The image to make, on this machine.")],
    image_format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="raw, qcow2 or vmdk, unless PATH says so by its ending."),
    ] = None,
    point: AtPoint = None,
    from_repository: InRepository = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at PATH.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a disk as a raw, qcow2 or VMDK image. It lies on this machine; every block is verified.

    Needs the repository's read key or passphrase on this machine. `scheduler restore disk` writes raw images on
    any proxy that can read the repository.

    \b
    Examples:
      scheduler repository export --vm web01 --disk scsi0:0 --to /export/web01.qcow2
    """
    with opened_state() as state, state.read() as session:
        found = find_point(session, vm, point, repository=from_repository)
        repository = find_repository(session, found.repository)
        elsewhere = f"proxy-worker repository export {repository.location} --read-key-file FILE …"
        command = [
            *(str(proxy_worker()), "repository", "export", repository.location),
            *("--vm", found.vm_id, "--point", found.point, "--disk", disk_key, "--to", str(to)),
            *opening(repository, "--read-key-file", elsewhere=elsewhere),
            *(("--format", image_format) if image_format is not None else ()),
            *(("--overwrite",) if overwrite else ()),
            *(("--json",) if as_json else ()),
        ]
        os.environ.update(_access_key(repository))
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - takes this process' place at the terminal; no shell is wanted


def _id_of(session: Session, vm: str) -> str | None:
    """The id that the fleet knows a VM by, None for a new one; raises `AmbiguousVmError`."""
    of_points = session.scalars(select(Point.vm_id).where(Point.vm_name == vm).distinct())
    of_vcenters = session.scalars(select(VcenterVm.vm_id).where(VcenterVm.name == vm).distinct())
    ids = sorted({*of_points, *of_vcenters})
    if len(ids) > 1:
        raise AmbiguousVmError(
            f"VM {vm!r}", why=f"{len(ids)} VMs have that name", remedy=f"Name one by --vm-id: {', '.join(ids)}."
        )
    return ids[0] if ids else None


def _access_key(repository: Repository) -> dict[str, str]:
    return access_key(configuration().secrets_dir / f"{repository.credential}.s3")


def _summary(made: dict[str, Any]) -> PointSummary:
    return PointSummary(
        vm=VmIdentity(vm_id=made["vm_id"], name=made["vm"]),
        run=made["point"],
        job=made["job"],
        created_at=made["created_at"],
        disks=tuple(
            PointDisk(key=disk["disk"], size_bytes=disk["size_bytes"], stored_bytes=disk["stored_bytes"])
            for disk in made["disks"]
        ),
    )
