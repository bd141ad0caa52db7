"""The work of `proxy-worker repository export`: a restore point served to `qemu-img convert`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import typer

from proxy_worker.cli.opening import Opening, OptionError, find_point
from proxy_worker.contract.errors import TargetError
from proxy_worker.export.noted import NotedDisk
from proxy_worker.export.opening import exported
from proxy_worker.export.server import Server, listen_on_socket
from proxy_worker.program.durable import give_new_name, sync_folder
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.program.units import size
from proxy_worker.transport.command import require_tool
from proxy_worker.transport.qemu import PACKAGE


class ExportFailedError(TargetError):
    """An image couldn't be written whole."""


def export_one(
    opening: Opening,
    *,
    vm: str,
    point: str | None,
    disk_key: str,
    to: Path,
    image_format: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write an image beside its place, sync it, and give it its name. Raises `OptionError`, `ExportFailedError`."""
    tool = require_tool("qemu-img", PACKAGE)
    if to.exists() and not overwrite:
        raise OptionError(f"image {to}", why="it exists", remedy="Choose another --to, or say --overwrite.")
    if not to.parent.is_dir():
        raise ExportFailedError(f"image {to}", why=f"there is no folder {to.parent}", remedy="Make it first.")
    partial = to.with_name(f".{to.name}.partial-{os.getpid()}")
    try:
        with opening.repository() as repository:
            chosen = find_point(repository, vm, point)
            with contextlib.ExitStack() as stack:
                disk = NotedDisk(exported(stack, repository, chosen, [disk_key], None)[disk_key])
                scratch = ScratchFolder("export")
                stack.callback(scratch.remove)
                server = stack.enter_context(Server({disk_key: disk}, listen_on_socket(scratch.path / "nbd.sock")))
                progress = ["-p"] if sys.stderr.isatty() else []
                command = [tool, "convert", *progress, "-f", "raw", "-O", image_format, server.uri(disk_key)]
                _convert(command, partial, disk)
        _sync(partial)
        if overwrite:
            partial.replace(to)
        else:
            give_new_name(partial, to)
        sync_folder(to.parent)
    except FileExistsError as error:
        raise OptionError(f"image {to}", why="it has appeared meanwhile", remedy="Choose another --to.") from error
    except OSError as error:
        raise ExportFailedError(f"image {to}", why=error.strerror or str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    written = to.stat().st_blocks * 512
    if as_json:
        told = {
            "point": chosen.run,
            "vm": chosen.vm_name,
            "disk": disk_key,
            "path": str(to),
            "format": image_format,
        }
        typer.echo(json.dumps({**told, "size_bytes": disk.size_bytes, "file_bytes": written}))
    else:
        what = f"disk {disk_key} of {chosen.vm_name}, restore point {chosen.run}"
        typer.echo(f"{to} ({image_format}): {what}, {size(disk.size_bytes)} in {size(written)}")


def _convert(command: list[str], partial: Path, disk: NotedDisk) -> None:
    # From the root on: what stands before a colon in a relative path, qemu-img takes for a protocol.
    done = subprocess.run(
        [*command, str(partial.absolute())],
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        umask=0o077,
    )
    if disk.error is not None:
        raise disk.error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ExportFailedError(
            "the image can't be written whole",
            why=said[-1] if said else f"qemu-img ended with {done.returncode}",
            remedy="Nothing is left of it.",
        )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
