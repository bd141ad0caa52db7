"""`proxy-worker backup`: one disk into a repository, as a restore point of its own, without a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import LocationOption, PassphraseFile, WriteKeyFile
from proxy_worker.contract.names import CompressionLevel

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def backup(
    *,
    disk: Annotated[
        str, typer.Argument(metavar="DISK", help="The disk: a path (raw, qcow2 or VMDK) or an NBD URI.")
    ],
    repository: LocationOption,
    vm: Annotated[str, typer.Option(metavar="NAME", help="The VM that the disk belongs to.")],
    disk_key: Annotated[str, typer.Option("--disk", metavar="KEY", help="The disk's place in it, e.g. scsi0:0.")],
    passphrase_file: PassphraseFile = None,
    write_key_file: WriteKeyFile = None,
    level: Annotated[CompressionLevel, typer.Option(help="How hard to compress.")] = CompressionLevel.OPTIMAL,
    changed_areas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON [[offset, length], …] in bytes: all that changed since the parent."
        ),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="The restore point to compare with; the newest by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Back up a disk and commit it as a restore point.

    \b
    Examples:
      proxy-worker backup web01.vmdk --repository /backup/main --write-key-file main.key --vm web01 --disk scsi0:0
      proxy-worker backup 'nbd+unix:///?socket=/run/web01.sock' --repository /backup/main \\
          --passphrase-file main.passphrase --vm web01 --disk scsi0:0 --level high
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=write_key_file)
    from proxy_worker.cli.standalone_backup import back_up  # noqa: PLC0415 - loaded while that works

    back_up(
        opening,
        vm=vm,
        disk=disk,
        disk_key=disk_key,
        repository=repository,
        level=level,
        changed_areas=changed_areas,
        parent=parent,
        as_json=as_json,
    )
