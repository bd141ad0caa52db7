"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scheduler.cli import completion

JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.", autocompletion=completion.jobs)]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="The run's id, or an unmistakable start of it.", autocompletion=completion.runs
    ),
]
RestoreId = Annotated[str, typer.Argument(metavar="RESTORE", help="Its id.", autocompletion=completion.restores)]
ProxyName = Annotated[
    str, typer.Argument(metavar="PROXY", help="The proxy's name.", autocompletion=completion.proxies)
]
RepositoryName = Annotated[
    str,
    typer.Argument(metavar="REPOSITORY", help="The repository's name.", autocompletion=completion.repositories),
]
VcenterName = Annotated[
    str, typer.Argument(metavar="VCENTER", help="The vCenter's name.", autocompletion=completion.vcenters)
]
Site = Annotated[
    str,
    typer.Option("--site", metavar="SITE", help="Where it stands.", autocompletion=completion.sites),
]
InRepository = Annotated[
    str | None,
    typer.Option(
        "--repository",
        metavar="NAME",
        help="The repository, where several have the restore point.",
        autocompletion=completion.repositories,
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Show progress until it has ended, or ask for it and return at once."),
]
VmName = Annotated[str, typer.Argument(metavar="VM", help="The VM's name or id.", autocompletion=completion.vms)]
NewestPoint = Annotated[
    str | None,
    typer.Argument(
        metavar="[POINT]", help="The restore point; the newest unless told.", autocompletion=completion.points
    ),
]
OfVm = Annotated[
    str, typer.Option("--vm", metavar="VM", help="The VM's name or id.", autocompletion=completion.vms)
]
AtPoint = Annotated[
    str | None,
    typer.Option(
        "--point",
        metavar="POINT",
        help="The restore point; the newest unless told.",
        autocompletion=completion.points,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WindowZone = Annotated[
    str | None,
    typer.Option(
        "--timezone",
        metavar="ZONE",
        help="The time zone that --window is meant in; UTC unless told.",
        autocompletion=completion.time_zones,
    ),
]


def window_of(hours: list[str] | None, timezone: str | None) -> dict[str, Any] | None:
    """What `--window` and `--timezone` declare; raises `typer.BadParameter` for a zone of no hours."""
    if not hours and timezone is not None:
        raise typer.BadParameter("--timezone is about --window: give the hours as well")
    return {"hours": hours, "timezone": timezone or "UTC"} if hours else None
