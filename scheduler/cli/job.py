"""`scheduler job`: what to protect, where to, when and how."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from sqlalchemy import select

from proxy_worker.contract.names import CompressionLevel, Quiesce
from scheduler.cli import completion
from scheduler.cli.absent_proxies import warn_of_absent_proxies
from scheduler.cli.arguments import AsJson, JobName
from scheduler.cli.finding import find_job, find_repository
from scheduler.cli.job_options import (
    Attributes,
    Clusters,
    CopiedFrom,
    CopiedJobs,
    CopiedPoints,
    Datastores,
    ExcludedDisks,
    ExcludedVms,
    Exclusions,
    Folders,
    KeepDays,
    KeepMinimum,
    KeepMonthly,
    KeepPoints,
    KeepWeekly,
    KeepYearly,
    Kind,
    OfVcenter,
    Pools,
    Tags,
    VmPatterns,
    exclusion_keys,
    kind_keys,
    selection_keys,
)
from scheduler.cli.job_replica_options import (
    Mapped,
    Networks,
    ReplicaPoints,
    Seed,
    Suffix,
    TargetDatastore,
    TargetProxies,
    replica_keys,
)
from scheduler.cli.job_view import describe_job, job_as_json, job_columns, job_with_preview, newest_run
from scheduler.cli.opening import opened_state, require_service, warn_without_service
from scheduler.cli.printing import note, print_json, show_rows
from scheduler.cli.printing import show as print_view
from scheduler.cli.run_outcome import follow, read_run
from scheduler.fleet.editing import declare, withdraw
from scheduler.fleet.models import ModeChoice
from scheduler.fleet.stored import stored_fleet
from scheduler.state.asking import active_run, ask_for_run, ask_to_cancel
from scheduler.state.declared import JobKind, Priority
from scheduler.state.errors import RunEndedError
from scheduler.state.models import Job

app = typer.Typer(
    rich_markup_mode=None, add_completion=False, no_args_is_help=True, help="Define jobs, start and stop them."
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="JOB", help="The new job's name.")],
    *,
    kind: Kind = JobKind.BACKUP,
    vms: VmPatterns = None,
    copied_from: CopiedFrom = None,
    copied_jobs: CopiedJobs = None,
    copied_points: CopiedPoints = None,
    folders: Folders = None,
    pools: Pools = None,
    clusters: Clusters = None,
    datastores: Datastores = None,
    attributes: Attributes = None,
    tags: Tags = None,
    vcenter: OfVcenter = None,
    exclude_vms: ExcludedVms = None,
    exclusions: Exclusions = None,
    exclude_disks: ExcludedDisks = None,
    templates: Annotated[bool, typer.Option("--templates", help="Protect templates too.")] = False,
    quiesce: Annotated[
        Quiesce,
        typer.Option(
            metavar="HOW", help="Bring guests to rest before a snapshot: prefer, require (or fail the VM), never."
        ),
    ] = Quiesce.PREFER,
    repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the restore points go.", autocompletion=completion.repositories),
    ] = None,
    target_datastore: TargetDatastore = None,
    suffix: Suffix = None,
    networks: Networks = None,
    mapped: Mapped = None,
    seed: Seed = None,
    replica_points: ReplicaPoints = None,
    target_proxies: TargetProxies = None,
    level: Annotated[
        CompressionLevel,
        typer.Option(metavar="LEVEL", help="How hard to compress: auto, none, fast, optimal, high or extreme."),
    ] = CompressionLevel.OPTIMAL,
    transport_mode: Annotated[
        ModeChoice,
        typer.Option(metavar="MODE", help="The only mode to read disks over; automatic for the best."),
    ] = ModeChoice.AUTOMATIC,
    failover_to_network: Annotated[
        bool, typer.Option(help="Whether to go over to network mode when another one fails.")
    ] = True,
    priority: Annotated[Priority, typer.Option(help="Who goes first when slots are short.")] = Priority.REGULAR,
    cron: Annotated[
        str | None, typer.Option(metavar="'M H D M W'", help="When it starts by itself: five cron fields.")
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            metavar="ZONE", help="The time zone that --cron is meant in.", autocompletion=completion.time_zones
        ),
    ] = "UTC",
    retries: Annotated[int, typer.Option(metavar="COUNT", help="How often failed disks are tried again.")] = 3,
    retry_wait: Annotated[float, typer.Option(metavar="MINUTES", help="How long to wait before that.")] = 10,
    keep_points: KeepPoints = 7,
    keep_days: KeepDays = None,
    keep_weekly: KeepWeekly = 0,
    keep_monthly: KeepMonthly = 0,
    keep_yearly: KeepYearly = 0,
    keep_minimum: KeepMinimum = 1,
    disabled: Annotated[bool, typer.Option("--disabled", help="Don't let the schedule start it yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a job. It takes every VM that any of the options selects and none excludes, found out in each run.

    Conditions that VMs have to meet together are written in a fleet file: `[[job.select]]`.

    \b
    Examples:
      scheduler job create nightly --vm 'web*' --vm db01 --repository main
      scheduler job create gold --tag Backup/gold --folder DC0/Linux --exclude-vm '*-test' \\
          --exclude-disk independent --quiesce require --repository main
      scheduler job create all --vcenter vc1 --exclude tag=Backup/never --repository main
      scheduler job create hourly --vm db01 --repository main --level fast \\
          --cron '0 * * * *' --timezone Europe/Berlin --keep-points 24 --keep-weekly 4 --keep-monthly 12
      scheduler job create offsite --kind copy --from main --repository second --cron '0 6 * * *' --keep-monthly 12
      scheduler job create away --kind replication --vm 'web*' --target-datastore ds-remote \\
          --network 'VM Network=Remote' --replica-points 14 --cron '*/15 * * * *'
    """
    selected = {
        "folder": folders,
        "pool": pools,
        "cluster": clusters,
        "datastore": datastores,
        "attribute": attributes,
        "tag": tags,
    }
    declared: dict[str, Any] = {
        "name": name,
        **kind_keys(kind, copied_from, copied_jobs, copied_points),
        **selection_keys(vms or (), selected, vcenter, needed=kind is not JobKind.COPY),
        **exclusion_keys(exclude_vms or (), exclusions or (), exclude_disks or ()),
        "templates": templates,
        "quiesce": quiesce.value,
        "repository": repository,
        "replica": replica_keys(
            datastore=target_datastore,
            suffix=suffix,
            networks=networks,
            mapped=mapped,
            seed=seed,
            points=replica_points,
            proxies=target_proxies,
            replicates=kind is JobKind.REPLICATION,
        ),
        "level": level.value,
        "transport_mode": transport_mode.value,
        "failover_to_network": failover_to_network,
        "priority": priority.value,
        "schedule": {"cron": cron, "timezone": timezone} if cron is not None else None,
        "retries": {"count": retries, "wait_minutes": retry_wait},
        "retention": {
            "points": keep_points,
            "days": keep_days,
            "weekly": keep_weekly,
            "monthly": keep_monthly,
            "yearly": keep_yearly,
            "minimum": keep_minimum,
        },
        "enabled": not disabled,
    }
    with opened_state() as state, state.write() as session:
        if repository is not None:
            find_repository(session, repository)
        declare(session, "job", declared)
        shown = job_as_json(session, find_job(session, name))
        fleet = stored_fleet(session)
    warn_of_absent_proxies(fleet, f"job {name!r}")
    if as_json:
        print_json(shown)
    else:
        note(f"Created job {name}. Start it with `scheduler job start {name}`.")


