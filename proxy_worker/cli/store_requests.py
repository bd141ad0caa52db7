"""What a command has asked of an object store, for people and in JSON."""

from __future__ import annotations

import typer

from proxy_worker.repository.store.tally import Counted


def requests_json(store: Counted) -> dict[str, int] | None:
    """By kind; None where requests cost nothing."""
    return store.requests.so_far().model_dump() if store.requests is not None else None


def show_requests(store: Counted) -> None:
    """One line, of an object store."""
    if store.requests is not None:
        typer.echo(f"requests: {store.requests.so_far()}")
