"""Watching something to its end, whatever happens to the database meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from scheduler.cli import watching
from scheduler.cli.watching import Watch
from scheduler.state.errors import StateUnreachableError


def _watched(look: Callable[[], str]) -> str:
    watch = Watch(
        look,
        ended=lambda seen: seen == "succeeded",
        view=lambda seen, _: seen,
        news=lambda seen: [seen],
        on_interrupt="",
    )
    return watch.until_ended(Console(file=io.StringIO()))


def _looks(*answers: str | StateUnreachableError) -> Callable[[], str]:
    coming = iter(answers)

    def look() -> str:
        answer = next(coming)
        if isinstance(answer, StateUnreachableError):
            raise answer
        return answer

    return look


def test_a_database_that_restarts_ends_no_waiting() -> None:
    away = StateUnreachableError("database", why="it doesn't answer")
    assert _watched(_looks("running", away, away, "succeeded")) == "succeeded"


def test_one_that_stays_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATIENCE_S", 0.0)
    away = StateUnreachableError("database", why="it doesn't answer")
    with pytest.raises(StateUnreachableError):
        _watched(_looks("running", *[away] * 3))
