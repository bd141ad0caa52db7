"""`proxy-worker serve`: a repository server's gateway, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve(
    *,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The gateway's gateway.toml.")],
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="Print what is served and where as JSON.")] = False,
) -> None:
    """Offer repositories of this machine to the fleet's proxies, until Ctrl-C or SIGTERM.

    Proxies with a certificate of the fleet may add restore points and read; none may overwrite or delete. Upkeep,
    as retention and collection, runs on this machine, or with a certificate of role gateway. For repositories that
    gateway.toml says are hardened, `proxy-worker warden` has to run first.

    \b
    Examples:
      scheduler pki issue vault --role gateway --address vault.example.org --out vault/
      proxy-worker serve --config gateway.toml
      PROXYFLEET_CERTIFICATE=proxy-1.pem proxy-worker repository list proxyfleet://vault.example.org:7443/main
    """
    from proxy_worker.cli.serving import serve_until_stopped  # noqa: PLC0415 - loaded when it is wanted

    serve_until_stopped(config, log_level=log_level, as_json=as_json)