@app.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """List all jobs, when they start next, and how they ended last.

    \b
    Examples:
      scheduler job list
      scheduler job list --json | jq -r '.[] | select(.enabled).name'
    """
    with opened_state() as state, state.read() as session:
        jobs = session.scalars(select(Job).order_by(Job.name)).all()
        if as_json:
            print_json([job_as_json(session, job) for job in jobs])
            return
        if not jobs:
            note("There are no jobs. `scheduler job create --help` shows how to make one.")
            return
        columns = job_columns(jobs, [newest_run(session, job.name) for job in jobs])
    show_rows(columns, spare=("ENDED", "NEXT START"))


@app.command()
def show(name: JobName, as_json: AsJson = False) -> None:
    """Show a job. It has its settings, its last runs, and which restore points the next run removes and why.

    \b
    Examples:
      scheduler job show nightly
      scheduler job show nightly --json | jq '.points_after_next_run[] | select(.kept | not)'
    """
    with opened_state() as state, state.read() as session:
        job = find_job(session, name)
        if as_json:
            print_json(job_with_preview(session, job))
        else:
            print_view(describe_job(session, job))


@app.command()
def start(
    name: JobName,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show progress until the run, with its retries, has ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run of a job now, whether or not it is enabled.

    With --wait: exits 0 only if every disk succeeded, 1 if any failed, 11 if the run was cancelled. Ctrl-C
    leaves the run running.

    \b
    Examples:
      scheduler job start nightly
      scheduler job start nightly --wait
      scheduler job start nightly --wait --json | jq '.disks[] | {vm, disk, state, proxy}'
    """
    with opened_state() as state:
        if wait:
            require_service(state, f"job {name!r} was not started")
        with state.write() as session:
            run_id = ask_for_run(session, name, now=time.time()).id
        if wait:
            follow(state, run_id, as_json=as_json)
        elif as_json:
            print_json(read_run(state, run_id).model_dump(mode="json"))
        else:
            typer.echo(f"Requested run {run_id} of job {name}.")
            note(f"Watch it with `scheduler run watch {run_id}`.")
        warn_without_service(state, "the run starts")


@app.command()
def stop(name: JobName) -> None:
    """Cancel the run of a job that is under way. Disks that are done already are kept for its retry.

    \b
    Examples:
      scheduler job stop nightly
    """
    with opened_state() as state:
        with state.write() as session:
            find_job(session, name)
            active = active_run(session, name)
            if active is None:
                raise RunEndedError(f"job {name!r} can't be stopped", why="no run of it is under way")
            run_id = ask_to_cancel(session, active.id).id
        note(f"Run {run_id} is being cancelled.")
        warn_without_service(state, "it ends")


@app.command()
def enable(name: JobName) -> None:
    """Let a job's schedule start it.

    \b
    Examples:
      scheduler job enable nightly
    """
    _set_enabled(name, enabled=True)


@app.command()
def disable(name: JobName) -> None:
    """Keep a job's schedule from starting it. It can still be started by hand.

    \b
    Examples:
      scheduler job disable nightly
    """
    _set_enabled(name, enabled=False)


@app.command()
def delete(name: JobName) -> None:
    """Delete a job. Its history and its restore points stay.

    \b
    Examples:
      scheduler job delete nightly
    """
    with opened_state() as state, state.write() as session:
        find_job(session, name)
        withdraw(session, "job", name)
    note(f"Deleted job {name}. Its restore points stay.")


def _set_enabled(name: str, *, enabled: bool) -> None:
    with opened_state() as state, state.write() as session:
        job = find_job(session, name)
        job.enabled = enabled
        scheduled = job.cron is not None
    note(f"Job {name} is {'enabled' if enabled else 'disabled'}{'' if scheduled else '; it has no schedule'}.")
