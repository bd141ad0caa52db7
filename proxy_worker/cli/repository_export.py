"""`proxy-worker repository export`: a disk of a restore point as an image for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import AsJson, Location, PassphraseFile, PointOption, ReadKeyFile, VmOption
from proxy_worker.contract.errors import ConfigurationError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class UnknownFormatError(ConfigurationError):
    """Nothing says what an image is to be written as."""


class ImageFormat(StrEnum):
    """What an image can be written as; the names are qemu-img's."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"


@app.command()
def export_image(
    repository: Location,
    *,
    vm: VmOption,
    disk_key: Annotated[str, typer.Option("--disk", metavar="KEY", help="The disk's place in it, e.g. scsi0:0.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="The image to make.")],
    image_format: Annotated[
        ImageFormat | None,
        typer.Option(
            "--format", help="What to write, unless PATH says so by its ending; a VMDK is one growing file."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    read_key_file: ReadKeyFile = None,
    point: PointOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at PATH.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a disk as an image that other programs read; every block is verified, and nothing is left half done.

    \b
    Examples:
      proxy-worker repository export /backup/main --passphrase-file main.passphrase --vm web01 --disk scsi0:0 \\
          --format qcow2 --to web01.qcow2
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=read_key_file)
    from proxy_worker.cli.exporting import export_one  # noqa: PLC0415 - loaded while that works

    export_one(
        opening,
        vm=vm,
        point=point,
        disk_key=disk_key,
        to=to,
        image_format=(image_format or _by_name(to)).value,
        overwrite=overwrite,
        as_json=as_json,
    )


def _by_name(path: Path) -> ImageFormat:
    for image_format in ImageFormat:
        if path.suffix.lower() == f".{image_format}":
            return image_format
    known = ", ".join(f".{image_format}" for image_format in ImageFormat)
    raise UnknownFormatError(
        f"--to {path}", why=f"its name ends in none of {known}", remedy="Say the format with --format."
    )
