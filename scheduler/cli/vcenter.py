"""`scheduler vcenter`: the vCenters and ESXi hosts whose VMs are protected."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Group
from rich.text import Text
from sqlalchemy import select

from scheduler.cli.arguments import AsJson, Site, VcenterName, Wait
from scheduler.cli.finding import find_vcenter
from scheduler.cli.opening import configuration, opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, facts, note, plural, print_json, show_rows, table
from scheduler.cli.printing import show as print_view
from scheduler.cli.vcenter_record import (
    ScanRecord,
    VcenterCheck,
    scan_line,
    scan_record,
    vcenter_as_json,
    watch_of_scan,
)
from scheduler.cli.watching import follow_to_end
from scheduler.fleet.editing import declare, require_declarable, withdraw
from scheduler.state.asking import ask_for_scan
from scheduler.state.models import Vcenter, VcenterScan
from scheduler.state.store import State

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Add vCenters and ESXi hosts, check and rescan them.",
)


class Purpose(StrEnum):
    """What privileges are needed for."""

    BACKUP = "backup"
    HOT_ADD = "hot-add"
    RESTORE = "restore"
    INSTANT_RESTORE = "instant-restore"
    REPLICA = "replica"


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="VCENTER", help="The new vCenter's name.")],
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Its host name or address.")],
    user: Annotated[str, typer.Option(metavar="USER", help="The service account, e.g. backup@vsphere.local.")],
    credential: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The secret NAME.password with its password; VCENTER unless told."),
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", help="Its HTTPS port.")] = 443,
    site: Site = "primary",
    thumbprint: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Pin its certificate by this SHA-1 or SHA-256, if that is what it shows."),
    ] = None,
    accept_thumbprint: Annotated[
        bool, typer.Option("--accept-thumbprint", help="Pin what it shows without asking, if it can't be verified.")
    ] = False,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify its certificate with these authorities.")
    ] = None,
    max_sessions: Annotated[int, typer.Option(metavar="COUNT", help="How many logins there may be at once.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Add a vCenter or ESXi host. The password is read from its file only, never from the command line.

    A certificate that this machine can't verify is shown and, if that is confirmed, pinned.

    \b
    Examples:
      scheduler vcenter add vc1 --host vcenter.example --user backup@vsphere.local
      scheduler vcenter add vc1 --host 10.0.0.5 --user backup@vsphere.local --thumbprint AB:CD:…
      scheduler vcenter add lab --host esx1 --user root --credential lab-esx --accept-thumbprint
    """
    from scheduler.cli.vcenter_trust import thumbprint_to_pin  # noqa: PLC0415 - vSphere's library is slow to load

    declared: dict[str, Any] = {
        "name": name,
        "host": host,
        "port": port,
        "user": user,
        "credential": credential or name,
        "thumbprint": thumbprint,
        "ca_file": str(ca_file.absolute()) if ca_file is not None else None,
        "max_sessions": max_sessions,
        "site": site,
    }
    with opened_state(migrate=True) as state:
        with state.read() as session:
            require_declarable(session, "vcenter", declared)
        declared["thumbprint"] = thumbprint_to_pin(
            name, host, port, thumbprint=thumbprint, ca_file=ca_file, accept=accept_thumbprint
        )
        with state.write() as session:
            declare(session, "vcenter", declared)
            shown = vcenter_as_json(session, find_vcenter(session, name))
    if as_json:
        print_json(shown)
    secret = configuration().secrets_dir / f"{declared['credential']}.password"
    note(f"Added vCenter {name}.")
    if not secret.exists():
        note(f"Put the password of {user} into {secret}, readable by the scheduler's user alone (chmod 600).")
    note(f"Then `scheduler vcenter check {name}` logs in and says which privileges are missing.")


@app.command("list")
def list_vcenters(as_json: AsJson = False) -> None:
    """List vCenters, how they are trusted, and how many VMs they have. VMs are those that they showed when they
    were last read.

    \b
    Examples:
      scheduler vcenter list
      scheduler vcenter list --json | jq '.[] | {name, vms, scanned}'
    """
    with opened_state() as state, state.read() as session:
        vcenters = session.scalars(select(Vcenter).order_by(Vcenter.name)).all()
        shown = [vcenter_as_json(session, vcenter) for vcenter in vcenters]
    if as_json:
        print_json(shown)
        return
    if not shown:
        note("There are no vCenters. `scheduler vcenter add --help` shows how to add one.")
        return
    columns: Columns = {
        "VCENTER": [Text(one["name"]) for one in shown],
        "SITE": [Text(one["site"]) for one in shown],
        "HOST": [Text(f"{one['host']}:{one['port']}") for one in shown],
        "USER": [Text(one["user"]) for one in shown],
        "CERTIFICATE": ["pinned" if one["thumbprint"] else "verified" for one in shown],
        "VMS": [str(one["vms"]) for one in shown],
        "SCANNED": [Text(one["scanned"] or "never") for one in shown],
        "LAST RESCAN": [_last_rescan(one["last_rescan"]) for one in shown],
    }
    show_rows(columns, right=("VMS",), spare=("SITE", "USER", "CERTIFICATE"))


