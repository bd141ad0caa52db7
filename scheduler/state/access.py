"""How the scheduler's database is reached, its password apart from its URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DatabaseAccess:
    """An SQLAlchemy URL without a password, and what a server asks for besides."""

    url: str
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """The authority that must have certified the server, which then has to use TLS.

    None: TLS if the server offers it, with whatever certificate.
    """
