"""The reference disk: an ext4 filesystem of real files, as a small server's disk looks, and its second day.

About a third is zeros (free space), a third files of the machine's own `/usr`, 15% incompressible media, 14% a
SQLite database and 3% a second copy of libraries. The same `/usr`, seed and size give the same bytes. Needs
e2fsprogs (mke2fs, debugfs); no root and no mount.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
PARTITION_OFFSET = MIB
FILESYSTEM_BLOCK = 4096
SEED = 20
SYSTEM_SHARE, DATABASE_SHARE, MEDIA_SHARE, COPY_SHARE = 0.33, 0.14, 0.15, 0.03
LARGEST_SYSTEM_FILE = 48 * MIB
_FIXED_TIME = "1700000000"
_FILESYSTEM_ID = "c0ffee00-0000-4000-8000-00000000beef"
_HASH_SEED = "c0ffee00-0000-4000-8000-00000000cafe"
_WORDS = (
    "ledger", "parcel", "harbour", "engine", "winter", "signal", "copper", "meadow", "ticket", "branch", "window",
    "garden", "paper", "castle", "silver", "bridge", "market", "lantern", "corner", "travel", "button", "summer",
    "record", "valley",
)  # fmt: skip


@dataclass(frozen=True)
class SystemFile:
    """A file of this machine, and what it takes up in the filesystem."""

    path: Path
    size_bytes: int

    @property
    def allocated_bytes(self) -> int:
        return -(-self.size_bytes // FILESYSTEM_BLOCK) * FILESYSTEM_BLOCK


def system_files(seed: int) -> list[list[SystemFile]]:
    """Usable files below `/usr`, a list per folder, folders in an order that the seed decides."""
    folders = []
    for root, names, files in os.walk("/usr"):
        names.sort()
        if root.startswith(("/usr/local", "/usr/share/doc")):
            names.clear()
            continue
        found = []
        for name in sorted(files):
            path = Path(root, name)
            text = str(path)
            if path.is_symlink() or not path.is_file() or not text.isascii() or any(c in text for c in ' "\\'):
                continue
            size = path.stat().st_size
            if 0 < size <= LARGEST_SYSTEM_FILE:
                found.append(SystemFile(path, size))
        if found:
            folders.append(found)
    random.Random(seed).shuffle(folders)
    return folders


def divide(folders: list[list[SystemFile]], budget: int) -> tuple[list[SystemFile], list[SystemFile]]:
    """Whole folders up to `budget` bytes, and the files that are left: the second day's new content."""
    taken: list[SystemFile] = []
    rest: list[SystemFile] = []
    used = 0
    for folder in folders:
        need = sum(file.allocated_bytes for file in folder)
        if used + need <= budget:
            used += need
            taken += folder
        else:
            rest += folder
    return sorted(taken, key=lambda file: file.path), sorted(rest, key=lambda file: file.path)


def make_database(path: Path, size_bytes: int, seed: int) -> None:
    """A SQLite file of orders: text, numbers, random tokens, JSON, two indexes."""
    chance = random.Random(seed)
    database = sqlite3.connect(path)
    for pragma in ("page_size=8192", "journal_mode=off", "synchronous=off"):
        database.execute(f"pragma {pragma}")
    database.execute(
        "create table orders (id integer primary key, customer text, mail text, city text, placed integer,"
        " amount real, token text, detail text)"
    )
    database.execute("create index order_token on orders (token)")
    database.execute("create index order_customer on orders (customer, placed)")
    placed, number = 1_600_000_000, 0

    def rows(count: int) -> Iterator[tuple[object, ...]]:
        nonlocal placed, number
        for _ in range(count):
            number += 1
            placed += chance.randrange(1, 120)
            who = chance.randrange(250_000)
            note = " ".join(chance.choices(_WORDS, k=chance.randrange(4, 16)))
            yield (
                number,
                f"K{who:08d}",
                f"person{who}@mail{who % 89}.example",
                _WORDS[who % 17],
                placed,
                round(chance.random() * 9000, 2),
                f"{chance.getrandbits(128):032x}",
                json.dumps({"pieces": chance.randrange(1, 30), "note": note, "weight": round(chance.random(), 3)}),
            )

    while path.stat().st_size < size_bytes:
        database.executemany("insert into orders values (?,?,?,?,?,?,?,?)", rows(20_000))
        database.commit()
    database.close()


def _fill(image: Path, contents: list[tuple[Path, str]], script: Path) -> None:
    """Write files into the filesystem of `image` in the given order, making their folders."""
    made = {"/"}
    lines = []
    for source, place in contents:
        for parent in reversed(Path(place).parents):
            if str(parent) not in made:
                made.add(str(parent))
                lines.append(f"mkdir {parent}")
        lines.append(f"write {source} {place}")
    script.write_text("\n".join(lines) + "\n")
    subprocess.run(
        ["debugfs", "-w", "-f", str(script), f"{image}?offset={PARTITION_OFFSET}"],
        check=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": _FIXED_TIME},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def make_first_day(image: Path, size_bytes: int, seed: int = SEED) -> None:
    """Make the disk."""
    stage = image.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    system, _ = divide(system_files(seed), int(size_bytes * SYSTEM_SHARE))
    database = stage / "shop.db"
    database.touch()
    make_database(database, int(size_bytes * DATABASE_SHARE), seed)
    chance = random.Random(seed + 7)
    media: list[Path] = []
    left = int(size_bytes * MEDIA_SHARE)
    while left > 0:
        length = min(left, chance.randrange(MIB, 64 * MIB))
        path = stage / f"film{len(media):03d}.bin"
        path.write_bytes(chance.randbytes(length))
        media.append(path)
        left -= length
    copies, copied = [], 0
    for file in system:
        if copied < size_bytes * COPY_SHARE and str(file.path).startswith("/usr/lib"):
            copies.append((file.path, f"/srv/previous{file.path}"))
            copied += file.size_bytes
    half = len(system) // 2
    contents = [
        *((file.path, str(file.path)) for file in system[:half]),
        (database, "/var/lib/shop/shop.db"),
        *((file.path, str(file.path)) for file in system[half:]),
        *((path, f"/srv/media/{path.name}") for path in media),
        *copies,
    ]
    image.unlink(missing_ok=True)
    with image.open("wb") as empty:
        empty.truncate(size_bytes)
    features = f"offset={PARTITION_OFFSET},hash_seed={_HASH_SEED},lazy_itable_init=0,root_owner=0:0"
    blocks = (size_bytes - PARTITION_OFFSET) // FILESYSTEM_BLOCK
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(FILESYSTEM_BLOCK), "-U", _FILESYSTEM_ID, "-E", features,
         str(image), str(blocks)],
        check=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": _FIXED_TIME},
    )  # fmt: skip
    _fill(image, contents, image.with_suffix(".commands"))
    image.with_suffix(".commands").unlink()
    shutil.rmtree(stage)
