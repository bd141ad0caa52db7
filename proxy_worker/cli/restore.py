"""`proxy-worker restore`: one disk of a restore point to a file or a block device, without a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import LocationOption, PassphraseFile, PointOption, ReadKeyFile, VmOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def restore(
    *,
    repository: LocationOption,
    vm: VmOption,
    disk_key: Annotated[str, typer.Option("--disk", metavar="KEY", help="The disk's place in it, e.g. scsi0:0.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="The file to make, or a block device to write.")],
    passphrase_file: PassphraseFile = None,
    read_key_file: ReadKeyFile = None,
    point: PointOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at PATH, or write over the device.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Restore a disk; a file appears under its name only when it is complete.

    \b
    Examples:
      proxy-worker restore --repository /backup/main --passphrase-file main.passphrase \\
          --vm web01 --disk scsi0:0 --to web01.img
      proxy-worker restore --repository /backup/main --read-key-file main-read.key \\
          --vm web01 --disk scsi0:0 --to /dev/vg0/web01 --overwrite
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=read_key_file)
    from proxy_worker.cli.standalone_restore import restore_one  # noqa: PLC0415 - loaded while that works

    restore_one(
        opening,
        repository=repository,
        vm=vm,
        disk_key=disk_key,
        to=to,
        point=point,
        overwrite=overwrite,
        as_json=as_json,
    )
