"""Which secrets a new proxy will get, and what whoever has them can do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from scheduler.configuration import SchedulerConfiguration
from scheduler.deployment.given import Reached, credential_files

_READS = "can read every backup"


def not_reading(
    configuration: SchedulerConfiguration, names: Sequence[str] | None, reached: Reached
) -> tuple[Sequence[str] | None, tuple[str, ...]]:
    """These names, and what was left out: without names, none whose key reads is taken.

    Names stay None where that takes no such key anyway. Raises `MissingSecretError`.
    """
    if names is not None:
        return names, ()
    files = credential_files(configuration, None, reached)
    left_out = tuple(file for file, content in files.items() if _reads(file, content))
    if not left_out:
        return None, ()
    kept = dict.fromkeys(PurePath(file).stem for file in files)
    return tuple(name for name in kept if f"{name}.key" not in left_out), left_out


def in_words(files: Mapping[str, bytes]) -> list[str]:
    """Each secret with what it can do, e.g. `main.key (write key: adds restore points, reads none)`."""
    return [f"{file} ({_ability(file, content)})" for file, content in files.items()]


def warnings(files: Mapping[str, bytes], left_out: Sequence[str]) -> list[str]:
    """About secrets that read backups, given or left out."""
    reading = [file for file, content in files.items() if _reads(file, content)]
    told = [f"{file} {_READS}, and so can whoever breaks into this proxy" for file in reading]
    return told + [
        f"{file} is a READ key, which {_READS}: automatic leaves it out. Put a write key (`proxy-worker repository "
        f"keys export-write`) into the secrets_dir for proxies, or give it by name: {PurePath(file).stem}"
        for file in left_out
    ]


def _reads(file: str, content: bytes) -> bool:
    return file.endswith(".passphrase") or _kind(file, content) == "read"


def _kind(file: str, content: bytes) -> str | None:
    """`write` or `read`, as a key's file says; None for what isn't a key."""
    if not file.endswith(".key"):
        return None
    try:
        held = json.loads(content)
    except ValueError:
        return None
    return held.get("kind") if isinstance(held, dict) else None


def _ability(file: str, content: bytes) -> str:
    if file.endswith(".password"):
        return "password"
    if file.endswith(".s3"):
        return "access key of an object store"
    if file.endswith(".passphrase"):
        return f"PASSPHRASE: {_READS}"
    match _kind(file, content):
        case "read":
            return f"READ key: {_READS}"
        case "write":
            return "write key: adds restore points, reads none"
        case _:
            return "not a key that is known here"
