"""Proxies that are named and that nobody has heard of: a slip, more often than not."""

from __future__ import annotations

from collections.abc import Collection

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.cli.live import LedgerWindow
from scheduler.cli.printing import note
from scheduler.fleet.models import Fleet
from scheduler.fleet.references import absent_proxies


def warn_of_absent_proxies(fleet: Fleet, about: str = "") -> None:
    """Say which names and patterns fit no proxy; `about` is how what they are named for begins: `job 'nightly'`.

    Who has registered is looked up where the declared proxies don't settle it, and counts as far as that can be
    found out: what the command is for needs the database alone.
    """
    if not _told(absent_proxies(fleet), about):
        return
    for warning in _told(absent_proxies(fleet, _registered()), about):
        note(f"warning: {warning}")


def _registered() -> Collection[str]:
    try:
        view = LedgerWindow().look().view
    except ProxyfleetError:  # Redis isn't set up, or by somebody whose files this user may not read
        return ()
    return view.proxies if view is not None else ()


def _told(warnings: list[str], about: str) -> list[str]:
    return [warning for warning in warnings if warning.startswith(about)]
