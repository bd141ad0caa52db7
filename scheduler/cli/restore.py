"""`scheduler restore`: disks and VMs written back from restore points."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.names import DiskFormat
from proxy_worker.ledger import FleetView
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson
from scheduler.cli.finding import find_restore, no_such_proxy
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import configuration, opened_state, require_service, warn_without_service
from scheduler.cli.printing import Columns, console, moment, note, print_json, show_rows, state
from scheduler.cli.printing import show as print_view
from scheduler.cli.restore_record import RestoreRecord, restore_line, restore_record, restore_summary
from scheduler.cli.restore_vm import after_asking, read_vm_restore
from scheduler.cli.restore_vm import vm as restore_vm
from scheduler.cli.vm_restore_record import (
    VmRestoreRecord,
    disks_in_short,
    vm_restore_record,
    vm_restore_summary,
)
from scheduler.cli.watching import Told, Watch
from scheduler.restores.asking import ask_for_disks_to_vm, find_vm_restore
from scheduler.state.asking import ask_for_restore, ask_to_cancel_restore, find_point
from scheduler.state.models import Proxy, Repository, Restore, RestoreWishes, VmRestore
from scheduler.state.store import State

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Write disks and VMs back from restore points.",
)
app.command("vm")(restore_vm)


class RestoreTargetError(ConfigurationError):
    """It isn't clear where a disk should be written."""


class NoReadKeyError(CredentialError):
    """The proxy that should restore holds no key that can read the repository."""


