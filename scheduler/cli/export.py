"""`scheduler export`: the fleet as a file that `scheduler apply` reads."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scheduler.cli.opening import opened_state
from scheduler.cli.printing import print_json
from scheduler.fleet.stored import stored_fleet
from scheduler.fleet.writing import write_fleet

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all defaults instead of TOML.")] = False,
) -> None:
    """Print what is declared, as a fleet file. Applying it changes nothing.

    \b
    Examples:
      scheduler export > fleet.toml
      scheduler export --json | jq '.job[].name'
    """
    with opened_state() as state, state.read() as session:
        fleet = stored_fleet(session)
    if as_json:
        print_json(fleet.model_dump(mode="json"))
    else:
        sys.stdout.write(write_fleet(fleet))
