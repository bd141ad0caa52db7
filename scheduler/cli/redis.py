"""`scheduler redis`: what the fleet's Redis is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.arguments import AsJson
from scheduler.cli.opening import configuration
from scheduler.cli.printing import note, print_json
from scheduler.pki.authority import Authority, NoAuthorityError
from scheduler.redis_setup.configuring import RedisPlan, configure, names_of

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Configure the Redis that holds what runs now.",
)


@app.callback()
def _group() -> None:
    """Configure the Redis that holds what runs now."""


@app.command("configure")
def configure_redis(
    *,
    site: Annotated[
        list[str], typer.Option("--site", metavar="SITE", help="A site with proxies; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write, e.g. ops/redis/made.")],
    host: Annotated[str, typer.Option(metavar="HOST", help="What clients call the Redis server.")] = "redis",
    address: Annotated[
        list[str] | None,
        typer.Option("--address", metavar="HOST", help="A further name or IP address of it; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Its port, for TLS alone.")] = 6379,
    bind: Annotated[str, typer.Option(metavar="ADDRESSES", help="Addresses it listens at.")] = "* -::*",
    place: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where this folder will lie on the server; here unless told.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where the server keeps its data.")] = Path(
        "/var/lib/redis"
    ),
    secrets_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="`secrets_dir` of the machines that get the kits.")
    ] = Path("/etc/proxyfleet/secrets"),
    require_certificates: Annotated[
        bool, typer.Option("--require-certificates", help="Refuse clients that show no certificate of the fleet's.")
    ] = False,
    new_passwords: Annotated[
        bool, typer.Option("--new-passwords", help="Make new passwords for everyone, e.g. after a theft.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write redis.conf with TLS, users, and everyone's kit. The scheduler, Flower and each site get a user.

    The kit of a user, `DIR/kits/<user>`, is what its machines need in their `secrets_dir`; the `redis.toml` in it
    goes into their configuration. Makes the authority if there is none. Run again, it adds sites and keeps
    passwords.

    \b
    Examples:
      scheduler redis configure --site primary --site remote --host redis.example.org --out /etc/proxyfleet/redis
      redis-server /etc/proxyfleet/redis/redis.conf
    """
    folder = configuration().pki_dir
    try:
        authority = Authority(folder)
    except NoAuthorityError:
        authority = Authority.make(folder, name="proxyfleet")
    plan = RedisPlan(
        out=out,
        sites=tuple(site),
        host=host,
        addresses=tuple(address or ()),
        port=port,
        bind=bind,
        place=place,
        data=data_dir,
        kits_place=secrets_dir,
        require_certificates=require_certificates,
        new_passwords=new_passwords,
    )
    done = configure(plan, authority)
    if as_json:
        users = list(names_of(done.users))
        print_json({"url": done.url, "folder": str(out), "users": users, "certificates": list(done.made)})
        return
    note(f"Start Redis with {out / 'redis.conf'}; clients reach it at {done.url}.")
    names = ", ".join(names_of(done.users))
    note(f"Kits in {out / 'kits'}, each for the secrets_dir of its user's machines: {names}.")
    note(f"New certificates: {', '.join(done.made) or 'none'}.")
