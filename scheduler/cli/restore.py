"""`scheduler restore`: disks and VMs written back from restore points."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text
from sqlalchemy import select

from scheduler.cli.arguments import AsJson, RestoreId, Wait
from scheduler.cli.finding import find_restore
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import opened_state, warn_without_service
from scheduler.cli.printing import Columns, moment, note, print_json, show_rows, state
from scheduler.cli.printing import show as print_view
from scheduler.cli.restore_disk import disk as restore_disk
from scheduler.cli.restore_disk import read_restore
from scheduler.cli.restore_files import files as restore_files
from scheduler.cli.restore_record import RestoreRecord, restore_record, restore_summary
from scheduler.cli.restore_vm import after_asking, read_vm_restore
from scheduler.cli.restore_vm import vm as restore_vm
from scheduler.cli.vm_restore_record import (
    VmRestoreRecord,
    disks_in_short,
    vm_restore_record,
    vm_restore_summary,
)
from scheduler.restores.asking import ask_to_cancel, ask_to_move, find_vm_restore
from scheduler.restores.giving_up import ask_to_give_up
from scheduler.state.errors import NoSuchRestoreError
from scheduler.state.models import Restore, VmRestore
from scheduler.state.store import State

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Bring disks, VMs and files back from restore points.",
)
app.command("disk")(restore_disk)
app.command("vm")(restore_vm)
app.command("files")(restore_files)


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
def show(restore: RestoreId, as_json: AsJson = False) -> None:
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
            record = read_restore(opened, restore, LedgerWindow())
            shown, view = record.model_dump(mode="json"), restore_summary(record)
    if as_json:
        print_json(shown)
    else:
        print_view(view)


@app.command()
def cancel(
    restore: RestoreId,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Don't wait for the host or the proxy of a VM that ran from its restore point."
        ),
    ] = False,
) -> None:
    """Cancel a restore that is under way.

    What it made at a vCenter is deleted again, a VM that runs from its restore point with all it has written. What
    it has written over an existing disk stays, incomplete.

    Once such a VM has moved or is deleted, its host unmounts and its proxy forgets what it wrote, which are waited
    for until they do. If they are gone for good, --force gives up the one that is waited for, and says what may be
    left where.

    \b
    Examples:
      scheduler restore cancel 20261122T190102Z-1a2b3c4d
      scheduler restore cancel 20261122T190102Z-1a2b3c4d --force
    """
    left = None
    with opened_state() as opened:
        with opened.write() as session:
            of_vm = find_vm_restore(session, restore)
            if force:
                if of_vm is None:
                    raise NoSuchRestoreError(f"restore {restore!r}", why="no restore of a VM has that id")
                restore_id, left = of_vm.id, ask_to_give_up(session, of_vm)
            else:
                found = of_vm or find_restore(session, restore)
                ask_to_cancel(found)
                restore_id = found.id
        note(f"It isn't waited for any more: {left}." if left else f"Restore {restore_id} is being cancelled.")
        warn_without_service(opened, "it ends")


@app.command()
def migrate(
    restore: RestoreId,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Move a VM that runs from its restore point into production.

    For a VM that was restored with --instant --stay, or whose move has failed. It runs on meanwhile.

    \b
    Examples:
      scheduler restore migrate 20261122T190102Z-1a2b3c4d --wait
    """
    with opened_state() as opened:
        with opened.write() as session:
            found = find_vm_restore(session, restore)
            if found is None:
                raise NoSuchRestoreError(f"restore {restore!r}", why="no restore of a VM has that id")
            ask_to_move(found)
            restore_id = found.id
        after_asking(opened, restore_id, wait=wait, as_json=as_json)


def _vm_restore_id(opened: State, restore: str) -> str | None:
    with opened.read() as session:
        found = find_vm_restore(session, restore)
        return found.id if found is not None else None
