"""`scheduler vm`: the VMs that are known, and how they are protected."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from proxy_worker.program.units import size
from scheduler.cli import completion
from scheduler.cli.arguments import AsJson, VmName
from scheduler.cli.finding import find_job, find_vcenter
from scheduler.cli.opening import opened_state
from scheduler.cli.printing import Columns, ago, facts, moment, note, plural, print_json, show_rows, table
from scheduler.cli.printing import show as print_view
from scheduler.cli.vm_record import KnownVm, find_vm, known_vms

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Look at VMs and how they are protected.",
)


@app.command("list")
def list_vms(
    vcenter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this vCenter.", autocompletion=completion.vcenters),
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only those that it takes.", autocompletion=completion.jobs)
    ] = None,
    unprotected: Annotated[bool, typer.Option("--unprotected", help="Only those that no job takes.")] = False,
    as_json: AsJson = False,
) -> None:
    """List VMs that are known. These are those that vCenters showed last, those that are declared, and those with
    restore points.

    \b
    Examples:
      scheduler vm list
      scheduler vm list --vcenter vc1 --unprotected
      scheduler vm list --job nightly --json | jq -r '.[] | select(.problem).vm'
    """
    with opened_state() as state, state.read() as session:
        if vcenter is not None:
            find_vcenter(session, vcenter)
        if job is not None:
            find_job(session, job)
        shown = [
            vm
            for vm in known_vms(session)
            if (vcenter is None or vm.vcenter == vcenter)
            and (job is None or job in vm.jobs)
            and not (unprotected and vm.jobs)
        ]
    if as_json:
        print_json([vm.model_dump(mode="json") for vm in shown])
        return
    if not shown:
        note(
            "No such VM is known. `scheduler vcenter rescan` looks for those of a vCenter; "
            "others are known once they are declared or backed up."
        )
        return
    columns: Columns = {
        "VM": [Text(vm.vm) for vm in shown],
        "WHERE": [Text(vm.folder or vm.source) for vm in shown],
        "DISKS": [str(len(vm.disks)) for vm in shown],
        "SIZE": [size(sum(disk.size_bytes or 0 for disk in vm.disks)) for vm in shown],
        "CBT": [vm.changed_block_tracking or "-" for vm in shown],
        "LAST POINT": [moment(vm.last_point.created if vm.last_point else None) for vm in shown],
        "JOBS": [Text(", ".join(vm.jobs) or "-") for vm in shown],
        "PROBLEM": [Text(vm.problem or "", style="red") for vm in shown],
    }
    show_rows(columns, right=("DISKS", "SIZE"), spare=("WHERE", "CBT", "SIZE", "DISKS"))


@app.command()
def show(
    vm: VmName,
    as_json: AsJson = False,
) -> None:
    """Show a VM. It says where that is, which jobs protect it, its newest restore point, and its disks.

    \b
    Examples:
      scheduler vm show web01
      scheduler vm show web01 --json | jq '{jobs, last_point}'
    """
    with opened_state() as state, state.read() as session:
        found = find_vm(session, vm)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    disks = table("DISK", "SIZE", "PROVISIONING", "MODE", "FILE", "LEFT OUT", right=("SIZE",), keep=("DISK",))
    for disk in found.disks:
        file = f"[{disk.datastore}] {disk.path}" if disk.datastore and disk.path else disk.path or "-"
        cells = (disk.disk, size(disk.size_bytes), disk.provisioning or "-", disk.mode or "-")
        disks.add_row(*cells, Text(file), Text(disk.left_out or "", style="yellow"))
    print_view(Group(facts(_facts(found)), "", disks))


def _facts(vm: KnownVm) -> list[tuple[str, str | Text]]:
    point = vm.last_point
    rows: list[tuple[str, str | Text]] = [
        ("VM", f"{vm.vm} ({vm.vm_id})"),
        ("protected by", ", ".join(vm.jobs) or Text("no job", style="yellow")),
        (
            "last point",
            f"{point.point} in {point.repository}, {ago(point.created)}" if point else Text("none", style="yellow"),
        ),
        ("points", str(vm.points)),
    ]
    if vm.problem is not None:
        rows.append(("problem", Text(vm.problem, style="red")))
    if vm.vcenter is None:
        where = "declared with its disks" if vm.source == "declared" else "its restore points"
        return [*rows, ("known by", where)]
    power = "template" if vm.template else "powered on" if vm.powered_on else "powered off"
    attributes = ", ".join(f"{name}={value}" for name, value in vm.attributes.items())
    return [
        *rows,
        ("vCenter", f"{vm.vcenter} ({vm.ref}), seen {ago(vm.seen)}"),
        ("state", power),
        ("folder", vm.folder or "-"),
        ("cluster", f"{vm.cluster or '-'}{f', pool {vm.pool}' if vm.pool else ''}, host {vm.host or '-'}"),
        ("tags", ", ".join(vm.tags) or "-"),
        ("attributes", attributes or "-"),
        ("changed block tracking", _tracking(vm)),
        ("snapshots", plural(vm.snapshots or 0, "snapshot")),
    ]


def _tracking(vm: KnownVm) -> str:
    if vm.changed_block_tracking != "off":
        return vm.changed_block_tracking or "-"
    if vm.template:
        return "off; a template has none"
    if vm.snapshots:
        return "off; it can't be switched on while the VM has snapshots"
    return "off; the next backup switches it on"
