"""`proxy-worker repository import`: disk images as a restore point of a VM."""

from __future__ import annotations

from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import AsJson, Location, PassphraseFile, WriteKeyFile
from proxy_worker.contract.names import CompressionLevel

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def import_images(
    repository: Location,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=IMAGE...", help="Each disk's place in the VM, and its raw, qcow2 or VMDK image."
        ),
    ],
    *,
    vm: Annotated[str, typer.Option(metavar="NAME", help="The VM that the disks belong to.")],
    vm_id: Annotated[
        str | None,
        typer.Option("--vm-id", metavar="ID", help="The id that a fleet knows the VM by; of its name unless told."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    write_key_file: WriteKeyFile = None,
    level: Annotated[CompressionLevel, typer.Option(help="How hard to compress.")] = CompressionLevel.OPTIMAL,
    as_json: AsJson = False,
) -> None:
    """Make a restore point of images that another product, or none, has made.

    The format of an image is told by its name: .vmdk, .qcow2, anything else is raw. An image that isn't whole by
    itself, or is damaged, is refused, and nothing is imported then.

    \b
    Examples:
      proxy-worker repository import /backup/main --passphrase-file main.passphrase --vm web01 \\
          scsi0:0=web01.qcow2 scsi0:1=/export/web01-data.raw
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=write_key_file)
    from proxy_worker.cli.importing import import_all, named_vm  # noqa: PLC0415 - loaded while that works

    import_all(opening, repository=repository, vm=named_vm(vm, vm_id), images=images, level=level, as_json=as_json)
