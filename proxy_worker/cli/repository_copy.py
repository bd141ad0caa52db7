"""`proxy-worker repository copy`: restore points from one repository to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.cli.opening import Opening, OptionError
from proxy_worker.cli.repository_options import AsJson
from proxy_worker.contract.names import CompressionLevel

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def copy_points(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The repository to copy from.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The repository to copy to.")],
    *,
    vm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A VM, by name or id; can be repeated; all by default.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A restore point, as `list` shows it; can be repeated.")
    ] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest restore point of each VM.")] = False,
    all_points: Annotated[bool, typer.Option("--all", help="Every restore point of each VM.")] = False,
    source_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The source's passphrase, in one line.")
    ] = None,
    source_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A read key of the source; of a twin, a write key will do.")
    ] = None,
    target_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The target's passphrase, in one line.")
    ] = None,
    target_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A write or read key of the target.")
    ] = None,
    level: Annotated[
        CompressionLevel, typer.Option(help="How hard to compress what is sealed anew.")
    ] = CompressionLevel.OPTIMAL,
    as_json: AsJson = False,
) -> None:
    """Copy restore points to another repository: only what it lacks, each block verified on the way.

    Done again, it goes on where it was stopped, and copies nothing twice. A copy is a restore point like any other,
    with its original's name and time. Repositories made with `init --like` share their keys: blocks go over as they
    are sealed, and a write key is enough. Else the source's read key is needed, and blocks are sealed anew.

    \b
    Examples:
      proxy-worker repository copy /backup/main /mnt/second --newest \\
          --source-passphrase-file main.passphrase --target-key-file second.key
      proxy-worker repository copy /backup/main s3://offsite/main --all --vm web01 \\
          --source-key-file main-read.key --target-key-file offsite.key
    """
    if sum((point is not None, newest, all_points)) != 1:
        raise OptionError(
            "repository copy",
            why="it takes one of --point, --newest and --all",
            remedy="--newest copies the newest restore point of each VM.",
        )
    opening = Opening(source, passphrase_file=source_passphrase_file, key_file=source_key_file)
    opening_target = Opening(target, passphrase_file=target_passphrase_file, key_file=target_key_file)
    from proxy_worker.cli.copying import Chosen, copy_chosen  # noqa: PLC0415 - loaded while those work

    copy_chosen(
        opening,
        opening_target,
        source=source,
        target=target,
        chosen=Chosen(vms=tuple(vm or ()), runs=tuple(point or ()), newest=newest),
        level=level,
        as_json=as_json,
    )
