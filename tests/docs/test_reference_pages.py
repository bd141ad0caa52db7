"""The generated references leave no key, option or error without a meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("page", ["configuration.md", "errors.md", "scheduler.md", "proxy-worker.md"])
def test_every_row_says_what_it_means(page: str) -> None:
    rows = [line for line in (REFERENCE / page).read_text().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("configuration.md", "### `[[job]]`"),
        ("configuration.md", "### `[local_proxy.datastores.NAME]`"),
        ("errors.md", "| `no-such-job` | No job of that name is declared. |"),
        ("errors.md", "| `wrong-passphrase` |"),
        ("scheduler.md", "### `scheduler job start`"),
        ("proxy-worker.md", "### `proxy-worker repository init`"),
    ],
)
def test_a_page_has_what_one_looks_for_there(page: str, expected: str) -> None:
    assert expected in (REFERENCE / page).read_text()
