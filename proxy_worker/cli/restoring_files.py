"""The work of `proxy-worker restore-files`: repository, NBD server and appliance put together."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from proxy_worker.cli.opening import Opening, OptionError, find_point
from proxy_worker.export.opening import exported
from proxy_worker.export.server import Server, listen_on_socket
from proxy_worker.guest_files.appliance import Appliance
from proxy_worker.guest_files.guest import Entry, Guest
from proxy_worker.guest_files.landing import Landed, restore
from proxy_worker.guest_files.paths import shown
from proxy_worker.guest_files.volumes import Volume
from proxy_worker.program.scratch import ScratchFolder
from proxy_worker.program.units import size
from proxy_worker.repository.points import Point
from proxy_worker.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user asked for."""

    paths: tuple[str, ...]
    to: Path | None
    volume: str | None
    only_list: bool
    browse: bool
    as_json: bool

    def check(self) -> None:
        """Raises `OptionError` for options that don't go together."""
        if self.browse and (self.only_list or self.as_json):
            raise OptionError("--browse", why="it is for people, alone", remedy="Leave out --list and --json.")
        if not self.browse and not self.only_list and not (self.paths and self.to):
            raise OptionError(
                "--path or --to is missing",
                why="nothing says what to restore, and where to",
                remedy="Give both, or --list or --browse to look around.",
            )


def work(opening: Opening, wish: Wish, *, vm: str, point: str | None, disks: Sequence[str]) -> None:
    """List, restore or browse, as is wished."""
    wish.check()
    with opening.repository() as repository:
        chosen = find_point(repository, vm, point)
        with opened_guest(repository, chosen, disks) as guest:
            if wish.browse:
                from proxy_worker.cli.browsing_files import Browser  # noqa: PLC0415 - wanted here only

                Browser(guest, wish.to or Path(), title=f"{chosen.vm_name}, restore point {chosen.run}").run()
            elif wish.only_list:
                list_files(guest, wish)
            else:
                restore_all(guest, chosen, wish)
            for volume, told in guest.notes.items():
                typer.echo(f"Volume {volume}: {told}.", err=True)


@contextmanager
def opened_guest(repository: Repository, point: Point, disks: Sequence[str]) -> Iterator[Guest]:
    """What is inside a point's disks, all of them unless some are named."""
    keys = list(dict.fromkeys(disks)) or [disk.key for disk in point.disks]
    with ExitStack() as stack:
        scratch = stack.enter_context(ScratchFolder("files"))
        uris = []
        for number, (key, disk) in enumerate(exported(stack, repository, point, keys, None).items()):
            path = scratch / f"{number}.sock"  # one for each disk: what keys look like suits no URI
            stack.enter_context(Server({key: disk}, listen_on_socket(path)))
            uris.append(f"nbd:///?socket={path}")
        if sys.stderr.isatty():
            typer.echo(f"Opening the disks of {point.vm_name} …", err=True)
        yield Guest(stack.enter_context(Appliance(uris, scratch)), keys)


def list_files(guest: Guest, wish: Wish) -> None:
    """Print the volumes, or what is at the wished paths."""
    if not wish.paths:
        volumes = [{**asdict(volume), "problem": volume.problem} for volume in guest.volumes]
        for volume in volumes:
            del volume["device"]
        _tell(wish, volumes, [volume_line(volume) for volume in guest.volumes])
        return
    records, lines = [], []
    for entry in _located(guest, wish):
        found = guest.entries(entry.path) if entry.is_folder else [entry]
        records += [_record(one) for one in found]
        lines += [entry_line(guest, one) for one in found]
    _tell(wish, records, lines)


def restore_all(guest: Guest, point: Point, wish: Wish) -> None:
    """Restore the wished paths one after the other; what was restored before an error stays."""
    records = []
    for entry in _located(guest, wish):
        landed = restore_entry(guest, entry, wish.to or Path())
        if not wish.as_json:
            tell_landed(landed)
        records.append({"path": shown(entry.path), **asdict(landed), "to": str(landed.to)})
    if wish.as_json:
        typer.echo(json.dumps({"vm": point.vm_name, "point": point.run, "restored": records}))


def restore_entry(guest: Guest, entry: Entry, folder: Path) -> Landed:
    """Restore under its own name; a volume's root folder under the volume's."""
    volume = guest.in_use.name.replace("/", "-") if guest.in_use is not None else "root"
    return restore(guest, entry, folder, name=None if entry.name else volume)


def tell_landed(landed: Landed) -> None:
    """Say what was restored, and what was not."""
    counts = ((landed.files, "file"), (landed.folders, "folder"), (landed.links, "link"))
    said = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts if count)
    typer.echo(f"{printable(str(landed.to))}: {said}, {size(landed.size_bytes)}")
    for path, why in landed.left_out:
        typer.echo(f"left out {path}: {why}", err=True)


def volume_line(volume: Volume) -> str:
    """A volume, for people."""
    said = volume.problem or f"{volume.filesystem} {printable(volume.label)}".rstrip()
    return f"{volume.name:<16} {size(volume.size_bytes):>10}  {said}"


def entry_line(guest: Guest, entry: Entry) -> str:
    """A file, for people, as `ls -l` shows one."""
    moment = f"{datetime.fromtimestamp(entry.modified, UTC):%Y-%m-%d %H:%M}"
    name = shown(entry.name or entry.path) + ("/" if entry.is_folder and entry.name else "")
    leads = f" -> {shown(guest.link_target(entry))}" if stat.S_ISLNK(entry.mode) else ""
    return (
        f"{stat.filemode(entry.mode)} {entry.uid:>5} {entry.gid:>5} {entry.size_bytes:>12} {moment} {name}{leads}"
    )


def printable(text: str) -> str:
    """What somebody has named, for people."""
    return shown(os.fsencode(text))


def _located(guest: Guest, wish: Wish) -> Iterator[Entry]:
    """What is at the wished paths, each while its volume is in use."""
    paths = [os.fsencode(path) for path in wish.paths]
    volumes = [guest.volume(wish.volume)] * len(paths) if wish.volume is not None else guest.locate(paths)
    for volume, path in zip(volumes, paths, strict=True):
        guest.use(volume)
        yield guest.entry(path)


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "path": shown(entry.path),
        "kind": entry.kind,
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size_bytes,
        "modified": datetime.fromtimestamp(entry.modified, UTC).isoformat(),
    }


def _tell(wish: Wish, records: list[dict[str, Any]], lines: Sequence[str]) -> None:
    if wish.as_json:
        typer.echo(json.dumps(records))
    else:
        for line in lines:
            typer.echo(line)
