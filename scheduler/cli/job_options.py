"""How `scheduler job create` is told which VMs and disks a job is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from proxy_worker.contract.errors import ConfigurationError
from scheduler.cli import completion
from scheduler.planning.copies import PointChoice
from scheduler.planning.criteria import VmSelector
from scheduler.state.declared import JobKind

_CONDITIONS: Final = tuple(key for key in VmSelector.model_fields if key not in {"vm", "vcenter"})


class SelectionOptionError(ConfigurationError):
    """Options don't say which VMs a job is about, or by what it leaves some out."""


VmPatterns = Annotated[
    list[str] | None,
    typer.Option(
        "--vm",
        metavar="PATTERN",
        help="A VM's name, or a pattern such as 'web*'. Repeatable, as all that select or exclude are.",
        autocompletion=completion.vms,
    ),
]
Folders = Annotated[
    list[str] | None,
    typer.Option(
        "--folder",
        metavar="PATH",
        help="VMs in or below a vCenter's folder: 'DC0/Linux'.",
        autocompletion=completion.folders,
    ),
]
Pools = Annotated[
    list[str] | None,
    typer.Option("--pool", metavar="PATH", help="VMs in or below a resource pool or vApp: 'Production/Web'."),
]
Clusters = Annotated[
    list[str] | None, typer.Option("--cluster", metavar="NAME", help="VMs of a cluster, or of a host in none.")
]
Datastores = Annotated[
    list[str] | None,
    typer.Option("--datastore", metavar="NAME", help="VMs that lie on a datastore, in part or whole."),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="NAME=VALUE", help="VMs with this value of a custom attribute."),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="CATEGORY/NAME", help="VMs with this tag: 'Backup/gold'.", autocompletion=completion.tags
    ),
]
OfVcenter = Annotated[
    str | None,
    typer.Option(
        "--vcenter",
        metavar="NAME",
        help="Select in this vCenter only; with nothing else, all its VMs.",
        autocompletion=completion.vcenters,
    ),
]
ExcludedVms = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-vm",
        metavar="PATTERN",
        help="Leave out VMs of this name or pattern.",
        autocompletion=completion.vms,
    ),
]
Exclusions = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="BY=VALUE",
        help=f"Leave out VMs by {', '.join(_CONDITIONS)}: 'tag=Backup/never', 'folder=DC0/Test'.",
    ),
]
ExcludedDisks = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-disk",
        metavar="WHICH",
        help="Leave out disks: 'scsi0:1', 'independent', '>500GiB'; of some VMs only: 'db*/scsi0:1'.",
    ),
]
Kind = Annotated[
    JobKind,
    typer.Option(help="What it does: back VMs up, replicate them, or copy restore points to another repository."),
]
CopiedFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="NAME",
        help="With --kind copy: the repository that is copied from.",
        autocompletion=completion.repositories,
    ),
]
CopiedJobs = Annotated[
    list[str] | None,
    typer.Option(
        "--from-job",
        metavar="PATTERN",
        help="With --kind copy: only restore points of such jobs.",
        autocompletion=completion.jobs,
    ),
]
CopiedPoints = Annotated[
    PointChoice | None,
    typer.Option("--points", help="With --kind copy: the newest of each VM, or all that are missing."),
]
KeepPoints = Annotated[
    int, typer.Option(metavar="COUNT", min=0, help="Keep the newest so many restore points of each VM.")
]
KeepDays = Annotated[int | None, typer.Option(metavar="DAYS", min=1, help="Keep all that are no older.")]
KeepWeekly = Annotated[int, typer.Option(metavar="COUNT", min=0, help="Keep the newest of so many weeks.")]
KeepMonthly = Annotated[int, typer.Option(metavar="COUNT", min=0, help="Keep the newest of so many months.")]
KeepYearly = Annotated[int, typer.Option(metavar="COUNT", min=0, help="Keep the newest of so many years.")]
KeepMinimum = Annotated[int, typer.Option(metavar="COUNT", min=1, help="Never leave fewer of a VM.")]


def kind_keys(
    kind: JobKind, copied_from: str | None, jobs: Sequence[str] | None, points: PointChoice | None
) -> dict[str, Any]:
    """The keys `kind` and `copy_from` of a job; raises `SelectionOptionError`."""
    if kind is not JobKind.COPY and (copied_from or jobs or points):
        raise SelectionOptionError(
            "job",
            why="--from, --from-job and --points are about copies",
            remedy="Add --kind copy, or leave them out.",
        )
    if kind is JobKind.COPY and copied_from is None:
        raise SelectionOptionError(
            "job", why="no option says which repository is copied from", remedy="Give --from NAME."
        )
    if copied_from is None:
        return {"kind": kind.value}
    given = {"jobs": list(jobs or ()), "points": points.value if points is not None else None}
    return {
        "kind": kind.value,
        "copy_from": {"repository": copied_from, **{key: value for key, value in given.items() if value}},
    }


def selection_keys(
    vms: Sequence[str], by: Mapping[str, Sequence[str] | None], vcenter: str | None, *, needed: bool = True
) -> dict[str, Any]:
    """The keys `vms` and `select` of a job that takes whatever any of these options takes.

    With a vCenter, names are of its VMs only, and so are selectors of their own. Raises `SelectionOptionError` when
    nothing is selected though it is `needed`.
    """
    select = [{key: value} for key, values in by.items() for value in values or ()]
    if needed and vcenter is None and not vms and not select:
        raise SelectionOptionError(
            "job",
            why="no option says which VMs it is about",
            remedy="Give --vm, --folder, --pool, --cluster, --datastore, --attribute, --tag or --vcenter.",
        )
    if vcenter is None:
        return {"vms": list(vms), "select": select}
    select = [{"vm": pattern} for pattern in vms] + select
    return {"vms": [], "select": [{**selector, "vcenter": vcenter} for selector in select or [{}]]}


def exclusion_keys(vms: Sequence[str], by: Sequence[str], disks: Sequence[str]) -> dict[str, Any]:
    """The keys `exclude` and `exclude_disks` of a job; raises `SelectionOptionError`."""
    exclude = [{"vm": pattern} for pattern in vms]
    for text in by:
        key, separator, value = text.partition("=")
        if not separator or key not in _CONDITIONS:
            raise SelectionOptionError(
                f"--exclude {text!r}",
                why=f"expected one of {', '.join(_CONDITIONS)}, an equals sign and a value",
                remedy="E.g. --exclude tag=Backup/never. VMs are excluded by name with --exclude-vm.",
            )
        exclude.append({key: value})
    return {"exclude": exclude, "exclude_disks": list(disks)}