@app.command()
def check(
    name: VcenterName,
    purposes: Annotated[
        list[Purpose] | None,
        typer.Option(
            "--for",
            metavar="PURPOSE",
            help="Only for backup, hot-add, restore, instant-restore or replica. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Log in and list each privilege that the account lacks. Exits 6 if there are any.

    Privileges are asked for at the vCenter's root. Where the role is granted on some folders only, this names more
    than are missing there.

    \b
    Examples:
      scheduler vcenter check vc1
      scheduler vcenter check vc1 --for backup --for hot-add
      scheduler vcenter check vc1 --json | jq -r '.missing[].privilege'
    """
    from scheduler.cli.vcenter_check import check_vcenter  # noqa: PLC0415 - vSphere's library is slow to load

    with opened_state() as state, state.read() as session:
        vcenter = find_vcenter(session, name)
    wanted = [purpose.value for purpose in purposes or Purpose]
    found = check_vcenter(vcenter, configuration().secrets_dir, wanted)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show_check(found, wanted)
    raise typer.Exit(found.exit_code)


@app.command()
def trust(
    name: VcenterName,
    *,
    thumbprint: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Pin its certificate by this SHA-1 or SHA-256, if that is what it shows."),
    ] = None,
    accept_thumbprint: Annotated[
        bool, typer.Option("--accept-thumbprint", help="Pin what it shows without asking.")
    ] = False,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify its certificate with these authorities from now on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trust the certificate that a vCenter shows now. Use it after the certificate was replaced.

    Shows the thumbprint that is pinned and the one that the vCenter shows, and asks.

    \b
    Examples:
      scheduler vcenter trust vc1
      scheduler vcenter trust vc1 --thumbprint AB:CD:…
      scheduler vcenter trust vc1 --ca-file /etc/ssl/vcenter-ca.pem
    """
    from scheduler.cli.vcenter_trust import thumbprint_to_pin  # noqa: PLC0415 - vSphere's library is slow to load

    with opened_state() as state:
        with state.read() as session:
            known = find_vcenter(session, name)
        declared = Path(known.ca_file) if known.ca_file is not None else None
        found = thumbprint_to_pin(
            name,
            known.host,
            known.port,
            thumbprint=thumbprint,
            ca_file=ca_file or (declared if thumbprint is None else None),
            accept=accept_thumbprint,
            pinned=known.thumbprint if ca_file is None else None,
        )
        with state.write() as session:
            vcenter = find_vcenter(session, name)
            vcenter.thumbprint = found
            vcenter.ca_file = (str(ca_file.absolute()) if ca_file else known.ca_file) if found is None else None
            shown = vcenter_as_json(session, vcenter)
    if as_json:
        print_json(shown)
    unchanged = (found, shown["ca_file"]) == (known.thumbprint, known.ca_file)
    how = f"pinned by {found}" if found is not None else "verified by an authority"
    note(f"vCenter {name} is {how}{', as it was' if unchanged else ''}.")


@app.command()
def rescan(
    name: VcenterName,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Have the scheduler read which VMs a vCenter has. Every run of a job does so too.

    \b
    Examples:
      scheduler vcenter rescan vc1
    """
    with opened_state() as state:
        with state.read() as session:
            find_vcenter(session, name)
        if wait:
            require_service(state, f"vCenter {name!r} was not read")
        with state.write() as session:
            scan_id = ask_for_scan(session, name, now=time.time()).id
        if wait:
            _follow(state, scan_id, as_json=as_json)
        elif as_json:
            with state.read() as session:
                print_json(scan_record(session.get_one(VcenterScan, scan_id)).model_dump(mode="json"))
        else:
            note("Requested; `scheduler vcenter list` shows the outcome.")
        warn_without_service(state, "this starts")


@app.command()
def remove(name: VcenterName) -> None:
    """Remove a vCenter that no datastore and no job's selection names. Restore points of its VMs stay.

    \b
    Examples:
      scheduler vcenter remove vc1
    """
    with opened_state() as state, state.write() as session:
        find_vcenter(session, name)
        withdraw(session, "vcenter", name)
    note(f"Removed vCenter {name}. Restore points of its VMs stay.")


def _show_check(found: VcenterCheck, purposes: list[str]) -> None:
    trusted = "pinned by its thumbprint" if found.trusted_by == "thumbprint" else "verified"
    lacking = plural(len(found.missing), "privilege") + " missing" if found.missing else "all there"
    rows: list[tuple[str, str | Text]] = [
        ("vCenter", f"{found.vcenter} ({found.host}:{found.port})"),
        ("product", found.product),
        ("certificate", trusted),
        ("login", f"{found.user}: ok"),
        ("tags", f"on {plural(found.tagged_objects, 'object')}"),
        (
            "privileges",
            Text(
                f"{lacking} at the vCenter's root, for {', '.join(purposes)}",
                style="red" if found.missing else "green",
            ),
        ),
    ]
    missing = table("MISSING", "IN THE VSPHERE CLIENT", "FOR", keep=("MISSING", "FOR"))
    for one in found.missing:
        missing.add_row(one.privilege, Text(one.name), one.purpose)
    print_view(Group(facts(rows), "", missing) if found.missing else facts(rows))


def _follow(state: State, scan_id: str, *, as_json: bool) -> NoReturn:
    def look() -> ScanRecord:
        with state.read() as session:
            return scan_record(session.get_one(VcenterScan, scan_id))

    follow_to_end(watch_of_scan(look), scan_line, lambda record: record.exit_code, as_json=as_json)


def _last_rescan(scan: dict[str, Any] | None) -> Text:
    return Text("-") if scan is None else Text(f"{scan['created']}: {scan['outcome'] or scan['state']}")