@app.command()
def disk(
    *,
    vm: Annotated[str, typer.Option(metavar="VM", help="The VM's name or id.", autocompletion=completion.vms)],
    disk_key: Annotated[
        str, typer.Option("--disk", metavar="KEY", help="E.g. scsi0:0.", autocompletion=completion.disks)
    ],
    to: Annotated[
        str | None, typer.Option(metavar="PATH", help="The file or block device to write, on the proxy.")
    ] = None,
    to_vm: Annotated[
        str | None,
        typer.Option(
            "--to-vm",
            metavar="NAME",
            help="The VM of a vCenter to add the disk to; it must be off.",
            autocompletion=completion.vms,
        ),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            metavar="POINT", help="The restore point; the newest unless told.", autocompletion=completion.points
        ),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            metavar="PROXY",
            help="Who writes it; the server's own proxy unless told.",
            autocompletion=completion.proxies,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what is at PATH, or write over the disk of that key in the VM."),
    ] = False,
    disk_format: Annotated[
        DiskFormat, typer.Option("--disk-format", help="With --to-vm: how the new disk takes room.")
    ] = DiskFormat.THIN,
    datastore: Annotated[
        str | None,
        typer.Option(metavar="DATASTORE", help="With --to-vm: where the new disk goes; beside the VM unless told."),
    ] = None,
    power_off: Annotated[
        bool, typer.Option("--power-off", help="With --to-vm: power the VM off first if it is on.")
    ] = False,
    power_on: Annotated[
        bool, typer.Option("--power-on", help="With --to-vm: power the VM on when the disk is restored.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one disk of a restore point to a path of a proxy, or into a VM of a vCenter.

    With --wait: exits 0 once the disk is written and verified, otherwise with the code of what went wrong.
    Ctrl-C leaves the restore running.

    \b
    Examples:
      scheduler restore disk --vm web01 --disk scsi0:0 --to /restore/web01.raw --wait
      scheduler restore disk --vm web01 --disk scsi0:0 --point 20261122T190102Z-1a2b3c4d \\
          --proxy proxy-2 --to /restore/web01.raw --overwrite --wait
      scheduler restore disk --vm web01 --disk scsi0:1 --to-vm web01-test --wait
    """
    if (to is None) == (to_vm is None):
        raise RestoreTargetError("--to or --to-vm", why="one of them says where the disk goes, not both")
    if to_vm is not None:
        wishes = RestoreWishes(datastore=datastore, disk_format=disk_format, power_off=power_off, power_on=power_on)
        _into_vm(vm, disk_key, to_vm, wishes, point=point, overwrite=overwrite, wait=wait, as_json=as_json)
        return
    with opened_state() as opened:
        if wait:
            require_service(opened, "nothing was restored")
        target_proxy, path = _target(proxy, to or "")
        view = LedgerWindow().look().view
        with opened.write() as session:
            found = find_point(session, vm, point)
            _check_proxy(session, view, target_proxy, found.repository)
            restore = ask_for_restore(
                session, vm=vm, disk_key=disk_key, proxy=target_proxy, target_path=path, now=time.time(),
                point=point, overwrite=overwrite,
            )  # fmt: skip
            restore_id = restore.id
        if wait:
            _follow(opened, restore_id, as_json=as_json)
        elif as_json:
            print_json(_read(opened, restore_id).model_dump(mode="json"))
        else:
            typer.echo(f"Restore {restore_id} is asked for.")
            note(f"See how far it is with `scheduler restore show {restore_id}`.")
        warn_without_service(opened, "it starts")


@app.command("list")
def list_restores(
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List restores, the newest first.

    \b
    Examples:
      scheduler restore list
      scheduler restore list --json | jq '.[] | select(.state == "failed").reason'
    """
    window = LedgerWindow()
    newest = select(Restore).order_by(Restore.created_at.desc(), Restore.id.desc()).limit(limit)
    newest_vms = select(VmRestore).order_by(VmRestore.created_at.desc(), VmRestore.id.desc()).limit(limit)
    with opened_state() as opened, opened.read() as session:
        restores = session.scalars(newest).all()
        vms = session.scalars(newest_vms).all()
        under_way = any(not one.state.final for one in restores) or any(not one.state.final for one in vms)
        live = window.look(session) if under_way else Live()
        records: list[RestoreRecord | VmRestoreRecord] = [
            *(restore_record(session, restore, live) for restore in restores),
            *(vm_restore_record(session, restore, live) for restore in vms),
        ]
    records.sort(key=lambda record: (record.created, record.restore), reverse=True)
    records = records[:limit]
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
    elif not records:
        note("Nothing has been restored yet.")
    else:
        columns: Columns = {
            "RESTORE": [record.restore for record in records],
            "VM": [Text(record.vm) for record in records],
            "DISK": [
                record.disk if isinstance(record, RestoreRecord) else disks_in_short(record) for record in records
            ],
            "STATE": [state(record.state) for record in records],
            "STARTED": [moment(record.created) for record in records],
            "PROXY": [Text(record.proxy if isinstance(record, RestoreRecord) else "-") for record in records],
            "TO": [
                Text(record.path if isinstance(record, RestoreRecord) else f"{record.vcenter}: {record.target}")
                for record in records
            ],
        }
        show_rows(columns, spare=("STARTED", "PROXY"))


@app.command()
def show(
    restore: Annotated[str, typer.Argument(metavar="RESTORE", help="Its id.")], as_json: AsJson = False
) -> None:
    """Show a restore and how far it is.

    \b
    Examples:
      scheduler restore show 20261122T190102Z-1a2b3c4d
    """
    with opened_state() as opened:
        of_vm = _vm_restore_id(opened, restore)
        if of_vm is not None:
            vm_record = read_vm_restore(opened, of_vm, LedgerWindow())
            shown, view = vm_record.model_dump(mode="json"), vm_restore_summary(vm_record)
        else:
            record = _read(opened, restore, LedgerWindow())
            shown, view = record.model_dump(mode="json"), restore_summary(record)
    if as_json:
        print_json(shown)
    else:
        print_view(view)


@app.command()
def cancel(restore: Annotated[str, typer.Argument(metavar="RESTORE", help="Its id.")]) -> None:
    """Cancel a restore that is under way.

    What it made at a vCenter is deleted again. What it has written over an existing disk stays, incomplete.

    \b
    Examples:
      scheduler restore cancel 20261122T190102Z-1a2b3c4d
    """
    with opened_state() as opened:
        with opened.write() as session:
            of_vm = find_vm_restore(session, restore)
            if of_vm is not None:
                restore_id, of_vm.cancel_requested = of_vm.id, True
            else:
                restore_id = find_restore(session, restore).id
                ask_to_cancel_restore(session, restore_id)
        note(f"Restore {restore_id} is being cancelled.")
        warn_without_service(opened, "it ends")


def _into_vm(
    vm: str,
    disk_key: str,
    to_vm: str,
    wishes: RestoreWishes,
    *,
    point: str | None,
    overwrite: bool,
    wait: bool,
    as_json: bool,
) -> None:
    with opened_state() as opened:
        if wait:
            require_service(opened, "nothing was restored")
        with opened.write() as session:
            restore = ask_for_disks_to_vm(
                session, vm=vm, disks=(disk_key,), to_vm=to_vm, wishes=wishes, now=time.time(),
                point=point, overwrite=overwrite,
            )  # fmt: skip
            restore_id = restore.id
        after_asking(opened, restore_id, wait=wait, as_json=as_json)


def _vm_restore_id(opened: State, restore: str) -> str | None:
    with opened.read() as session:
        found = find_vm_restore(session, restore)
        return found.id if found is not None else None


def _target(proxy: str | None, path: str) -> tuple[str, str]:
    """Who writes and where; a relative path is meant from here if this machine's own proxy writes."""
    local = configuration().local_proxy
    if proxy is None and not local.enabled:
        raise RestoreTargetError("--proxy is missing", why="this server runs no proxy of its own")
    if proxy is None or proxy == local.name:
        return local.name, str(Path(path).absolute())
    if not path.startswith("/"):
        raise RestoreTargetError(f"--to {path}", why=f"it is on proxy {proxy}, so it has to be an absolute path")
    return proxy, path


def _check_proxy(session: Session, view: FleetView | None, name: str, repository: str) -> None:
    """Refuse a restore that could only wait for ever; a ledger that doesn't answer refuses nothing."""
    if view is None:
        return
    proxy = view.proxies.get(name)
    if proxy is None:
        if session.get(Proxy, name) is None and name != configuration().local_proxy.name:
            raise no_such_proxy(name, view.proxies)
        note(f"Proxy {name} isn't up; the restore waits for it.")
        return
    declared = session.get_one(Repository, repository)
    held = proxy.registration.credentials.get(declared.credential or "")
    if declared.credential is not None and held != "read":
        raise NoReadKeyError(
            f"proxy {name!r} can't restore from repository {repository!r}",
            why=f"it holds {'only the write key' if held else 'no key'} {declared.credential!r}",
            remedy="Choose a proxy with the read key or passphrase by --proxy, or put it into its secrets folder.",
        )
    if not proxy.live:
        note(f"Proxy {name} isn't up; the restore waits for it.")


def _read(opened: State, restore_id: str, window: LedgerWindow | None = None) -> RestoreRecord:
    with opened.read() as session:
        live = window.look(session) if window is not None else Live()
        return restore_record(session, find_restore(session, restore_id), live)


def _follow(opened: State, restore_id: str, *, as_json: bool) -> None:
    window = LedgerWindow()
    out = console(sys.stderr if as_json else sys.stdout)
    told = Told()

    def news(record: RestoreRecord) -> list[str]:
        what = (record.state, record.attempts, record.reason)
        moving = record.state == "running"
        return [restore_line(record).plain] if told.is_news(restore_id, what, moving=moving) else []

    watch = Watch(
        lambda: _read(opened, restore_id, window),
        ended=lambda record: record.final,
        view=lambda record, _: restore_line(record),
        news=news,
        on_interrupt=f"Restore {restore_id} goes on.\n"
        f"  see it:    scheduler restore show {restore_id}\n  cancel it: scheduler restore cancel {restore_id}",
    )
    record = watch.until_ended(out, quiet=as_json and not out.is_terminal)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_view(restore_summary(record))
    raise typer.Exit(record.exit_code)
