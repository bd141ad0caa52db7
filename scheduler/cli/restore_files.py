"""`scheduler restore files`: files and folders out of a restore point's disks, to this machine.

The scheduler never opens a repository: `proxy-worker restore-files`, with the secrets of this server, takes over.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, AtPoint, InRepository, OfVm
from scheduler.cli.finding import find_repository
from scheduler.cli.opening import configuration, opened_state
from scheduler.cli.own_secrets import opening
from scheduler.local_proxy import proxy_worker
from scheduler.state.asking import find_point
from scheduler.state.models import Repository


def files(
    *,
    vm: OfVm,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", metavar="PATH", help="A file or folder, from its volume's root on. Repeatable."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FOLDER", help="The folder of this machine to put them into; made if missing."
        ),
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(metavar="VOLUME", help="Where the paths are; the only volume that has them unless told."),
    ] = None,
    disk_key: Annotated[
        list[str] | None,
        typer.Option(
            "--disk",
            metavar="KEY",
            help="Look into this disk only. Repeatable; all unless told.",
            autocompletion=completion.disks,
        ),
    ] = None,
    point: AtPoint = None,
    from_repository: InRepository = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the volumes, or with --path what is there, and restore nothing.")
    ] = False,
    browse: Annotated[
        bool, typer.Option("--browse", help="Look around in the terminal and restore what you choose.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring files and folders of a VM to this machine. They may lie on ext4, XFS, NTFS and others, on partitions
    and LVM.

    Needs libguestfs (`guestfish`) and the repository's read key or passphrase on this machine. Elsewhere,
    `proxy-worker restore-files` does the same without a scheduler.

    \b
    Examples:
      scheduler restore files --vm web01 --list
      scheduler restore files --vm web01 --path /etc/nginx --path /var/www/index.html --to restored
      scheduler restore files --vm web01 --disk scsi0:1 --path /srv/data --to /restore
      scheduler restore files --vm web01 --browse
    """
    with opened_state() as opened, opened.read() as session:
        found = find_point(session, vm, point, repository=from_repository)
        repository = find_repository(session, found.repository)
        command = [
            *(str(proxy_worker()), "restore-files", "--repository", repository.location),
            *_secrets(repository),
            *("--vm", found.vm_id, "--point", found.point),
        ]
    for option, values in (("--path", path), ("--disk", disk_key)):
        command += [word for value in values or () for word in (option, value)]
    command += [
        word for option, value in (("--to", to), ("--volume", volume)) if value for word in (option, str(value))
    ]
    flags = (("--list", only_list), ("--browse", browse), ("--json", as_json))
    command += [option for option, given in flags if given]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - takes this process' place at the terminal; no shell is wanted


def _secrets(repository: Repository) -> list[str]:
    """The options that open a repository, by what lies in this server's secrets folder."""
    access = configuration().secrets_dir / f"{repository.credential}.s3"
    elsewhere = f"proxy-worker restore-files --repository {repository.location} --read-key-file FILE …"
    words = ["--access-key-file", str(access)] if access.exists() else []
    return [*words, *opening(repository, "--read-key-file", elsewhere=elsewhere)]
