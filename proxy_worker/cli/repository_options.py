"""The options that commands on repositories have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Location: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="REPOSITORY", help="The repository's folder, s3://BUCKET/PREFIX, or proxyfleet://HOST:PORT/NAME."
    ),
]
PassphraseFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the passphrase, in one line.")
]
KeyFile: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A write or read key.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
