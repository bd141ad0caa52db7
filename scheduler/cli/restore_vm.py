"""`scheduler restore vm`, and what following a VM's restore has in common with disks that are added to a VM."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from proxy_worker.contract.errors import ConfigurationError
from proxy_worker.contract.names import DiskFormat
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, AtPoint, OfVm, Wait
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import note, print_json
from scheduler.cli.vm_restore_record import (
    VmRestoreRecord,
    disk_line,
    vm_restore_line,
    vm_restore_record,
    vm_restore_summary,
    vm_restore_view,
)
from scheduler.cli.watching import Told, Watch, follow_to_end
from scheduler.restores.asking import ask_for_vm_restore
from scheduler.state.models import RestoreWishes, VmRestore
from scheduler.state.store import State


class PairError(ConfigurationError):
    """An option that takes NAME=VALUE was given something else, or one without that which it goes with."""


def vm(
    *,
    vm: OfVm,
    point: AtPoint = None,
    repository: Annotated[
        str | None,
        typer.Option(
            metavar="REPOSITORY",
            help="The repository to restore from, where several have the VM.",
            autocompletion=completion.repositories,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to call it: another machine, beside the original. The original's place unless told.",
        ),
    ] = None,
    vcenter: Annotated[
        str | None,
        typer.Option(
            metavar="VCENTER", help="Where to; the original's unless told.", autocompletion=completion.vcenters
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="The ESXi host.")] = None,
    folder: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The VM folder, DC0/Linux/web.", autocompletion=completion.folders),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="POOL", help="The resource pool or cluster: Cluster/pool.")
    ] = None,
    datastore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DISK=]DATASTORE",
            help="The datastore; with DISK=, e.g. scsi0:1=ds2, of that disk. Repeatable.",
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Connect cards of the network OLD to NEW. Repeatable."),
    ] = None,
    disk_format: Annotated[
        DiskFormat, typer.Option("--disk-format", help="How new disks take room on their datastore.")
    ] = DiskFormat.THIN,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write over the VM that exists; only what changed, where that is known."),
    ] = False,
    power_off: Annotated[
        bool, typer.Option("--power-off", help="With --overwrite: power the VM off first if it is on.")
    ] = False,
    power_on: Annotated[bool, typer.Option("--power-on", help="Power the VM on when it is restored.")] = False,
    instant: Annotated[
        bool,
        typer.Option(
            "--instant",
            help="Start it within seconds from the repository; its disks move to production while it runs.",
        ),
    ] = False,
    stay: Annotated[
        bool,
        typer.Option("--stay", help="With --instant: move nothing until `scheduler restore migrate` says so."),
    ] = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Restore a VM of a vCenter, with its configuration.

    Without further options it takes the place of its original, which must be gone. A restore that fails or is
    cancelled deletes what it made; with --instant also what the VM has written since. With --wait: exits 0 once the
    VM is restored, or runs with --stay, otherwise with the code of what went wrong. Ctrl-C leaves the restore
    running.

    \b
    Examples:
      scheduler restore vm --vm web01 --wait --power-on
      scheduler restore vm --vm web01 --name web01-test --datastore ds2 --network "VM Network=Lab"
      scheduler restore vm --vm web01 --point 20261122T190102Z-1a2b3c4d --overwrite --power-off --wait
      scheduler restore vm --vm web01 --instant --wait
    """
    if stay and not instant:
        raise PairError("--stay", why="it says when the disks of a VM move that runs by --instant")
    main, per_disk = _datastores(datastore or ())
    wishes = RestoreWishes(
        host=host,
        folder=folder,
        pool=pool,
        datastore=main,
        disk_datastores=per_disk,
        networks=_pairs("--network", network or ()),
        disk_format=disk_format,
        instant=instant,
        stay=stay,
        power_on=power_on,
        power_off=power_off,
    )
    with opened_state() as opened:
        if wait:
            require_service(opened, "nothing was restored")
        with opened.write() as session:
            restore = ask_for_vm_restore(
                session,
                vm=vm,
                wishes=wishes,
                now=time.time(),
                point=point,
                repository=repository,
                name=name,
                vcenter=vcenter,
                overwrite=overwrite,
            )
            restore_id = restore.id
        after_asking(opened, restore_id, wait=wait, as_json=as_json)


def after_asking(opened: State, restore_id: str, *, wait: bool, as_json: bool) -> None:
    """Follow a restore that was asked for, or say how to."""
    if wait:
        follow(opened, restore_id, as_json=as_json)
    elif as_json:
        print_json(read_vm_restore(opened, restore_id).model_dump(mode="json"))
    else:
        typer.echo(f"Requested restore {restore_id}.")
        for text in read_vm_restore(opened, restore_id).warnings:
            note(f"Warning: {text}.")
        note(f"See how far it is with `scheduler restore show {restore_id}`.")
    warn_without_service(opened, "it starts")


def read_vm_restore(opened: State, restore_id: str, window: LedgerWindow | None = None) -> VmRestoreRecord:
    """What is known of a restore now."""
    with opened.read() as session:
        live = window.look(session) if window is not None else Live()
        return vm_restore_record(session, session.get_one(VmRestore, restore_id), live)


def follow(opened: State, restore_id: str, *, as_json: bool) -> None:
    """Show progress per disk until it has ended, then exit with its code."""
    window = LedgerWindow()
    told = Told()
    watch = Watch(
        lambda: read_vm_restore(opened, restore_id, window),
        ended=lambda record: record.final or record.stays,
        view=vm_restore_view,
        news=lambda record: _news(told, record),
        on_interrupt=goes_on(restore_id),
    )
    follow_to_end(watch, vm_restore_summary, lambda record: record.exit_code, as_json=as_json)


def goes_on(restore_id: str) -> str:
    """What is said to who stops looking at a restore."""
    return (
        f"Restore {restore_id} goes on.\n"
        f"  see it:    scheduler restore show {restore_id}\n  cancel it: scheduler restore cancel {restore_id}"
    )


def _news(told: Told, record: VmRestoreRecord) -> list[str]:
    lines = []
    if told.is_news(record.restore, (record.state, record.reason)):
        lines.append(vm_restore_line(record).plain)
    lines += [
        disk_line(disk)
        for disk in record.disks
        if disk.state != "pending"
        and told.is_news(disk.disk, (disk.state, disk.reason), moving=disk.state == "running")
    ]
    return lines


def _datastores(given: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The datastore for everything, and those of single disks."""
    main = [text for text in given if "=" not in text]
    if len(main) > 1:
        raise PairError(
            f"--datastore {main[1]}",
            why=f"{main[0]} was named already",
            remedy="Say scsi0:1=NAME for a single disk.",
        )
    return (main[0] if main else None), _pairs("--datastore", [text for text in given if "=" in text])


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise PairError(f"{option} {text}", why="it isn't of the form NAME=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs
