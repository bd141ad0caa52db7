"""`proxy-worker serve-point`: the disks of a restore point as NBD exports, to use without restoring them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import LocationOption, PassphraseFile, PointOption, ReadKeyFile, VmOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve_point(
    *,
    repository: LocationOption,
    vm: VmOption,
    passphrase_file: PassphraseFile = None,
    read_key_file: ReadKeyFile = None,
    point: PointOption = None,
    disk_key: Annotated[
        list[str] | None, typer.Option("--disk", metavar="KEY", help="Only this disk. Repeatable; all by default.")
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Listen on a Unix socket, which only you can connect to.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="Listen on this port of 127.0.0.1; 0 takes a free one."
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take writes: they are kept in FOLDER and forgotten in the end."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the disks are as JSON.")] = False,
) -> None:
    """Serve a restore point's disks by NBD until Ctrl-C or SIGTERM; each is an export named by its place.

    NBD asks nobody who they are. To use a disk on another machine, forward the socket with ssh.

    \b
    Examples:
      proxy-worker serve-point --repository /backup/main --passphrase-file main.passphrase --vm web01 \\
          --socket /run/web01.sock
      qemu-img convert 'nbd+unix:///scsi0:0?socket=/run/web01.sock' web01.qcow2
      nbdcopy 'nbd+unix:///scsi0:0?socket=/run/web01.sock' web01.raw
      qemu-nbd --read-only --connect=/dev/nbd0 'nbd+unix:///scsi0:0?socket=/run/web01.sock'
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=read_key_file)
    from proxy_worker.cli.serving_point import Listening, serve  # noqa: PLC0415 - loaded while that works

    listening = Listening(path=socket, port=port)
    serve(opening, vm=vm, point=point, disks=disk_key or (), listening=listening, overlay=overlay, as_json=as_json)
