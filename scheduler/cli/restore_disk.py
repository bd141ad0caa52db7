"""`scheduler restore disk`: one disk, to a path of a proxy or into a VM of a vCenter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import ConfigurationError, CredentialError
from proxy_worker.contract.names import DiskFormat
from proxy_worker.ledger import FleetView
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, AtPoint, InRepository, OfVm, Wait
from scheduler.cli.finding import find_restore, no_such_proxy
from scheduler.cli.live import LedgerWindow, Live
from scheduler.cli.opening import configuration, opened_state, require_service, warn_without_service
from scheduler.cli.printing import note, print_json
from scheduler.cli.restore_record import RestoreRecord, restore_line, restore_record, restore_summary
from scheduler.cli.restore_vm import after_asking, goes_on
from scheduler.cli.watching import Told, Watch, follow_to_end
from scheduler.restores.asking import ask_for_disks_to_vm
from scheduler.state.asking import ask_for_restore, find_point
from scheduler.state.models import Proxy, Repository, RestoreWishes
from scheduler.state.store import State


class RestoreOptionError(ConfigurationError):
    """It isn't clear where a disk should be written."""


class NoReadKeyError(CredentialError):
    """The proxy that should restore holds no key that can read the repository."""


def disk(
    *,
    vm: OfVm,
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
    point: AtPoint = None,
    repository: InRepository = None,
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
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Restore one disk. It is written to a path of a proxy, or into a VM of a vCenter.

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
        why = "nothing says where the disk goes" if to is None else "both were given"
        raise RestoreOptionError(
            "--to or --to-vm", why=why, remedy="Give --to PATH for a file, or --to-vm VM for a disk of a VM."
        )
    if to_vm is not None:
        wishes = RestoreWishes(datastore=datastore, disk_format=disk_format, power_off=power_off, power_on=power_on)
        _into_vm(
            vm, disk_key, to_vm, wishes, point=point, repository=repository, overwrite=overwrite, wait=wait,
            as_json=as_json,
        )  # fmt: skip
        return
    with opened_state() as opened:
        if wait:
            require_service(opened, "nothing was restored")
        target_proxy, path = _target(proxy, to or "")
        view = LedgerWindow().look().view
        with opened.write() as session:
            found = find_point(session, vm, point, repository=repository)
            _check_proxy(session, view, target_proxy, found.repository)
            restore = ask_for_restore(
                session, vm=vm, disk_key=disk_key, proxy=target_proxy, target_path=path, now=time.time(),
                point=point, repository=repository, overwrite=overwrite,
            )  # fmt: skip
            restore_id = restore.id
        if wait:
            _follow(opened, restore_id, as_json=as_json)
        elif as_json:
            print_json(read_restore(opened, restore_id).model_dump(mode="json"))
        else:
            typer.echo(f"Requested restore {restore_id}.")
            note(f"See how far it is with `scheduler restore show {restore_id}`.")
        warn_without_service(opened, "it starts")


def read_restore(opened: State, restore_id: str, window: LedgerWindow | None = None) -> RestoreRecord:
    with opened.read() as session:
        live = window.look(session) if window is not None else Live()
        return restore_record(session, find_restore(session, restore_id), live)


def _into_vm(
    vm: str,
    disk_key: str,
    to_vm: str,
    wishes: RestoreWishes,
    *,
    point: str | None,
    repository: str | None,
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
                point=point, repository=repository, overwrite=overwrite,
            )  # fmt: skip
            restore_id = restore.id
        after_asking(opened, restore_id, wait=wait, as_json=as_json)


def _target(proxy: str | None, path: str) -> tuple[str, str]:
    """Who writes and where; a relative path is meant from here if this machine's own proxy writes."""
    local = configuration().local_proxy
    if proxy is None and not local.enabled:
        raise RestoreOptionError("--proxy is missing", why="this server runs no proxy of its own")
    if proxy is None or proxy == local.name:
        return local.name, str(Path(path).absolute())
    if not path.startswith("/"):
        raise RestoreOptionError(f"--to {path}", why=f"it is on proxy {proxy}, so it has to be an absolute path")
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


def _follow(opened: State, restore_id: str, *, as_json: bool) -> None:
    window = LedgerWindow()
    told = Told()

    def news(record: RestoreRecord) -> list[str]:
        what = (record.state, record.attempts, record.reason)
        moving = record.state == "running"
        return [restore_line(record).plain] if told.is_news(restore_id, what, moving=moving) else []

    watch = Watch(
        lambda: read_restore(opened, restore_id, window),
        ended=lambda record: record.final,
        view=lambda record, _: restore_line(record),
        news=news,
        on_interrupt=goes_on(restore_id),
    )
    follow_to_end(watch, restore_summary, lambda record: record.exit_code, as_json=as_json)
