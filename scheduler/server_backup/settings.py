"""`[server_backup]` of scheduler.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from proxy_worker.contract.subjects import Name
from proxy_worker.program.settings import Settings
from scheduler.planning.retention import Retention
from scheduler.planning.schedule import Schedule, ScheduleError


def _cron(text: str) -> str:
    try:
        return Schedule(text).cron
    except ScheduleError as error:
        raise ValueError(str(error)) from error


def _timezone(text: str) -> str:
    try:
        return Schedule("0 0 * * *", text).timezone
    except ScheduleError as error:
        raise ValueError(str(error)) from error


class ServerBackupSettings(Settings):
    """The server's own backup: its database, configuration, keys and secrets."""

    repository: Name | None = None
    """The repository it goes to, by the name it is declared by; this machine must reach it. None: there is none."""
    cron: Annotated[str, AfterValidator(_cron)] = "0 3 * * *"
    """When it is made: five cron fields."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """The time zone that the fields are meant in."""
    recovery_credential: Name | None = None
    """Names the secret `<recovery_credential>.passphrase` that it is sealed with; none: the repository's. Keep a
    copy elsewhere: without it nothing can be restored."""
    retention: Retention = Retention(points=14)
    """How long backups of the server are kept."""
