"""What the demo shows: headings, the commands it runs, as one would type them, and their output."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ops.demo.errors import DemoError

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
BIN = Path(sys.executable).parent


def heading(text: str) -> None:
    """Open the next act."""
    console.print(f"\n[bold cyan]== {text}[/]")


def say(text: str) -> None:
    """A sentence for the reader."""
    console.print(text, soft_wrap=True)


class Shell:
    """Runs the product's commands the way a reader would, showing each one first."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def run(self, *command: str) -> None:
        """Run it with its output on this terminal; raises `DemoError` when it fails."""
        self._echo(command)
        code = subprocess.run(self._resolved(command), env=self._environment, check=False).returncode
        if code != 0:
            raise DemoError(f"`{shlex.join(command)}` ended with code {code}")

    def read_json(self, *command: str) -> Any:
        """Run it, show nothing, and return the JSON that it prints."""
        return json.loads(self.run_quietly(*command))

    def run_quietly(self, *command: str) -> str:
        """Run it, show nothing, and return what it prints; raises `DemoError` when it fails."""
        done = subprocess.run(
            self._resolved(command), env=self._environment, check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise DemoError(f"`{shlex.join(command)}` ended with code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _echo(self, command: Sequence[str]) -> None:
        console.print(f"[bold]$ {shlex.join(_relative(word) for word in command)}[/]", soft_wrap=True)

    def _resolved(self, command: Sequence[str]) -> list[str]:
        return [str(BIN / command[0]), *command[1:]]


def _relative(word: str) -> str:
    """Paths below the current folder as one would type them."""
    return word.removeprefix(f"{Path.cwd()}/")
