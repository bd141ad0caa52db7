"""The browser of `proxy-worker restore-files --browse`: a shell in the guest's filesystems, as sftp's."""

from __future__ import annotations

import cmd
import os
import posixpath
import readline
import shlex
from pathlib import Path

import typer

from proxy_worker.cli.restoring_files import entry_line, printable, restore_entry, tell_landed, volume_line
from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.guest_files.errors import ApplianceError, UnreadableVolumeError
from proxy_worker.guest_files.guest import Entry, Guest
from proxy_worker.guest_files.paths import shown

_HELP = """\
  volumes               what the disks consist of
  use VOLUME            look into another volume
  ls [PATH]             what is in a folder
  cd [PATH]             go into a folder
  get PATH [FOLDER]     restore a file or folder into a folder of this machine; into {to} unless told
  quit                  or Ctrl-D
Tab completes names. Quote those with spaces."""


class Browser(cmd.Cmd):
    """Reads commands until `quit`; a mistake is said, and ends nothing."""

    def __init__(self, guest: Guest, to: Path, *, title: str) -> None:
        super().__init__()
        self._guest, self._to = guest, to
        self._folder = b"/"
        self._kept: dict[tuple[str, bytes], list[Entry]] = {}
        self.intro = f"{title}. `help` shows the commands."

    def run(self) -> None:
        """Browse until the user has enough; begins in the first volume that can be read."""
        for volume in self._guest.volumes:
            try:
                self._guest.use(volume)
            except UnreadableVolumeError:
                continue
            break
        readline.set_completer_delims(" \t\n")
        self._follow()
        self.cmdloop()

    def onecmd(self, line: str) -> bool:
        """Do a command; says what is wrong with it. Raises `ApplianceError`: nothing works after that."""
        try:
            return bool(super().onecmd(line))
        except ApplianceError:
            raise
        except ProxyfleetError as error:
            typer.echo(str(error), err=True)
        except ValueError as error:
            typer.echo(f"{line}: {error}", err=True)  # a quote that isn't closed
        return False

    def postcmd(self, stop: bool, line: str) -> bool:  # noqa: ARG002 - the framework's signature
        self._follow()
        return stop

    def emptyline(self) -> bool:
        """Do nothing, where the framework would repeat the last command."""
        return False

    def default(self, line: str) -> None:
        typer.echo(f"{printable(line)}: there is no such command; `help` shows those there are.", err=True)

    def do_help(self, _: str) -> None:
        typer.echo(_HELP.format(to=printable(str(self._to))))

    def do_volumes(self, _: str) -> None:
        for volume in self._guest.volumes:
            typer.echo(volume_line(volume))

    def do_use(self, line: str) -> None:
        self._guest.use(self._guest.volume(line.strip()))
        self._folder = b"/"

    def do_ls(self, line: str) -> None:
        for path in [self._path(word) for word in shlex.split(line)] or [self._folder]:
            entry = self._guest.entry(path)
            for found in self._entries(path) if entry.is_folder else [entry]:
                typer.echo(entry_line(self._guest, found))

    def do_cd(self, line: str) -> None:
        path = self._path((shlex.split(line) or ["/"])[0])
        if not self._guest.entry(path).is_folder:
            typer.echo(f"{shown(path)}: it is no folder", err=True)
            return
        self._folder = path

    def do_get(self, line: str) -> None:
        path, *folder = shlex.split(line) or [""]
        if not path or folder[1:]:
            typer.echo("get PATH [FOLDER]", err=True)
            return
        entry = self._guest.entry(self._path(path))
        tell_landed(restore_entry(self._guest, entry, Path(folder[0]) if folder else self._to))

    def do_quit(self, _: str) -> bool:
        return True

    def do_EOF(self, _: str) -> bool:  # noqa: N802 - the framework's name for the end of the input
        typer.echo()
        return True

    def get_names(self) -> list[str]:
        """What Tab completes at the beginning of a line."""
        return [name for name in super().get_names() if name != "do_EOF"]

    def complete_use(self, text: str, *_: object) -> list[str]:
        return [volume.name for volume in self._guest.volumes if volume.name.startswith(text)]

    def completedefault(self, text: str, *_: object) -> list[str]:
        """Names that begin so."""
        folder, start = posixpath.split(text)
        try:
            entries = self._entries(self._path(folder))
        except ProxyfleetError:
            return []
        names = [os.fsdecode(entry.name) + "/" * entry.is_folder for entry in entries]
        return [posixpath.join(folder, name) for name in names if name.startswith(start)]

    def _entries(self, folder: bytes) -> list[Entry]:
        """What a folder holds; remembered, for nothing changes."""
        place = (self._guest.in_use.name if self._guest.in_use is not None else "", folder)
        if place not in self._kept:
            self._kept[place] = self._guest.entries(folder)
        return self._kept[place]

    def _path(self, word: str) -> bytes:
        return posixpath.normpath(posixpath.join(self._folder, os.fsencode(word)))

    def _follow(self) -> None:
        volume = self._guest.in_use.name if self._guest.in_use is not None else "no volume"
        self.prompt = f"{volume}:{shown(self._folder)}> "
