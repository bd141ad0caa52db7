"""The operator's page about transport modes names every error that they can end with."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from proxy_worker import transport
from proxy_worker.contract.errors import ProxyfleetError
from proxy_worker.transport.vmdk import VmdkError

GUIDE = Path(__file__).parents[2] / "docs" / "transport-modes.md"


def errors() -> set[type[ProxyfleetError]]:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(transport.__path__, "proxy_worker.transport.")
    ]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    raised = {found for found in classes if issubclass(found, ProxyfleetError) and found is not VmdkError}
    return {found for found in raised if found.__module__.startswith("proxy_worker.transport")}


@pytest.mark.parametrize("error", sorted(errors(), key=lambda error: error.code()))
def test_every_error_is_in_the_guide(error: type[ProxyfleetError]) -> None:
    line = next((line for line in GUIDE.read_text().splitlines() if f"`{error.code()}`" in line), "")
    assert line, f"{error.code()} isn't in {GUIDE.name}"
    assert error.exit_code == 8 or f"(exit {error.exit_code})" in line
