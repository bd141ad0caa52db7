"""What opens a repository: a passphrase, a write key, a read key, or nothing when it isn't encrypted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credential:
    """Holds secrets: its repr shows none."""


def load_credential(
    *, passphrase_file: Path | None = None, key_file: Path | None = None
) -> Credential:
    """Read a passphrase file (one line) or a write- or read-key file; no file at all means an unencrypted repository.

    Raises `KeyFileError`.
    """
    raise NotImplementedError
