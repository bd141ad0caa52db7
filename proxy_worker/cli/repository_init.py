"""`proxy-worker repository init`: make a repository."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from proxy_worker.cli.opening import OptionError, open_repository
from proxy_worker.cli.repository_options import Location, PassphraseFile
from proxy_worker.program.units import size
from proxy_worker.repository.credentials import load_credential
from proxy_worker.repository.parity import MOST_PARITY_SHARES, Parity
from proxy_worker.repository.repository import DEFAULT_BLOCK_SIZE, Repository
from proxy_worker.repository.store.locks import ObjectLock
from proxy_worker.repository.twins import make_twin
from proxy_worker.repository.unlocking import store_at

_SIZE = re.compile(r"(\d+)(KiB|MiB)?")
_BLOCK_SIZE: Final = "256KiB"
_UNITS = {None: 1, "KiB": 1024, "MiB": 1024 * 1024}

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class LockMode(StrEnum):
    """What `--object-lock` takes."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


@app.command()
def init(
    repository: Location,
    *,
    passphrase_file: PassphraseFile = None,
    block_size: Annotated[
        str, typer.Option(metavar="SIZE", help="64KiB to 4MiB, a power of two; fixed from now on.")
    ] = _BLOCK_SIZE,
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Store in clear; whoever reads the folder reads the disks.")
    ] = False,
    object_lock: Annotated[
        LockMode | None,
        typer.Option(
            help="Lock objects in their bucket: nobody deletes them in time, in compliance mode not even its owner."
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, help="How long what restore points need is locked ahead.")
    ] = None,
    parity: Annotated[
        int | None,
        typer.Option(
            metavar="SHARES",
            min=1,
            max=MOST_PARITY_SHARES,
            help="Add to every 28 shares of a pack so many of parity: as many may rot and are mended.",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Make a twin of this one, with its id, keys and block size; --passphrase-file opens it.",
        ),
    ] = None,
) -> None:
    """Make a repository in a folder, which is made where it is missing, or in an S3-compatible object store.

    A twin takes copies of restore points as they are sealed, without a read key; see `repository copy`.

    \b
    Examples:
      proxy-worker repository init /backup/main --passphrase-file main.passphrase
      proxy-worker repository init /mnt/second --like /backup/main --passphrase-file main.passphrase
      proxy-worker repository init 's3://backup/main?endpoint=https://s3.example' --passphrase-file m.passphrase \\
        --object-lock governance --days 30
    """
    if (object_lock is None) != (days is None):
        raise OptionError("repository init", why="--object-lock and --days go together")
    lock = ObjectLock(object_lock.value, days) if object_lock and days else None
    if like is not None:
        if no_encryption or parity or block_size != _BLOCK_SIZE:
            raise OptionError(
                "repository init",
                why="a twin is encrypted, and has blocks and parity, as the repository that --like names",
            )
        _make_twin(repository, like, passphrase_file, lock)
        return
    if no_encryption == (passphrase_file is not None):
        raise OptionError(
            "repository init",
            why="it takes either --passphrase-file or --no-encryption",
            remedy="Keep a copy of the passphrase elsewhere: without it nothing can be restored.",
        )
    passphrase = load_credential(passphrase_file=passphrase_file).passphrase
    with Repository.create(
        store_at(repository),
        passphrase=passphrase,
        block_size=_parsed_size(block_size),
        object_lock=lock,
        parity=Parity(parity) if parity else None,
    ) as made:
        typer.echo(f"made repository {made.id} in {repository}, block size {size(made.block_size)}{_locked(lock)}")


def _locked(lock: ObjectLock | None) -> str:
    return f", objects locked for {lock.days} days ({lock.mode})" if lock else ""


def _make_twin(location: str, like: str, passphrase_file: Path | None, lock: ObjectLock | None) -> None:
    passphrase = load_credential(passphrase_file=passphrase_file).passphrase
    with (
        open_repository(like, passphrase_file=passphrase_file) as original,
        make_twin(store_at(location), original, passphrase=passphrase, object_lock=lock) as made,
    ):
        typer.echo(f"made repository {made.id} in {location}, a twin of the one in {like}{_locked(lock)}")


def _parsed_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise OptionError(
            f"--block-size {text}", why="it is not a size", remedy=f"Say e.g. {DEFAULT_BLOCK_SIZE} or 256KiB."
        )
    return int(match[1]) * _UNITS[match[2]]
