"""The types of figures that JSON shows otherwise than Python keeps them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

from scheduler.reports.figures import iso

Moment = Annotated[float, PlainSerializer(iso, when_used="json")]
"""Unix seconds; in JSON ISO 8601 in UTC."""
Seconds = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), when_used="json")]
Rate = Annotated[float, PlainSerializer(round, when_used="json")]
"""Bytes per second."""


class Shown(BaseModel):
    """Immutable; `model_dump(mode="json")` is what `--json` prints."""

    model_config = ConfigDict(frozen=True, defer_build=True)
