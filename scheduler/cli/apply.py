"""`scheduler apply`: make the fleet what a file says."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence, Set
from typing import Annotated, Any

import typer
from rich.text import Text

from proxy_worker.contract.errors import ConflictError
from scheduler.cli.absent_proxies import warn_of_absent_proxies
from scheduler.cli.opening import opened_state
from scheduler.cli.printing import console, note, print_json
from scheduler.fleet.changes import Action, Change
from scheduler.fleet.models import Fleet
from scheduler.fleet.reading import read_fleet
from scheduler.fleet.references import warnings_of
from scheduler.fleet.stored import apply_fleet
from scheduler.state.store import State

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SIGNS = {Action.ADDED: ("+", "green"), Action.CHANGED: ("~", "yellow"), Action.REMOVED: ("-", "red")}


class DeclaredMeanwhileError(ConflictError):
    """A file would remove what wasn't there yet when somebody was asked what it may remove."""


@app.command()
def apply(
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="The fleet file; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Make sites, vCenters, datastores, repositories, proxies, VMs and jobs exactly what a file says.

    The whole file is checked before anything happens. What it doesn't declare is removed, in a terminal once
    that is confirmed; history and restore points stay. Applying the same file again changes nothing.

    \b
    Examples:
      scheduler apply -f fleet.toml --dry-run
      scheduler apply -f fleet.toml
      scheduler export | sed 's/optimal/high/' | scheduler apply -f -
    """
    fleet = read_fleet(file)
    for warning in warnings_of(fleet):
        note(f"warning: {warning}")
    warn_of_absent_proxies(fleet)
    with opened_state(migrate=True) as state:
        asks = not (dry_run or yes) and sys.stdin.isatty()
        agreed = _confirm_removals(state, fleet) if asks else frozenset()
        with state.write() as session:
            changes = apply_fleet(session, fleet, dry_run=dry_run)
            if asks and (unasked := _removed(changes) - agreed):
                raise DeclaredMeanwhileError(
                    ", ".join(sorted(unasked)),
                    why="somebody has declared that since you were asked, and the file leaves it out, too",
                    remedy="Nothing was changed: apply the file again.",
                )
    if as_json:
        print_json({"applied": not dry_run, "changes": [_as_json(change) for change in changes]})
    else:
        _show(changes, dry_run=dry_run)
    if not dry_run:
        _tell_what_moved(changes)


def _confirm_removals(state: State, fleet: Fleet) -> Set[str]:
    """Ask about what is to be removed; answers what that is."""
    with state.read() as session:
        removed = _removed(apply_fleet(session, fleet, dry_run=True))
    if removed:
        typer.confirm(f"The file leaves out {', '.join(removed)}. Remove that", abort=True, err=True)
    return removed


def _removed(changes: Sequence[Change]) -> Set[str]:
    """In the order of the changes."""
    return {f"{change.kind} {change.name}": None for change in changes if change.action is Action.REMOVED}.keys()


def _tell_what_moved(changes: Sequence[Change]) -> None:
    for change in changes:
        if change.kind == "repository" and any(key.key == "location" for key in change.keys):
            note(
                f"Repository {change.name} is elsewhere now: `scheduler repository rescan {change.name}` reads "
                f"what it holds; until then the restore points of the place before are shown."
            )


def _show(changes: Sequence[Change], *, dry_run: bool) -> None:
    out = console()
    for change in changes:
        sign, style = SIGNS[change.action]
        out.print(Text(f"{sign} {change.kind} {change.name}", style=style))
        for key in change.keys:
            out.print(Text(f"    {key.key}: {_shown(key.old)} -> {_shown(key.new)}"))
    counts = Counter(change.action for change in changes)
    if not changes:
        out.print("Nothing to change.")
        return
    told = ", ".join(f"{counts[action]} {action.value}" for action in Action if counts[action])
    out.print(f"{told}. Dry run: nothing was changed." if dry_run else f"{told}.", markup=False)


def _shown(value: Any) -> str:
    if value is None:
        return "(default)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(_shown(entry) for entry in value) or "(none)"
    if isinstance(value, dict):
        return " ".join(f"{key}={_shown(entry)}" for key, entry in value.items() if entry is not None)
    return str(value)


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "action": change.action.value,
        "kind": change.kind,
        "name": change.name,
        "keys": {key.key: {"old": key.old, "new": key.new} for key in change.keys},
    }
