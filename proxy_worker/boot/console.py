"""What a guest says on its serial port, watched for its login prompt and for what comes instead of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DEFAULT_PROMPT: Final = r"[\w.-]+ login:"
_KEPT_BYTES: Final = 1024
"""What is looked through: a prompt, and what a pattern may want to see before it."""
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()*+][0-9A-Za-z]|[=>78cDEHM])|[\r\0]")
"""Colours and cursor movements: ECMA-48, and what VT100s had before."""
_INSTEAD: Final = re.compile(
    "|".join(
        (
            r"Kernel panic - not syncing.*",
            r"No bootable device.*",  # SeaBIOS
            r"^grub(?: rescue)?> ",
            r"^\(initramfs\) ",  # initramfs-tools
            r"^(?:dracut|switch_root):/# ",
            r"You are in emergency mode.*",  # systemd
            r"^No boot loader was found\.",  # startup.nsh
        )
    ),
    re.MULTILINE,
)
"""What a guest, or what should have started it, says when there will be no prompt."""


@dataclass(frozen=True, slots=True)
class Said:
    """What was waited for."""

    text: str
    is_prompt: bool


class ConsoleWatch:
    """Reads along until something is said that ends the wait."""

    def __init__(self, prompt: re.Pattern[str]) -> None:
        self._prompt = prompt
        self._raw = b""

    def feed(self, data: bytes) -> Said | None:
        """Take what was said next, in pieces of any size."""
        self._raw += data
        text = self._text()
        self._raw = self._raw[-_KEPT_BYTES:]
        for pattern, is_prompt in ((self._prompt, True), (_INSTEAD, False)):
            if matched := pattern.search(text):
                return Said(matched[0].strip(), is_prompt)
        return None

    def last_line(self) -> str:
        """The last line that says something."""
        return next((line.strip() for line in reversed(self._text().splitlines()) if line.strip()), "")

    def _text(self) -> str:
        return _plain(self._raw)


def last_lines(said: bytes, most: int) -> tuple[str, ...]:
    """The last lines of what was said that say something, at most so many."""
    lines = [line.strip() for line in _plain(said).splitlines()]
    return tuple([line for line in lines if line][-most:])


def _plain(said: bytes) -> str:
    return _ESCAPES.sub("", said.decode("utf-8", "replace"))
