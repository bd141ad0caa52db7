"""The work of `proxy-worker repository import`: several images, one restore point."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack

import typer
from pydantic import ValidationError

from proxy_worker.cli.opening import Opening, OptionError, abandon
from proxy_worker.cli.progress import TerminalControl
from proxy_worker.cli.standalone_backup import FENCE, JOB, disk_request, vm_identity
from proxy_worker.contract.names import CompressionLevel
from proxy_worker.contract.subjects import DiskIdentity, VmIdentity
from proxy_worker.mover.backup import back_up_disk
from proxy_worker.program.units import size
from proxy_worker.repository.repository import new_run_id
from proxy_worker.transport.named import open_path
from proxy_worker.transport.vmdk import SECTOR_BYTES


def named_vm(name: str, vm_id: str | None) -> VmIdentity:
    """A VM of that name, and of an id if there is one; raises `OptionError`."""
    if vm_id is None:
        return vm_identity(name)
    try:
        return VmIdentity(vm_id=vm_id, name=name)
    except ValidationError as error:
        raise OptionError(
            f"VM {name[:60]!r} with id {vm_id[:80]!r}", why="ids have up to 63 lower-case letters, digits and -"
        ) from error


def import_all(
    opening: Opening,
    *,
    repository: str,
    vm: VmIdentity,
    images: Sequence[str],
    level: CompressionLevel,
    as_json: bool,
) -> None:
    """Open every image first, so that one which can't be read is found before anything is stored."""
    named = _named(images)
    run, started_at = new_run_id(), time.time()
    with ExitStack() as opened_images:
        sources = {key: opened_images.enter_context(open_path(image)) for key, image in named.items()}
        for key, source in sources.items():
            _require_disk(named[key], source.size_bytes)
        opened = opened_images.enter_context(opening.repository())
        done: list[tuple[DiskIdentity, int, str]] = []
        committed = False
        try:
            with TerminalControl(opening) as control:
                for key, image in named.items():
                    request = disk_request(
                        vm=vm, disk=image, disk_key=key, repository=repository, level=level, run=run
                    )
                    result = back_up_disk(sources[key], opened, request, fence=FENCE, control=control)
                    done.append((request.disk, FENCE, result.sealed_result))
                point = opened.commit(vm=vm, run=run, job=JOB, disks=done, started_at=started_at)
            committed = True
        finally:
            if not committed:
                abandon(opened, vm_id=vm.vm_id, run=run, reason="the import did not finish")
    disks = [
        {
            "disk": disk.key,
            "image": named[disk.key],
            "size_bytes": disk.size_bytes,
            "stored_bytes": disk.stored_bytes,
        }
        for disk in point.disks
    ]
    if as_json:
        identity = {"point": point.run, "vm": point.vm_name, "vm_id": point.vm_id, "job": point.job}
        typer.echo(json.dumps({**identity, "created_at": point.created_at, "disks": disks}))
        return
    typer.echo(f"restore point {point.run} of {point.vm_name}:")
    for disk in point.disks:
        stored = size(disk.stored_bytes)
        typer.echo(f"  {disk.key}  {size(disk.size_bytes)}, {stored} stored, from {named[disk.key]}")


def _require_disk(image: str, size_bytes: int) -> None:
    """Disks consist of sectors: whatever doesn't is most likely another file."""
    if not size_bytes or size_bytes % SECTOR_BYTES:
        raise OptionError(
            image,
            why=f"it isn't a disk: it has {size_bytes} bytes, and no whole sectors of {SECTOR_BYTES}",
            remedy="Name an image. One that was cut short can't be trusted.",
        )


def _named(images: Sequence[str]) -> dict[str, str]:
    """Images by disk key; raises `OptionError`."""
    named: dict[str, str] = {}
    for text in images:
        key, equals, image = text.partition("=")
        if not (key and equals and image):
            raise OptionError(text, why="it isn't of the form KEY=IMAGE", remedy="E.g. scsi0:0=web01.qcow2.")
        if key in named:
            raise OptionError(text, why=f"{key} is {named[key]} already", remedy="Give each disk its own place.")
        named[key] = image
    return named
