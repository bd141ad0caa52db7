"""`proxy-worker restore-files`: files and folders out of the filesystems inside a restore point's disks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import PassphraseFile, PointOption, ReadKeyFile, VmOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def restore_files(
    *,
    repository: Annotated[
        str, typer.Option(metavar="REPOSITORY", help="The repository's folder, or s3://BUCKET/PREFIX.")
    ],
    vm: VmOption,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", metavar="PATH", help="A file or folder, from its volume's root on. Repeatable."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="The folder to put them into; made if missing.")
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(metavar="VOLUME", help="Where the paths are; the only volume that has them unless told."),
    ] = None,
    disk_key: Annotated[
        list[str] | None,
        typer.Option("--disk", metavar="KEY", help="Look into this disk only. Repeatable; all by default."),
    ] = None,
    point: PointOption = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the volumes, or with --path what is there, and restore nothing.")
    ] = False,
    browse: Annotated[
        bool, typer.Option("--browse", help="Look around in the terminal and restore what you choose.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    read_key_file: ReadKeyFile = None,
    access_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An access key to object storage.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Bring files and folders out of ext4, XFS, NTFS and others, on partitions and LVM, without restoring disks.

    Needs libguestfs (`guestfish`) on this machine, and no root. The restore point isn't changed.

    \b
    Examples:
      proxy-worker restore-files --repository /backup/main --passphrase-file main.passphrase --vm web01 --list
      proxy-worker restore-files --repository /backup/main --passphrase-file main.passphrase --vm web01 \\
          --path /etc/nginx --path /var/www/index.html --to restored
      proxy-worker restore-files --repository /backup/main --read-key-file main.key --vm web01 --browse
    """
    opening = Opening(
        repository, passphrase_file=passphrase_file, key_file=read_key_file, access_key_file=access_key_file
    )
    from proxy_worker.cli.restoring_files import Wish, work  # noqa: PLC0415 - loaded while that works

    wish = Wish(paths=tuple(path or ()), to=to, volume=volume, only_list=only_list, browse=browse, as_json=as_json)
    work(opening, wish, vm=vm, point=point, disks=disk_key or ())
