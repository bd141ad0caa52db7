"""The options that commands on repositories have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

_LOCATION: Final = "The repository's folder, s3://BUCKET/PREFIX, or proxyfleet://HOST:PORT/NAME."
Location: TypeAlias = Annotated[str, typer.Argument(metavar="REPOSITORY", help=_LOCATION)]
LocationOption: TypeAlias = Annotated[str, typer.Option("--repository", metavar="REPOSITORY", help=_LOCATION)]
PassphraseFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the passphrase, in one line.")
]
KeyFile: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A write or read key.")]
ReadKeyFile: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A key that may read blocks.")]
WriteKeyFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A key that may add restore points.")
]
VmOption: TypeAlias = Annotated[str, typer.Option("--vm", metavar="NAME", help="The VM, by name or id.")]
PointOption: TypeAlias = Annotated[
    str | None, typer.Option("--point", metavar="ID", help="The restore point; the newest by default.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
