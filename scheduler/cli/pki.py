"""`scheduler pki`: the fleet's own authority and the certificates it gave out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import is_name
from scheduler.cli.arguments import AsJson
from scheduler.cli.expiry import expiry_warnings
from scheduler.cli.opening import configuration
from scheduler.cli.printing import iso, moment, note, print_json, show_rows, state
from scheduler.pki.authority import Authority, Bundle, Issued, PkiFolderError
from scheduler.pki.certificates import AUTHORITY_DAYS, PEER_DAYS, Peer, Role, now_utc
from scheduler.pki.files import PRIVATE, private_folder, write_whole

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Make certificates for TLS between the fleet's machines, renew and revoke them.",
)

PeerName = Annotated[str, typer.Argument(metavar="NAME", help="The peer's name.")]
Days = Annotated[int, typer.Option("--days", min=1, metavar="DAYS", help="How long it is valid.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for NAME.pem, NAME-key.pem and ca.pem.")]
Addresses = Annotated[
    list[str] | None,
    typer.Option(
        "--address", metavar="HOST", help="A host name or IP address at which it answers; may be repeated."
    ),
]
_LONGEST_NAME: Final = 64


class PeerNameError(ConfigurationError):
    """A peer can't have that name."""


@app.command()
def init(
    name: Annotated[str, typer.Option(metavar="NAME", help="What the authority is called.")] = "proxyfleet",
    days: Days = AUTHORITY_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make the authority, once. Its key never leaves the scheduler's state folder: back that folder up.

    \b
    Examples:
      scheduler pki init
      scheduler pki init --name "proxyfleet of example.org"
    """
    if not 0 < len(name) <= _LONGEST_NAME:
        raise PeerNameError(f"authority {name!r}", why=f"a name has 1 to {_LONGEST_NAME} letters")
    authority = Authority.make(configuration().pki_dir, name=name, days=days)
    if as_json:
        print_json({"authority": name, "expires": iso(authority.certificate.not_valid_after_utc.timestamp())})
        return
    note(f"Made the authority {name} in {authority.folder}, valid until {_day(authority.certificate)}.")


@app.command()
def issue(
    name: PeerName,
    *,
    role: Annotated[Role, typer.Option(help="What the peer is.")],
    out: Out,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="Where it stands.")] = None,
    address: Addresses = None,
    days: Days = PEER_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make a key and a certificate for a peer. They are put into a folder to be taken there; no copy of the key
    is kept.

    \b
    Examples:
      scheduler pki issue proxy-1 --role proxy --site primary --address proxy-1.example.org --out proxy-1/
      scheduler pki issue redis --role redis --address 192.0.2.10 --out redis/
    """
    if not is_name(name) or (site is not None and not is_name(site)):
        raise PeerNameError(
            f"peer {name!r}" + (f" at site {site!r}" if site else ""),
            why="names have up to 63 letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
        )
    authority = Authority(configuration().pki_dir)
    _hand_out(authority.issue(Peer(name, role, site, tuple(address or ())), days=days), out, as_json=as_json)


@app.command()
def renew(
    name: PeerName,
    *,
    out: Out,
    address: Addresses = None,
    days: Days = PEER_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make a new key and certificate for the same peer. The old one stays valid until it expires or is revoked.

    Programs of the fleet read their certificates at every connection: replacing the files is enough. Redis takes
    new ones at a restart, or by `CONFIG SET tls-cert-file`.

    \b
    Examples:
      scheduler pki renew proxy-1 --out proxy-1/
    """
    renewed = Authority(configuration().pki_dir).renew(
        name, days=days, addresses=None if address is None else tuple(address)
    )
    _hand_out(renewed, out, as_json=as_json)


@app.command()
def revoke(name: PeerName, as_json: AsJson = False) -> None:
    """Declare every certificate of a peer void. Takes effect where the new ca.pem is put.

    Redis reads no list of revoked certificates. What keeps a stolen machine out of it is its user's password: make
    a new one with `scheduler redis configure --new-passwords`.

    \b
    Examples:
      scheduler pki revoke proxy-1
    """
    authority = Authority(configuration().pki_dir)
    revoked = authority.revoke(name)
    if as_json:
        print_json([_record(one) for one in revoked])
        return
    note(f"Revoked {', '.join(f'{one.serial:x}' for one in revoked)} of {name}.")
    note(f"Put {authority.folder / 'ca.pem'} onto every machine of the fleet in place of the ca.pem it has.")


@app.command("list")
def list_certificates(
    everything: Annotated[bool, typer.Option("--all", help="Replaced, expired and revoked ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List certificates, and which of them expire soon.

    \b
    Examples:
      scheduler pki list
      scheduler pki list --json | jq '.[] | select(.state == "expires soon")'
    """
    now = now_utc()
    issued = Authority(configuration().pki_dir).issued()
    shown = [one for one in issued if everything or not (one.replaced or one.revoked_at)]
    if as_json:
        print_json([_record(one) for one in shown])
        return
    if not shown:
        note("No certificate was issued. `scheduler redis configure` makes those that a fleet needs.")
        return
    show_rows(
        {
            "NAME": [Text(one.peer.name) for one in shown],
            "ROLE": [Text(one.peer.role) for one in shown],
            "SITE": [Text(one.peer.site or "-") for one in shown],
            "STATE": [state(one.state(now)) for one in shown],
            "EXPIRES": [moment(one.until.timestamp()) for one in shown],
            "SERIAL": [f"{one.serial:x}"[:16] for one in shown],
            "ADDRESSES": [Text(", ".join(one.peer.addresses) or "-") for one in shown],
        },
        spare=("SERIAL", "ADDRESSES"),
    )
    for warning in expiry_warnings(configuration().pki_dir):
        note(f"warning: {warning}")


def _hand_out(bundle: Bundle, out: Path, *, as_json: bool) -> None:
    name = bundle.issued.peer.name
    try:
        private_folder(out)
        write_whole(out / "ca.pem", bundle.trust)
        write_whole(out / f"{name}.pem", bundle.certificate)
        write_whole(out / f"{name}-key.pem", bundle.key, PRIVATE)
    except OSError as error:
        raise PkiFolderError(f"folder {out}", why=error.strerror or str(error)) from error
    if as_json:
        print_json(_record(bundle.issued))
        return
    until = moment(bundle.issued.until.timestamp())
    note(f"{out}: certificate of {bundle.issued.peer.role} {name}, valid until {until}, its key, and ca.pem.")


def _record(one: Issued) -> dict[str, Any]:
    return {
        "name": one.peer.name,
        "role": str(one.peer.role),
        "site": one.peer.site,
        "addresses": list(one.peer.addresses),
        "state": one.state(now_utc()),
        "serial": f"{one.serial:x}",
        "issued": iso(one.since.timestamp()),
        "expires": iso(one.until.timestamp()),
        "revoked": iso(one.revoked_at.timestamp()) if one.revoked_at else None,
    }


def _day(certificate: Any) -> str:
    return str(certificate.not_valid_after_utc.date())
